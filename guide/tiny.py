"""Tiny decoders from a disk: a diffusers folder, or a file of weights as TAESD and its kin publish them (github.com/madebyollin/taesd).

They take latents as the scheduler holds them, unpacked, and give pixels in [-1, 1] by `decode(latents)[0]`, as diffusers' autoencoders do.
"""
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from probes.errors import UserError


class TinyDecoder(nn.Module):
    """The decoder of TAESD, TAESDXL, TAESD3, TAEF1 or TAEF2, built in the shape that its weights have."""

    def __init__(self, layers: nn.Sequential, channels: int):
        super().__init__()
        self.layers = layers
        self.config = SimpleNamespace(scaling_factor=1., shift_factor=0., latent_channels=channels)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """(n, c, h, w) -> (n, 3, 8 h, 8 w) in about [-1, 1]; latents beyond 3 are bent down to it, as when it was trained."""
        return (self.layers(3 * torch.tanh(latents / 3)) * 2 - 1,)


class Block(nn.Module):
    """Three convolutions and a skip; `pool` mixes statistics of the whole image in (TAEF2)."""

    def __init__(self, inner: int, outer: int, pooled: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(), nn.Conv2d(outer, outer, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(outer, outer, 3, padding=1))
        self.skip = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()
        self.pool = nn.Sequential(nn.Conv2d(inner, pooled, 1, bias=False), nn.GroupNorm(4, pooled), nn.ReLU(),
                                  nn.Conv2d(pooled, inner, 1, bias=False)) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return (self.conv(x) + self.skip(x)).relu()


def load(path: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The tiny decoder in a folder or file, in evaluation mode, without gradients to its weights. Files of weights are read as data alone
    (safetensors, or pickles with weights_only=True). UserError where there is none."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return _diffusers(path, dtype)
        found = sorted(file for ending in ("safetensors", "pth", "pt") for file in path.glob(f"*decoder*.{ending}"))
        if len(found) != 1:
            raise UserError(f"The folder {path} holds {len(found)} files of a decoder's weights and no config.json; name one file.")
        path = found[0]
    if not path.is_file():
        raise UserError(f"There is no tiny decoder at {path}; give a diffusers folder or a file such as taesd_decoder.safetensors.")
    return built(_weights(path), str(path)).to(dtype).eval().requires_grad_(False)


def built(weights: dict[str, Tensor], source: str = "") -> TinyDecoder:
    """A decoder in the shape of its weights: by TAESD's numbers (0 a clamp), or by diffusers' (`decoder.layers.`, one less)."""
    named = [re.fullmatch(r"(?:decoder\.)?(layers\.)?(\d+)\.(.+)", name) for name in weights if not name.startswith("encoder.")]
    if not named or not all(named):
        raise UserError(f"{source} does not hold the weights of a tiny decoder such as TAESD's; give its decoder file.")
    parts: dict[int, dict[str, Tensor]] = {}
    for match in named:
        parts.setdefault(int(match[2]) - (0 if match[1] else 1), {})[match[3]] = weights[match.string]
    first, last = parts.get(0, {}).get("weight"), parts[max(parts)].get("weight")
    if first is None or last is None or last.ndim != 4 or last.shape[0] != 3:
        raise UserError(f"{source} does not hold the weights of a tiny decoder such as TAESD's (an encoder's?); give its decoder file.")
    layers: list[nn.Module] = []
    for index in range(max(parts) + 1):
        part = parts.get(index)
        if part is None:
            layers.append(nn.ReLU() if index == 1 else nn.Upsample(scale_factor=2))
        elif "weight" in part:
            layers.append(nn.Conv2d(*part["weight"].shape[1::-1], 3, padding=1, bias="bias" in part))
        else:
            shape, pool = part["conv.0.weight"].shape, part.get("pool.0.weight")
            layers.append(Block(shape[1], shape[0], 0 if pool is None else pool.shape[0]))
    decoder = TinyDecoder(nn.Sequential(*layers), first.shape[1])
    try:
        decoder.layers.load_state_dict({f"{index}.{name}": value for index, part in parts.items() for name, value in part.items()})
    except RuntimeError as error:
        raise UserError(f"{source} has another shape than a tiny decoder such as TAESD's ({' '.join(str(error).split())[:120]}).") from None
    return decoder


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); download it again.") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise UserError(f"{path} holds more than weights and is not read; give a .safetensors file.") from None


def _diffusers(path: Path, dtype: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderTiny
    try:
        return AutoencoderTiny.from_pretrained(path, torch_dtype=dtype).eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} holds no tiny autoencoder that diffusers loads ({type(error).__name__}); save it again.") from None
