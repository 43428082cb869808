"""The whole of a picture for an encoder that reads only the middle of one of another shape than its own: windows along the longer side."""
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.encoders import Encoder


@dataclass(frozen=True)
class Windows:
    """`count` windows, each all that the encoder reads at once of a picture whose sides are as `shape` (height, width)."""

    count: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, encoder: Encoder, photo: Tensor) -> "Windows":
        """As few as cover a picture `(n, 3, h, w)`; one where the encoder reads it whole."""
        sides = zip(photo.shape[-2:], _edges(photo, encoder.size), strict=True)
        return cls(max(-(-side // edge) for side, edge in sides) if encoder.resize_mode == "shortest" else 1, encoder.size)

    def __call__(self, images: Tensor, shift: float = 0.) -> Tensor:
        """`(n, 3, h, w)` of the photograph's shape, at any size, to `(n * count, 3, h', w')`, all of the first image first.

        They reach from end to end, and what two of them show counts twice. At a `shift` above 0 and below 1 they are moved by that share
        of the way to the next, over mirrored ends: over all shifts every place counts alike, and none draws a seam where it ends.
        """
        if self.count == 1:
            return images
        edges = _edges(images, self.shape)
        axis = -2 if images.shape[-2] > edges[0] else -1
        edge, side = edges[axis], images.shape[axis]
        if shift:
            half = edge // 2
            images = F.pad(images, (half, half, 0, 0) if axis == -1 else (0, 0, half, half), mode="reflect")
        starts = [(k + shift) / self.count * side if shift else k / (self.count - 1) * (side - edge) for k in range(self.count)]
        return torch.stack([images.narrow(axis, round(start), edge) for start in starts], 1).flatten(0, 1)

    def joined(self, maps: Tensor) -> Tensor:
        """The windows' maps `(n * count, c, h', w')` as one of each picture, `(n, c, count * h', w')`."""
        return maps if self.count == 1 else maps.unflatten(0, (-1, self.count)).transpose(1, 2).flatten(2, 3)


def _edges(images: Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest window of that shape."""
    height, width = images.shape[-2:]
    return min(height, -(-width * shape[0] // shape[1])), min(width, -(-height * shape[1] // shape[0]))
