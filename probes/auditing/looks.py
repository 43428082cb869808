"""How a picture looks, without any network: saturation, contrast, energy at high frequencies, a hash of its structure, a thumbnail."""

import io
from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from probes.artifacts import LARGEST
from probes.image import resize

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SIDE = LARGEST  # pictures are compared at one size at most: a larger scan is no sharper painting
EDGE = 0.25  # cycles a pixel; half of Nyquist
BLANK = 0.002  # of contrast, half a grey level of 255: a flatter picture is one colour
COLOURLESS = 0.02  # of saturation: probes that know colours are out of their depth below it
BLANK_NOTE, COLOURLESS_NOTE = "blank, of one colour", "without colour"
THUMBNAIL, QUALITY = 144, 62
LOOKS = ("saturation", "contrast", "high_frequency")


def looks(pixels: Tensor) -> dict:
    """Of one picture (1, 3, h, w), 8-bit or in [0, 1], shrunk to at most 256 pixels a side.

    `saturation`: mean of HSV saturation, in [0, 1]. `contrast`: standard deviation of luma (RMS contrast), in [0, .5]. `high_frequency`:
    the share of luma's spectral energy (without the mean, under a Hann window) above .25 cycles a pixel, in [0, 1]. And `fingerprint`.
    """
    pixels = shrunk(pixels, SIDE)
    red, green, blue = pixels[0]  # maxima of planes: amax over three channels takes several times as long
    top, bottom = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    luma, least = _luma(pixels), 1e-6 if pixels.is_floating_point() else 1
    window, weight = _window(*luma.shape)
    energy = torch.view_as_real(torch.fft.rfft2((luma - (luma * window).sum() / window.sum()) * window)).square().sum(-1)
    total = float(energy.sum() * 2 - energy[:, 0].sum() - (energy[:, -1].sum() if luma.shape[1] % 2 == 0 else 0))
    contrast = float((luma - luma.mean()).square().mean().sqrt())
    return {
        "saturation": float(((top - bottom).float() / top.clamp_min(least)).mean()),
        "contrast": contrast,
        "high_frequency": float((energy * weight).sum()) / total if total > 1e-9 else 0.0,
        "fingerprint": fingerprint(luma) if contrast > BLANK else one_colour(pixels),
    }


@lru_cache(maxsize=32)
def _window(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The Hann window, and how much each place of a half spectrum counts among the high frequencies."""
    # A strip of two pixels has no window: its ends are all there is.
    tall, wide = (torch.hann_window(side, periodic=False) if side > 2 else torch.ones(side) for side in (height, width))
    window = tall[:, None] * wide
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    weight = (frequency > EDGE).float()
    weight[:, 1:-1 if width % 2 == 0 else None] *= 2  # rfft2 leaves out the mirrored half
    return window, weight


def fingerprint(luma: Tensor) -> bytes:
    """A difference hash of luma (h, w): whether each of 16 x 16 places is brighter than the place left of it, as 32 bytes.

    It survives resizing, recompression and a change of brightness, and not a crop.
    """
    small = resize(luma[None, None], (16, 17), "bilinear")[0, 0]
    return np.packbits((small[:, 1:] > small[:, :-1]).numpy()).tobytes()


def one_colour(pixels: Tensor) -> bytes:
    """In place of a hash of structure, where there is none: the mean colour of (1, 3, h, w), to the nearest of 256, hashed to 32 bytes."""
    scale = 255 if pixels.is_floating_point() else 1
    return sha256(bytes((pixels[0].double().mean((1, 2)) * scale).round().clamp(0, 255).byte().tolist())).digest()


def thumbnail(pixels: Tensor) -> bytes:
    """A JPEG of at most 144 pixels a side. A WebP would be no smaller at this size, and takes ten times as long to write."""
    held = io.BytesIO()
    small = shrunk(pixels, THUMBNAIL)[0]
    small = small.mul(255).round().clamp(0, 255).byte() if small.is_floating_point() else small
    Image.fromarray(small.permute(1, 2, 0).contiguous().numpy()).save(held, "JPEG", quality=QUALITY)
    return held.getvalue()


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """At most `side` pixels on its longer side; never enlarged."""
    height, width = pixels.shape[-2:]
    scale = side / max(height, width)
    return pixels if scale >= 1 else resize(pixels, (max(round(height * scale), 1), max(round(width * scale), 1)), "bilinear")


def _luma(pixels: Tensor) -> Tensor:
    """(h, w) in [0, 1]."""
    red, green, blue = pixels[0]
    scale = 1 if pixels.is_floating_point() else 255
    return (LUMA[0] / scale) * red + (LUMA[1] / scale) * green + (LUMA[2] / scale) * blue
