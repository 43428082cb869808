"""How a picture looks, without any network: saturation, contrast, energy at high frequencies, a hash of its structure, a thumbnail."""

import io

import torch
from torch import Tensor

from probes.image import resize, to_pil

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SIDE = 256  # pictures are compared at one size at most: a larger scan is no sharper painting
EDGE = 0.25  # cycles a pixel; half of Nyquist
COLOURLESS = 0.02  # of saturation: probes that know colours are out of their depth below it
THUMBNAIL, QUALITY = 144, 62
LOOKS = ("saturation", "contrast", "high_frequency")


def looks(pixels: Tensor) -> dict[str, float]:
    """Of one picture (1, 3, h, w) in [0, 1], shrunk to at most 256 pixels a side.

    `saturation`: mean of HSV saturation, in [0, 1]. `contrast`: standard deviation of luma (RMS contrast), in [0, .5]. `high_frequency`:
    the share of luma's spectral energy (without the mean, under a Hann window) above .25 cycles a pixel, in [0, 1].
    """
    pixels = shrunk(pixels, SIDE)
    top, bottom = pixels.amax(1), pixels.amin(1)
    luma = _luma(pixels)
    height, width = luma.shape
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    energy = torch.fft.rfft2((luma - (luma * window).sum() / window.sum()) * window).abs().square()
    energy[:, 1:-1 if width % 2 == 0 else None] *= 2  # rfft2 leaves out the mirrored half
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    total = float(energy.sum())
    return {
        "saturation": float(((top - bottom) / top.clamp_min(1e-6)).mean()),
        "contrast": float(luma.std(correction=0)),
        "high_frequency": float(energy[frequency > EDGE].sum()) / total if total > 1e-9 else 0.0,
    }


def fingerprint(pixels: Tensor) -> str:
    """A difference hash: whether each of 16 x 16 places of luma is brighter than the place left of it, as 64 hexadecimal digits.

    It survives resizing, recompression and a change of brightness, and not a crop.
    """
    small = _luma(resize(pixels, (16, 17), "bilinear"))
    bits = (small[:, 1:] > small[:, :-1]).flatten().tolist()
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):064x}"


def thumbnail(pixels: Tensor) -> bytes:
    """A WebP of at most 144 pixels a side."""
    held = io.BytesIO()
    to_pil(shrunk(pixels, THUMBNAIL)).save(held, "WEBP", quality=QUALITY, method=2)
    return held.getvalue()


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """At most `side` pixels on its longer side; never enlarged."""
    height, width = pixels.shape[-2:]
    scale = side / max(height, width)
    return pixels if scale >= 1 else resize(pixels, (max(round(height * scale), 1), max(round(width * scale), 1)), "bilinear")


def _luma(pixels: Tensor) -> Tensor:
    return (pixels[0] * pixels.new_tensor(LUMA)[:, None, None]).sum(0)
