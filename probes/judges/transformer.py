"""The verdict: a compact convolutional transformer (arXiv:2104.05704) trained by supervised contrast and cosine prototypes."""

from itertools import pairwise

import torch
from torch import nn

from probes.judges.readout import Readout, prepare


class TransformerJudge(nn.Module):
    """2.2 M parameters, images at 128 pixels; a convolutional tokenizer gives 8 x 8 tokens, attention pools them."""

    side = 128

    def __init__(self, styles: int, genres: int, width: int = 192, layers: int = 5, heads: int = 6):
        super().__init__()
        channels = (3, 32, 64, 128, width)
        self.tokenizer = nn.Sequential(
            *[
                part
                for inside, outside in pairwise(channels)
                for part in (nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.GroupNorm(8, outside), nn.GELU())
            ]
        )
        self.positions = nn.Parameter(torch.zeros(1, (self.side // 16) ** 2, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 3 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.attention = nn.LayerNorm(width), nn.Linear(width, 1)
        self.readout = Readout(width, styles, genres, prototypes=True)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(prepare(images, self.side)).flatten(2).transpose(1, 2)
        tokens = self.norm(self.layers(tokens + self.positions))
        return self.readout((self.attention(tokens).softmax(1) * tokens).sum(1))
