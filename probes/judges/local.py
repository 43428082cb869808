"""The referee: a bag of local features (after BagNet, arXiv:1904.00760), plain convolutions trained to classify by cross-entropy."""

import torch
from torch import nn

from probes.image import resize
from probes.judges.readout import Readout


class LocalJudge(nn.Module):
    """0.9 M parameters, images at 96 pixels: it sees patches of 45 pixels, and of them all only the mean and the spread.

    Without shortcuts, attention or a global view it errs in other ways than the guide's residual tower and the verdict's transformer.
    """

    side = 96

    def __init__(self, styles: int, genres: int, widths: tuple[int, ...] = (32, 64, 128, 256)):
        super().__init__()
        inside, parts = 3, []
        for index, width in enumerate(widths):
            parts += [
                nn.Conv2d(inside, width, 5 if index == 0 else 3, 2 if index < 3 else 1, 2 if index == 0 else 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False) if index < 2 else nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            inside = width
        parts += [nn.Conv2d(inside, 2 * inside, 1, bias=False), nn.BatchNorm2d(2 * inside), nn.ReLU()]
        self.patches = nn.Sequential(*parts)
        self.mix = nn.Sequential(nn.Linear(4 * inside, inside), nn.ReLU(), nn.Dropout(0.2))
        self.readout = Readout(inside, styles, genres)

    def fit(self, images: torch.Tensor) -> torch.Tensor:
        """Images of any size, floats or 8-bit, whole at 96 pixels: a judge sees the picture that a person sees, not a crop of it."""
        return resize(images, self.side, "bilinear")

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        patches = self.patches(self.fit(images) * 2 - 1).flatten(2)
        return self.readout(self.mix(torch.cat([patches.mean(2), patches.var(2).add(1e-5).sqrt()], 1)))
