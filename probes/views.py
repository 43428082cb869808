"""Noisy crops of an image: a gradient that has to please many of them draws less texture that fools one."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes import image
from probes.errors import UserError


@dataclass(frozen=True)
class Views:
    """`count` square crops per image of `smallest` to 1 of the shorter edge, with Gaussian noise of standard deviation `noise`.

    `mirror` flips half of them. With `whole` the first is a largest square, unmirrored: the whole of a square image, and of any other
    a square at a place drawn anew each time, since one that always ends at the same columns draws a seam there over many steps.
    `Views(count=1, noise=0)` just reads: its square is the centred one.
    """

    count: int = 4
    smallest: float = .6
    noise: float = .05
    mirror: bool = True
    whole: bool = True

    def __post_init__(self):
        if self.count < 1:
            raise UserError(f"there must be at least one view of an image, not {self.count}.")
        if not 0 < self.smallest <= 1:
            raise UserError(f"the smallest view must be a share of the image in (0, 1], not {self.smallest}.")
        if not 0 <= self.noise < float("inf"):
            raise UserError(f"the noise of a view must be 0 or a little more, not {self.noise}.")

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator], side: int | None = None) -> Tensor:
        """Images `(n, 3, h, w)` to views `(n * count, 3, side, side)`, all of the first image first; differentiable, in [0, 1],
        in fp32 or, for images in that, fp64.

        Each image draws from its own generator alone, so its views do not depend on the batch. `side` is the shorter edge unless given.
        """
        n, _, height, width = images.shape
        if len(generators) != n:
            raise UserError(f"each image needs a generator of its own: {n} images came with {len(generators)}.")
        short, images = min(height, width), image.wide(images)
        side = side or short
        draws, noises = zip(*(self._draw(generator, side, height == width) for generator in generators), strict=True)
        share, down, right, flip = torch.stack(draws).to(images).unbind(-1)
        edge = short * (self.smallest + (1 - self.smallest) * share)
        top, left = (height - edge) * down, (width - edge) * right
        rows = _windows(top, edge, height, side)
        columns = _windows(left, edge, width, side)
        columns = torch.where((flip < .5)[..., None, None], columns.flip(-2), columns)
        # Cropping and resizing are linear in each direction: two batched products cut all views of all images.
        cut = rows.flatten(1, 2) @ images.permute(0, 2, 1, 3).flatten(2)
        cut = cut.view(n, self.count, side, 3, width).transpose(2, 3).flatten(2, 3) @ columns.transpose(-1, -2)
        views = cut.view(n * self.count, 3, side, side)
        noise = torch.cat(noises).to(images) if self.noise else 0.
        return image.clamp(views + self.noise * noise)

    def _draw(self, generator: torch.Generator, side: int, square: bool) -> tuple[Tensor, Tensor]:
        """Share, place and flip of each view, and its noise. As many numbers are drawn whatever the shape of the image."""
        windows = torch.rand(self.count, 4, generator=generator, device=generator.device)
        if not self.mirror:
            windows[:, 3] = 1
        if self.whole:
            windows[0, ::3] = 1
            if square or (self.count == 1 and not self.noise):
                windows[0, 1:3] = .5
        shape = (self.count, 3, side, side) if self.noise else (0,)
        return windows, torch.randn(shape, generator=generator, device=generator.device)


def _windows(start: Tensor, edge: Tensor, length: int, side: int) -> Tensor:
    """Matrices `(..., side, length)` that cut `edge` pixels from `start` and resize them to `side`: bilinear, antialiased as in Pillow."""
    scale = (edge / side)[..., None, None]
    centres = start[..., None, None] + (torch.arange(side, device=start.device)[:, None] + .5) * scale
    pixels = torch.arange(length, device=start.device) + .5
    weights = (1 - (pixels - centres).abs() / scale.clamp_min(1)).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)
