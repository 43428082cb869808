"""What a picture's brushwork is to an encoder: mean and deviation of each channel of its early maps, or their Gram matrices.

Large pictures are read in tiles whose sums are exactly those of the whole, so that no seam can arise.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.encoders import Encoder
from probes.features import convolutional

KINDS = ("moments", "gram")
TILE, HALO = 512, 64  # pixels; beyond the halo nothing reaches a value of the third residual stage or an earlier one
STAGES = {"conv1": 1., "conv3": 1., "layer1": 1., "layer2": 1., "layer3": .5}

Sums = dict[str, Tensor]


def stages(encoder: Encoder) -> dict[str, float]:
    """Stages that style is read from, and their weights: the stem and three residual stages, or the first half of a transformer."""
    if convolutional(encoder.clip.visual):
        return STAGES
    blocks = encoder.stages
    return {blocks[max(0, round(len(blocks) * share) - 1)]: 1. for share in (.1, .25, .5)}


@dataclass(frozen=True, eq=False)
class Statistics:
    """By stage, of one picture: `mean` `(c,)`, `deviation` `(c,)`, and `gram` `(c, c)`, the covariance of channels, where asked for."""

    mean: dict[str, Tensor]
    deviation: dict[str, Tensor]
    gram: dict[str, Tensor]

    def toward(self, other: "Statistics", share: float) -> "Statistics":
        """Between the two: 0 is this one, 1 the other, beyond 1 an exaggeration."""
        def between(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value + share * (b[name] - value) for name, value in a.items() if name in b}
        deviation = {name: value.clamp_min(0) for name, value in between(self.deviation, other.deviation).items()}
        return Statistics(between(self.mean, other.mean), deviation, between(self.gram, other.gram))


def mean(several: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """The weighted mean of each number (as AdaIN mixes styles, arXiv:1703.06868)."""
    total = sum(weights)

    def mixed(kind: str) -> dict[str, Tensor]:
        return {name: sum(weight / total * getattr(one, kind)[name] for one, weight in zip(several, weights, strict=True))
                for name in getattr(several[0], kind) if all(name in getattr(one, kind) for one in several)}
    return Statistics(mixed("mean"), mixed("deviation"), mixed("gram"))


def measured(encoder: Encoder, picture: Tensor, wanted: Sequence[str], mask: Tensor | None = None, gram: bool = False) -> Statistics:
    """Of one picture `(1, 3, h, w)` in its own pixels, with gradient; `mask` `(1, 1, h, w)` weighs the places."""
    height, width = picture.shape[-2:]
    mask = torch.ones_like(picture[:, :1]) if mask is None else mask
    if convolutional(encoder.clip.visual) and max(height, width) > TILE + HALO:
        sums = _tiled(encoder, picture, mask, tuple(wanted), gram)
    else:
        sums = _sums(encoder, picture, mask, wanted, gram, (0, height, 0, width))
    return _statistics(sums, wanted, gram)


def distance(found: Statistics, target: Statistics, spread: Statistics, weights: dict[str, float]) -> Tensor:
    """Mean squared difference in units of `spread.deviation`, weighed by stage: 0 for equal ones, about 1 for strangers."""
    total = torch.zeros((), device=next(iter(found.mean.values())).device)
    for name in found.mean:
        unit = spread.deviation[name].clamp_min(1e-4)
        if name in found.gram and name in target.gram:
            off = (found.gram[name] - target.gram[name]) / (unit[:, None] * unit)
            one = ((found.mean[name] - target.mean[name]) / unit).square().mean() + off.square().mean() * len(unit) ** .5 / 4
        else:
            one = (((found.mean[name] - target.mean[name]) / unit).square() + ((found.deviation[name] - target.deviation[name]) / unit)
                   .square()).mean()
        total = total + weights[name] * one
    return total / sum(weights[name] for name in found.mean)


def pooled(several: Sequence[Statistics]) -> Statistics:
    """Mean and deviation of all together, as if each were as large as the other: the units that distances are told in."""
    mean = {name: torch.stack([one.mean[name] for one in several]).mean(0) for name in several[0].mean}
    deviation = {name: (torch.stack([one.deviation[name].square() + (one.mean[name] - mean[name]).square() for one in several]).mean(0)
                        ).sqrt() for name in several[0].mean}
    return Statistics(mean, deviation, {})


def _sums(encoder: Encoder, picture: Tensor, mask: Tensor, wanted: Sequence[str], gram: bool, inside: tuple[int, int, int, int]) -> Sums:
    """By stage and kind, sums over the places whose pixels lie in rows and columns `inside` (top, bottom, left, right)."""
    native = convolutional(encoder.clip.visual)
    maps, sums = encoder.maps(picture, list(wanted), native=native), {}
    top, bottom, left, right = inside
    for stage in wanted:
        held = maps[stage]
        if native:
            # Strides are powers of 2; maps of sides that are no multiples of them have a place more or less than that.
            steps = [2 ** round(math.log2(pixels / places)) for pixels, places in zip(picture.shape[-2:], held.shape[-2:], strict=True)]
            rows, columns = slice(top // steps[0], -(-bottom // steps[0])), slice(left // steps[1], -(-right // steps[1]))
            shares = F.avg_pool2d(mask, steps, ceil_mode=True)[..., :held.shape[2], :held.shape[3]]
            values, weights = held[0, :, rows, columns].flatten(1), shares[..., rows, columns].flatten()
        else:
            values, weights = held[0].flatten(1), torch.ones(held[0, 0].numel(), device=held.device)
        sums[f"{stage} weight"] = weights.sum()
        sums[f"{stage} first"] = values @ weights
        sums[f"{stage} second"] = (values * weights) @ values.T if gram else values.square() @ weights
    return sums


def _statistics(sums: Sums, wanted: Sequence[str], gram: bool) -> Statistics:
    means, deviations, grams = {}, {}, {}
    for stage in wanted:
        weight = sums[f"{stage} weight"].clamp_min(1e-6)
        means[stage], second = sums[f"{stage} first"] / weight, sums[f"{stage} second"] / weight
        if gram:
            grams[stage] = second - means[stage][:, None] * means[stage]
            second = second.diagonal()
        deviations[stage] = (second - means[stage].square()).clamp_min(1e-8).sqrt()
    return Statistics(means, deviations, grams)


def _tiled(encoder: Encoder, picture: Tensor, mask: Tensor, wanted: tuple[str, ...], gram: bool) -> Sums:
    """The sums of a large picture; memory is that of one tile, forward and backward."""
    height, width = picture.shape[-2:]
    windows = []
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            outer = (max(top - HALO, 0), min(bottom + HALO, height), max(left - HALO, 0), min(right + HALO, width))
            windows.append((outer, (top - outer[0], bottom - outer[0], left - outer[2], right - outer[2])))

    def of(pixels: Tensor, outer: tuple[int, ...], inside: tuple[int, int, int, int]) -> tuple[list[str], Tensor]:
        part = mask[..., outer[0]:outer[1], outer[2]:outer[3]]
        sums = _sums(encoder, pixels, part, wanted, gram, inside)
        return list(sums), torch.cat([value.flatten() for value in sums.values()])

    with torch.no_grad():
        shapes = {name: value.shape for name, value in _sums(encoder, picture[..., :64, :64], mask[..., :64, :64], wanted, gram,
                                                             (0, 64, 0, 64)).items()}
    total = _Tiles.apply(picture, windows, of)
    parts = total.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


class _Tiles(torch.autograd.Function):
    """Sums over tiles. The way back reads each tile once more instead of keeping what the way there computed."""

    @staticmethod
    def forward(ctx, picture: Tensor, windows: list, of: Callable) -> Tensor:
        ctx.save_for_backward(picture)
        ctx.windows, ctx.of = windows, of
        return sum(of(picture[..., o[0]:o[1], o[2]:o[3]], o, inside)[1] for o, inside in windows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (picture,) = ctx.saved_tensors
        whole = torch.zeros_like(picture)
        for outer, inside in ctx.windows:
            top, bottom, left, right = outer
            with torch.enable_grad():
                pixels = picture[..., top:bottom, left:right].detach().requires_grad_()
                (part,) = torch.autograd.grad(ctx.of(pixels, outer, inside)[1], pixels, gradient)
            whole[..., top:bottom, left:right] += part
        return whole, None, None
