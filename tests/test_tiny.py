"""Tiny decoders from a disk: TAESD's own files, diffusers folders, and files that are neither; guidance through a real one."""
import copy
import pickle

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_families import FAMILIES, built
from tiny_pipelines import Warmth, tiny_autoencoder

from guide import tiny
from guide.decoding import Decoder
from guide.guided import guided
from guide.seeds import generators
from guide.strategies import CleanImage
from probes.errors import UserError

LATENTS = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))


def original(autoencoder, shift: int = 1) -> dict[str, torch.Tensor]:
    """The decoder's weights of an AutoencoderTiny under the names that TAESD publishes them by."""
    state = autoencoder.decoder.layers.state_dict()
    return {f"{int(name.split('.')[0]) + shift}.{name.split('.', 1)[1]}": value for name, value in state.items()}


@pytest.mark.parametrize("kind", ["safetensors", "pth", "diffusers names", "folder", "folder of files"])
def test_every_form_decodes_alike(tmp_path, kind):
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    expected = autoencoder.decode(LATENTS, return_dict=False)[0]
    path = tmp_path / "tiny_decoder.safetensors"
    if kind == "pth":
        path = tmp_path / "tiny_decoder.pth"
        torch.save(original(autoencoder), path)
    elif kind == "folder":
        path = tmp_path / "whole"
        autoencoder.save_pretrained(path)
    else:
        save_file(dict(autoencoder.state_dict()) if kind == "diffusers names" else original(autoencoder), path)
        path = tmp_path if kind == "folder of files" else path
    loaded = tiny.load(path)
    assert torch.allclose(loaded.decode(LATENTS, return_dict=False)[0], expected, atol=1e-5)
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert tiny.load(path, torch.bfloat16).dtype == torch.bfloat16


class Harm:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_decoder_is_told(tmp_path, capsys):
    with pytest.raises(UserError, match="no tiny decoder at"):
        tiny.load(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="0 files"):
        tiny.load(tmp_path)
    save_file({"text.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not hold the weights"):
        tiny.load(tmp_path / "other.safetensors")
    encoder = {f"{i}.weight": torch.zeros(4, 3, 3, 3) for i in range(2)}
    save_file(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match="does not hold the weights"):
        tiny.load(tmp_path / "encoder.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        tiny.load(tmp_path / "broken.safetensors")
    (tmp_path / "harm.pth").write_bytes(pickle.dumps({"0.weight": Harm()}))
    with pytest.raises(UserError):
        tiny.load(tmp_path / "harm.pth")
    assert "run" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def taef2(data):
    folder = data / "taef2"
    if not folder.is_dir():
        pytest.skip("no TAEF2 in the data folder")
    return tiny.load(folder / "taef2_decoder.pth")


def test_a_real_tiny_decoder_paints_what_its_encoder_saw(taef2, data):
    """TAEF2 on a painting: the encoder's weights in the same blocks, run here by hand."""
    picture = Image.open(sorted((data / "cezanne" / "authentic").glob("*.jpg"))[0]).convert("RGB").resize((128, 128))
    x = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(128, 128, 3).permute(2, 0, 1)[None].float() / 255
    weights = torch.load(data / "taef2" / "taef2_encoder.pth", weights_only=True)
    parts = {}
    for name, value in weights.items():
        parts.setdefault(int(name.split(".")[0]), {})[name.split(".", 1)[1]] = value.float()
    with torch.no_grad():
        h = x
        for index in range(max(parts) + 1):
            part = parts[index]
            if "weight" in part:
                stride = 2 if "bias" not in part else 1
                h = torch.nn.functional.conv2d(h, part["weight"], part.get("bias"), stride, 1)
            else:
                shape, pool = part["conv.0.weight"].shape, part.get("pool.0.weight")
                block = tiny.Block(shape[1], shape[0], 0 if pool is None else pool.shape[0])
                block.load_state_dict(part)
                h = block(h)
        seen = taef2.decode(h)[0] / 2 + .5
    assert h.shape == (1, 32, 16, 16)
    error = (seen.clamp(0, 1) - x).square().mean()
    assert -10 * torch.log10(error) > 25


def test_guidance_goes_through_a_real_tiny_decoder(taef2):
    """FLUX.2's latents, unpacked and at the scheduler's scale, are what it takes; here with channels of zeros to make 32."""
    pipeline, family = built("flux.2 klein"), FAMILIES["flux.2 klein"]

    class Widened(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = taef2, taef2.config

        @property
        def dtype(self):
            return self.inner.dtype

        def decode(self, z, return_dict=False):
            return self.inner.decode(torch.cat([z, z.new_zeros(len(z), 28, *z.shape[2:])], 1))

    decoder, losses = Decoder(pipeline, Widened()), []
    latents = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    assert decoder(latents, (2, 3)).shape == (1, 3, 32, 48)
    for strength in (1e-6, 4.):
        with guided(pipeline, Warmth(), CleanImage(strength=strength), seeds=(1, 2), tiny=Widened()) as run:
            family(pipeline)
        losses.append(run.trace[-1]["loss"])
    assert losses[1] < losses[0]


def test_the_slope_through_it_is_true(taef2):
    z = .3 * torch.randn(1, 32, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decoder = copy.deepcopy(taef2).double()
    z.requires_grad_()
    value = decoder.decode(z)[0].square().sum()
    (gradient,) = torch.autograd.grad(value, z)
    u = torch.randn(z.shape, generator=generators((1,))[0], dtype=z.dtype)
    with torch.no_grad():
        slope = (decoder.decode(z + 1e-6 * u)[0].square().sum() - decoder.decode(z - 1e-6 * u)[0].square().sum()) / 2e-6
    assert float(slope) == pytest.approx(float((gradient * u).sum()), rel=1e-3)
