"""A monotone map of a head's years to true ones, with a gradient everywhere."""
import torch
from torch import Tensor

LEAST_SLOPE = .1


def recalibrated(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values `(n,)`, piecewise linear between the knots `x`, `y` `(r,)`, constant beyond them; as they are for fewer than two knots.

    On a flat piece the gradient takes a slope of `LEAST_SLOPE` instead of 0, so that an image that reads there can still be steered.
    """
    if len(x) < 2:
        return values
    x, y = x.to(values.dtype), y.to(values.dtype)
    inside = values.detach().clamp(x[0], x[-1])
    piece = (torch.searchsorted(x, inside, right=True) - 1).clamp(0, len(x) - 2)
    slope = ((y[1:] - y[:-1]) / (x[1:] - x[:-1]).clamp_min(1e-6))[piece]
    exact = y[piece] + slope * (inside - x[piece])
    return exact + slope.clamp_min(LEAST_SLOPE) * (values - values.detach())
