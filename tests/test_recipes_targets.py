"""What the recipes have models learn from, where it is known in closed form: clean estimates, the colours of blocks."""
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[1]


def test_a_clean_estimate_is_the_painting_as_far_as_the_denoiser_sees_it():
    """By the weights that ship: softer than the autoencoder alone makes it, another each time, and still that painting."""
    from diffusers import AutoencoderTiny, UNet2DConditionModel
    from torch.nn.functional import interpolate

    from recipes.estimates import estimate_pass
    embedded = ROOT / "guide" / "embedded"
    vae = AutoencoderTiny.from_pretrained(embedded / "vae").eval()
    unet = UNet2DConditionModel.from_pretrained(embedded / "unet").eval()
    images = interpolate(torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)), (96, 96), mode="bicubic").clamp(0, 1)
    first, again, other = (estimate_pass(vae, unet, torch.Generator().manual_seed(seed))(images) for seed in (0, 0, 1))
    assert first.shape == images.shape
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

    def likeness(pictures: torch.Tensor) -> torch.Tensor:
        return torch.corrcoef(torch.cat([pictures, images]).flatten(1))[:4, 4:]

    assert (likeness(first).argmax(1) == torch.arange(4)).all()
    with torch.no_grad():
        coded = vae.decode(vae.encode(2 * images - 1).latents).sample / 2 + .5
    assert likeness(first).diagonal().mean() < likeness(coded).diagonal().mean()


def test_the_colours_that_an_autoencoder_has_to_keep_are_those_of_blocks_and_not_their_light():
    from recipes.autoencoder import colours

    assert colours(torch.rand(2, 1, 16, 24).expand(-1, 3, -1, -1)).abs().max() < 1e-6
    paints = torch.tensor([[0., 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]])
    found = colours(paints[:, :, None, None].expand(-1, -1, 8, 8))
    assert torch.allclose(found[:, :, 0, 0], torch.tensor([[1., 0], [-1, 0], [-.5, 1], [-.5, -1]]))
