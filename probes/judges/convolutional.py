"""The referee: a residual network (arXiv:1512.03385, basic blocks) trained to classify by cross-entropy."""
import torch
from torch import nn
from torch.nn import functional as F

from probes.judges.readout import Readout, prepare


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.second, self.second_norm = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ConvolutionalJudge(nn.Module):
    """2.8 M parameters, images at 96 pixels."""

    side = 96

    def __init__(self, styles: int, genres: int, widths: tuple[int, ...] = (32, 64, 128, 256)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        inside, stages = widths[0], []
        for width in widths:
            stages += [Block(inside, width, 2), Block(width, width, 1)]
            inside = width
        self.stages = nn.Sequential(*stages)
        self.readout = Readout(inside, styles, genres)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.readout(self.stages(self.stem(prepare(images, self.side))).mean((2, 3)))
