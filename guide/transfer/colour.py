"""Colours of pictures: their mean and covariance, the gentlest map from some to others, and what stays when brightness alone may change."""
from dataclasses import dataclass

import torch
from torch import Tensor

SPREAD = .2  # deviation of RGB values within a painting
RIDGE = 1e-4  # of variance: a grey picture has no direction to stretch
LUMA = (.299, .587, .114)  # ITU-R BT.601, as in probes/looks.py


@dataclass(frozen=True, eq=False)
class Palette:
    """`mean` `(3,)` and `covariance` `(3, 3)` of a picture's RGB values in [0, 1]."""

    mean: Tensor
    covariance: Tensor

    def toward(self, other: "Palette", share: float) -> "Palette":
        """Between the two: 0 is this one, 1 the other."""
        return Palette(self.mean + share * (other.mean - self.mean), self.covariance + share * (other.covariance - self.covariance))

    def distance(self, other: "Palette") -> Tensor:
        """Mean squared differences of means and covariances, in units of SPREAD and its square: 0 for equal ones, about 1 for strangers."""
        mean, covariance = self.mean - other.mean, self.covariance - other.covariance
        return (mean / SPREAD).square().mean() + (covariance / SPREAD ** 2).square().mean()


def palette(picture: Tensor, mask: Tensor | None = None) -> Palette:
    """Of `(1, 3, h, w)`; `mask` `(1, 1, h, w)` weighs the pixels."""
    values = picture[0].flatten(1)
    weights = torch.ones_like(values[0]) if mask is None else mask[0, 0].flatten()
    weights = weights / weights.sum()
    mean = values @ weights
    centred = values - mean[:, None]
    return Palette(mean, (centred * weights) @ centred.T)


def mean(palettes: list[Palette], weights: Tensor) -> Palette:
    """The weighted mean of means and of covariances: the palette in between, not that of all pixels together."""
    weights = weights / weights.sum()
    return Palette(sum(w * one.mean for w, one in zip(weights, palettes, strict=True)),
                   sum(w * one.covariance for w, one in zip(weights, palettes, strict=True)))


def mapped(picture: Tensor, source: Palette, target: Palette) -> Tensor:
    """The picture under the linear Monge-Kantorovich map, which of all that carry one Gaussian to another moves colours least
    (Pitie and Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer")."""
    ridge = RIDGE * torch.eye(3, device=picture.device)
    a, b = source.covariance + ridge, target.covariance + ridge
    root, inverse = _power(a, .5), _power(a, -.5)
    matrix = inverse @ _power(root @ b @ root, .5) @ inverse
    moved = torch.einsum("ij,njhw->nihw", matrix, picture - source.mean[:, None, None]) + target.mean[:, None, None]
    return moved.clamp(0, 1)


def lit(picture: Tensor, as_in: Tensor, mask: Tensor | None = None) -> Tensor:
    """The picture with the mean brightness of the other, by a shift of all values: `(n, 3, h, w)`; `mask` `(1, 1, h, w)` weighs the pixels.

    Where brightness alone is painted, a light or dark style would else lighten or darken the photograph. Values end at black and white.
    """
    weights = torch.tensor(LUMA, device=picture.device)[:, None, None]
    apart = ((as_in - picture) * weights).sum(1, keepdim=True)
    share = torch.ones_like(apart) if mask is None else mask.expand_as(apart)
    shift = (apart * share).sum((2, 3), keepdim=True) / share.sum((2, 3), keepdim=True).clamp_min(1e-6)
    return (picture + shift).clamp(0, 1)


def recoloured(picture: Tensor, colours: Tensor) -> Tensor:
    """The brightness of one and the colours of the other (arXiv:1606.05897, luminance only): `(n, 3, h, w)`, with gradient to `picture`.

    Colours are differences from brightness; where black or white leaves no room for them they are toned down together, so that the hue
    stays.
    """
    weights = torch.tensor(LUMA, device=picture.device)[:, None, None]
    bright = (picture * weights).sum(1, keepdim=True)
    chroma = colours - (colours * weights).sum(1, keepdim=True)
    # How far each channel may go before it leaves [0, 1]; the tightest of the three decides for all.
    room = torch.where(chroma > 0, (1 - bright) / chroma.clamp_min(1e-6), bright / (-chroma).clamp_min(1e-6))
    return bright + chroma * room.amin(1, keepdim=True).clamp(0, 1)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors * values.clamp_min(1e-10) ** exponent @ vectors.T).to(matrix.dtype)
