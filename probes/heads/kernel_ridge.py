"""Years by kernel ridge regression: a sum of Gaussian bumps around the labelled images, with the spread of its errors on unseen ones."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probes import calibration
from probes.errors import UserError
from probes.heads.examples import numbers, table
from probes.heads.head import fitting
from probes.heads.recalibration import recalibrated
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class KernelRidge:
    """`intercept + sum_i coefficients_i exp(-gamma |f - support_i|^2)`: `support` `(m, d)`, `coefficients` `(m,)`, years.

    Recalibration knots `(r,)` and `errors` `(q,)`, evenly spaced quantiles of true minus read years; none for none.
    """

    kind: ClassVar[str] = "kernel-ridge"

    support: Tensor
    coefficients: Tensor
    recalibration_x: Tensor
    recalibration_y: Tensor
    errors: Tensor
    gamma: float
    intercept: float
    reliability: str = NOT_VALIDATED

    def __post_init__(self):
        if self.support.dim() != 2 or self.coefficients.shape != self.support.shape[:1] or not 0 < self.gamma < float("inf"):
            raise UserError("a kernel regression needs a coefficient for each of its images and a width above 0.")
        if self.recalibration_x.dim() != 1 or self.recalibration_x.shape != self.recalibration_y.shape:
            raise UserError("a recalibration needs as many values as knots.")
        if not (self.recalibration_x.diff() > 0).all() or not (self.errors.diff() >= 0).all():
            raise UserError("the knots of the recalibration and the quantiles of the errors have to rise.")

    def raw(self, embeddings: Tensor) -> Tensor:
        """The year `(n,)` of embeddings `(n, d)` before recalibration."""
        f = fitting(embeddings, self.support.shape[1])
        return self.intercept + kernel(f, self.support.to(f), self.gamma) @ self.coefficients.to(f)

    def expected(self, embeddings: Tensor) -> Tensor:
        """The recalibrated year `(n,)` of embeddings `(n, d)`."""
        return recalibrated(self.raw(embeddings), self.recalibration_x, self.recalibration_y)

    def span(self, embeddings: Tensor, share: float = .8) -> tuple[Tensor, Tensor]:
        """The year plus the central `share` of the errors on unseen images, never leaving it out: two `(n,)`. The year twice for none."""
        year = self.expected(embeddings)
        if not len(self.errors):
            return year, year
        low, high = (torch.quantile(self.errors, (1 + side * share) / 2) for side in (-1, 1))
        return year + low.clamp(max=0), year + high.clamp(min=0)


def kernel(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    """`exp(-gamma |a_i - b_j|^2)` `(n, m)`, by products: a root of a distance would have no gradient where two are the same."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return (-gamma * squares.clamp_min(0)).exp()


@torch.inference_mode(False)
def fit(features, years, *, gamma: float = 2., ridge: float = .1) -> KernelRidge:
    """`(K + ridge I) a = years - mean` on embeddings `(n, d)` dated `years` `(n,)`, in fp64; no recalibration and no spread yet.

    `gamma` in 1 / squared distance: normalised embeddings are at most 2 apart. The head keeps all n embeddings, so it is as large.
    """
    x = table(features)
    years = numbers(years, x)
    if not ridge > 0 or not gamma > 0:
        raise UserError("the ridge and the width of the kernel have to be above 0.")
    double, mean = x.double(), years.mean()
    system = kernel(double, double, gamma) + ridge * torch.eye(len(x), dtype=torch.float64, device=x.device)
    coefficients = torch.linalg.solve(system, years - mean).to(x.dtype)
    none = x.new_zeros(0)
    return KernelRidge(x, coefficients, none, none, none, float(gamma), float(mean))


@torch.inference_mode(False)
def recalibrate(head: KernelRidge, features, years, knots: int = 24) -> KernelRidge:
    """The head with its monotone recalibration and the spread of its errors fitted to embeddings and years that it has not seen.

    The errors of each half are those under the recalibration of the other half: under its own they would be too small.
    """
    features = table(features)
    predicted, years = head.raw(features).double(), numbers(years, features)
    halves = [slice(None, None, 2), slice(1, None, 2)]
    if any(len(predicted[half]) < 2 or np.ptp(predicted[half].cpu().numpy()) <= 0 for half in halves):
        raise UserError("a recalibration needs embeddings that the head reads as different years; give it more.")

    def line(half: slice) -> list[Tensor]:
        fitted = calibration.monotone(predicted[half].cpu().numpy(), years[half].cpu().numpy(), knots)
        return [torch.from_numpy(part).to(predicted) for part in fitted]

    pairs = zip(halves, reversed(halves), strict=True)
    errors = torch.cat([years[half] - recalibrated(predicted[half], *line(other)) for half, other in pairs])
    quantiles = torch.quantile(errors, torch.linspace(0, 1, 101).to(errors))
    x, y = line(slice(None))
    return replace(head, recalibration_x=x.to(head.support), recalibration_y=y.to(head.support), errors=quantiles.to(head.support))
