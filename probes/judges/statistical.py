"""The verdict: fixed statistics of colour and texture (in the manner of Portilla and Simoncelli, 2000) under kernel ridge regression.

No learned filter, no gradient descent: what a gradient through a network can paint to please a network leaves these statistics unimpressed
unless colours, contrasts and textures really change.
"""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from probes.image import resize
from probes.judges.readout import YEAR_CENTRE, YEAR_SPREAD

ORIENTATIONS, WAVELENGTHS = 4, (3.0, 6.0, 12.0, 24.0)  # of the oriented filters, in pixels

TOGETHER = 8  # images


class StatisticalJudge(nn.Module):
    """Images, the central 128 pixels of 144 -> statistics -> random Fourier features -> linear readings.

    The features are those of a Gaussian kernel (Rahimi and Recht, 2007).
    """

    side = 128
    stored = 144  # it learned from the central 128 pixels of paintings of this side

    def __init__(self, styles: int, genres: int, kernel_features: int = 3072):
        super().__init__()
        self.register_buffer("filters", _oriented_filters(), persistent=False)
        self.register_buffer("cosines", _cosines(), persistent=False)
        count = self.statistics(torch.zeros(1, 3, self.side, self.side)).shape[1]
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("directions", torch.randn(count, kernel_features, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(kernel_features, generator=generator))
        self.style, self.genre = nn.Linear(kernel_features, styles), nn.Linear(kernel_features, genres)
        self.year, self.severity = nn.Linear(kernel_features, 1), nn.Linear(kernel_features, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        standard = self.standardised(images)
        kernel = self.kernel(standard)
        return {
            "style_logits": 10 * self.style(kernel),
            "year": YEAR_CENTRE + YEAR_SPREAD * self.year(kernel)[:, 0],
            "genre_logits": 10 * self.genre(kernel),
            "severity": self.severity(kernel)[:, 0].clamp(0, 1),
            "features": standard,
        }

    def fit(self, images: torch.Tensor) -> torch.Tensor:
        """Images of any size, floats or 8-bit, as the paintings were that it learned from: at 144 pixels, the central 128 of them.

        Nothing between 128 and 144 pixels is resampled: texture is what it reads, and a picture shrunk from 144 to 128 reads as damaged.
        """
        edges = [min(max(edge, self.side), self.stored) for edge in images.shape[-2:]]
        images = resize(images, tuple(edges))
        top, left = ((edge - self.side) // 2 for edge in edges)
        return images[..., top : top + self.side, left : left + self.side]

    def standardised(self, images: torch.Tensor) -> torch.Tensor:
        """Statistics with mean 0 and deviation 1 over the training images, outliers cut at 4: `(n, d)`."""
        images = self.fit(images)
        # On a CPU a few at a time: what lies between pixels and statistics then stays in its cache, a third faster than 32 at once.
        parts = [images] if images.is_cuda else images.split(TOGETHER)
        return ((torch.cat([self.statistics(part) for part in parts]) - self.centre) / self.spread).clamp(-4, 4)

    def kernel(self, standard: torch.Tensor) -> torch.Tensor:
        return (standard @ self.directions + self.phases).cos() * math.sqrt(2 / len(self.phases))

    def statistics(self, images: torch.Tensor) -> torch.Tensor:
        """Colour histogram and moments, energies and correlations of oriented filters, block cosines, layout: `(n, d)`."""
        n = len(images)
        luminance = images.mean(1, keepdim=True)
        chroma = torch.stack([images[:, 0] - images[:, 1], images[:, 2] - (images[:, 0] + images[:, 1]) / 2], 1)
        opponent = torch.cat([luminance, chroma], 1).flatten(2)
        mean, deviation = _moments(opponent)
        skew = ((opponent - mean[..., None]) / (deviation[..., None] + 0.02)).pow(3).mean(2)
        histogram = _histogram(_pooled(images, 4)).sqrt()
        blocks = F.conv2d(luminance, self.cosines, stride=8).abs().mean((2, 3))
        layout = _pooled(torch.cat([luminance, chroma], 1), self.side // 4).flatten(1)

        energies, pools = [], []
        for index in range(len(WAVELENGTHS)):
            # One bank at the finest wavelength on a pyramid: coarser wavelengths cost a quarter each.
            luminance = _halved(luminance) if index else luminance
            response = F.conv2d(F.pad(luminance, (4, 4, 4, 4), mode="reflect"), self.filters)
            energy = response.square()
            magnitude = (energy[:, :ORIENTATIONS] + energy[:, ORIENTATIONS:]).add_(1e-8).sqrt_()
            energies.append(magnitude)
            pools.append(_pooled(magnitude, magnitude.shape[-1] // 16))
        moments = [torch.cat([(m + 1e-4).log() for m in _moments(energy.flatten(2))], 1) for energy in energies]
        together = torch.cat(pools, 1).flatten(2)
        middle, spread = _moments(together)
        together = (together - middle[..., None]) / (spread[..., None] + 1e-4)
        correlation = together @ together.transpose(1, 2) / together.shape[2]
        rows, columns = torch.triu_indices(correlation.shape[1], correlation.shape[1], 1)

        scales = [chroma]
        for _ in range(4):
            scales.append(_halved(scales[-1]))
        fine = [(_quartered(near) - far[..., :, None, :, None]).abs().mean((2, 3, 4, 5)) for near, far in pairwise(scales)]
        busy = _pooled(energies[0].mean(1, keepdim=True), self.side // 4).add(1e-4).log().flatten(1)
        parts = [mean, deviation, skew.clamp(-5, 5), histogram, *moments, correlation[:, rows, columns], (blocks + 1e-4).log(),
                 *[(f + 1e-4).log() for f in fine], layout, busy]  # fmt: skip
        return torch.cat([part.reshape(n, -1) for part in parts], 1)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over the last dimension; torch.std takes eight times as long on a CPU."""
    mean = x.mean(-1)
    centred = x - mean[..., None]
    return mean, ((centred[..., None, :] @ centred[..., None])[..., 0, 0] / (x.shape[-1] - 1)).sqrt()


def _halved(x: torch.Tensor) -> torch.Tensor:
    """`avg_pool2d(x, 2)`, which takes six times as long on a CPU."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _pooled(x: torch.Tensor, edge: int) -> torch.Tensor:
    """Means of squares of `edge` places: rows first, then columns."""
    if edge == 1:
        return x
    return x.unflatten(2, (-1, edge)).sum(3).unflatten(3, (-1, edge)).sum(4) / edge**2


def _quartered(x: torch.Tensor) -> torch.Tensor:
    """`(n, c, h, w)` as `(n, c, h / 2, 2, w / 2, 2)`."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))


def _histogram(images: torch.Tensor, bins: int = 5) -> torch.Tensor:
    """Joint soft histogram of red, green and blue with triangular bins: `(n, bins ** 3)`."""
    centres = torch.linspace(0, 1, bins).to(images)
    share = (1 - (images.flatten(2)[..., None] - centres).abs() * (bins - 1)).clamp_min(0)
    red, green, blue = share.unbind(1)
    return torch.einsum("npa,npb,npc->nabc", red, green, blue).flatten(1) / images.shape[-1] / images.shape[-2]


def _oriented_filters(size: int = 9) -> torch.Tensor:
    """Even and odd Gabor filters of the finest wavelength, without a mean: `(2 * orientations, 1, size, size)`."""
    y, x = torch.meshgrid(torch.arange(size) - size // 2.0, torch.arange(size) - size // 2.0, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * 1.8**2))
    banks = []
    for wave in (torch.cos, torch.sin):
        for k in range(ORIENTATIONS):
            angle = math.pi * k / ORIENTATIONS
            kernel = envelope * wave(2 * math.pi / WAVELENGTHS[0] * (x * math.cos(angle) + y * math.sin(angle)))
            kernel = kernel - envelope * kernel.sum() / envelope.sum()
            banks.append(kernel / kernel.norm())
    return torch.stack(banks)[:, None]


def _cosines() -> torch.Tensor:
    """The 8 x 8 cosine transform's basis but for its constant: what compression, blur and noise change first."""
    k = torch.arange(8.0)
    basis = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / 8)
    return torch.einsum("iy,jx->ijyx", basis, basis).reshape(64, 1, 8, 8)[1:] / 4
