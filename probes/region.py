"""Region: the part of an image that an objective looks at and may change."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from probes import image
from probes.errors import UserError

LEAST = 8  # pixels a side: less shows nothing to a probe


@dataclass(frozen=True, eq=False)
class Region:
    """`mask` `(h, w)` in [0, 1], 1 where the objective acts; it is laid over images of any size.

    An image is cut to the box around the region, so that views and readings are of what is there, and no gradient reaches the pixels of
    the box that lie outside of the mask.
    """

    mask: Tensor

    def __post_init__(self):
        if self.mask.ndim != 2 or not ((self.mask >= 0) & (self.mask <= 1)).all():
            raise UserError(f"a region is a mask (height, width) in [0, 1], not {tuple(self.mask.shape)}.")
        if not (self.mask > .5).any():
            raise UserError("the region is empty: the mask has nothing brighter than middle grey; paint white what is to be steered.")

    def __call__(self, images: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` to the box around the region `(n, 3, h', w')`, with gradient to the pixels inside alone."""
        height, width = images.shape[-2:]
        mask = F.interpolate(self.mask[None, None].to(images), (height, width), mode="bilinear", align_corners=False, antialias=True)[0, 0]
        top, bottom = _span((mask > .5).any(1), height)
        left, right = _span((mask > .5).any(0), width)
        inside, box = mask[top:bottom, left:right], images[..., top:bottom, left:right]
        return inside * box + (1 - inside) * box.detach()


def _span(rows: Tensor, length: int) -> tuple[int, int]:
    """First and last-but-one place of a box along one side, widened to LEAST within the image."""
    found = torch.nonzero(rows)[:, 0]
    first, last = (int(found[0]), int(found[-1]) + 1) if len(found) else (length // 2, length // 2)
    missing = max(0, min(LEAST, length) - (last - first))
    first = max(0, min(first - missing // 2, length - min(LEAST, length)))
    return first, max(last, min(first + LEAST, length))


def load(path: str | Path) -> Region:
    """A region from a picture: white acts, black is left alone. UserError where it cannot be read or holds no white."""
    return Region(image.load(path)[0].mean(0))
