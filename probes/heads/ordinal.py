"""A head over ordered bins: a softmax over bin centres, its mean, and a monotone recalibration of that mean."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from probes import calibration
from probes.errors import UserError
from probes.heads import card
from probes.heads.examples import numbers, table
from probes.heads.head import YearHead, affine
from probes.heads.recalibration import recalibrated
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class Ordinal:
    """`weight` `(m, d)` and `bias` `(m,)` over m rising `centres`; recalibration knots `(r,)`, none for none."""

    kind: ClassVar[str] = "ordinal"

    weight: Tensor
    bias: Tensor
    centres: Tensor
    recalibration_x: Tensor
    recalibration_y: Tensor
    temperature: float = 1.
    reliability: str = NOT_VALIDATED

    def __post_init__(self):
        if not self.weight.shape[:1] == self.bias.shape == self.centres.shape or not 0 < self.temperature < float("inf"):
            raise UserError("a head over bins needs a weight row, a bias and a centre for each and a temperature above 0.")
        if self.recalibration_x.dim() != 1 or self.recalibration_x.shape != self.recalibration_y.shape:
            raise UserError("a recalibration needs as many values as knots.")
        if not all((values.diff() > 0).all() for values in (self.centres, self.recalibration_x)):
            raise UserError("the centres of the bins and the knots of the recalibration have to rise.")

    def logits(self, embeddings: Tensor) -> Tensor:
        """`(n, d)` to the calibrated logit of each bin `(n, m)`."""
        return affine(embeddings, self.weight, self.bias) / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """`(n, d)` to the probability of each bin `(n, m)`."""
        return self.logits(embeddings).softmax(-1)

    def expected(self, embeddings: Tensor) -> Tensor:
        """`(n, d)` to the recalibrated mean over the bins `(n,)`, in the unit of the centres."""
        probabilities = self.probabilities(embeddings)
        return self.recalibrated(probabilities @ self.centres.to(probabilities.dtype))

    def recalibrated(self, values: Tensor) -> Tensor:
        """Values `(n,)` by the knots; see `recalibration.recalibrated`."""
        return recalibrated(values, self.recalibration_x, self.recalibration_y)

    def span(self, embeddings: Tensor, share: float = .8) -> tuple[Tensor, Tensor]:
        """The central `share` of each distribution, shifted as the recalibration shifts its mean and never leaving it out: two `(n,)`."""
        probabilities = self.probabilities(embeddings)
        mean = probabilities @ self.centres.to(probabilities.dtype)
        shift = self.recalibrated(mean) - mean
        low, high = (self._quantile(probabilities, q) for q in ((1 - share) / 2, (1 + share) / 2))
        return torch.minimum(low, mean) + shift, torch.maximum(high, mean) + shift

    def _quantile(self, probabilities: Tensor, q: float) -> Tensor:
        middle = (self.centres[1:] + self.centres[:-1]) / 2
        edges = torch.cat([2 * self.centres[:1] - middle[:1], middle, 2 * self.centres[-1:] - middle[-1:]])
        cumulative = probabilities.cumsum(-1)
        place = (cumulative < q).sum(-1, keepdim=True).clamp(max=len(self.centres) - 1)
        inside = probabilities.gather(-1, place)
        before = cumulative.gather(-1, place) - inside
        fraction = ((q - before) / inside.clamp_min(1e-12)).clamp(0, 1)
        return (edges[place] + fraction * (edges[place + 1] - edges[place]))[:, 0]


@torch.inference_mode(False)
def fit(features, years, *, centres=None, width: float = 60., pull: float = .03, balanced: bool = True, steps: int = 200) -> Ordinal:
    """Bins of embeddings `(n, d)` dated `years` `(n,)`: cross-entropy to triangular soft labels of half-width `width` years.

    `centres` `(m,)` rise, every 25 years over the span of the data unless given. `pull` is the weight of the L2 norm (1 / C of
    scikit-learn). `balanced`: rare years weigh more, by the root of what a bin holds. By LBFGS in fp64, at most `steps` iterations; no
    recalibration yet.
    """
    x = table(features)
    dtype, years, x = x.dtype, numbers(years, x), x.double()
    if years.min() == years.max():
        raise UserError(f"all {len(years)} years are {float(years[0]):g}; a head of years needs at least two different ones to learn from.")
    if centres is None:
        first, last = 25 * int(years.min() // 25), 25 * int(-(-years.max() // 25))
        centres = torch.arange(first, last + 1, 25)
    centres = torch.as_tensor(centres, dtype=torch.float64, device=x.device)
    if centres.dim() != 1 or len(centres) < 2 or not (centres.diff() > 0).all():
        raise UserError("the centres of the bins have to be at least two rising years.")
    soft = (1 - (years[:, None] - centres).abs() / width).clamp_min(0)
    outside = int((soft.sum(1) == 0).sum())
    if outside:
        raise UserError(f"{outside} of {len(years)} years lie {width:g} or more from every bin; add bins there or leave them out.")
    soft = soft / soft.sum(1, keepdim=True)
    # The 20 keeps a nearly empty bin from ruling the fit.
    weights = soft @ (1 / (soft.sum(0) + 20)).sqrt() if balanced else torch.ones_like(years)
    weights = weights / weights.mean()
    x = F.pad(x, (0, 1), value=1.)
    with torch.enable_grad():
        solution = x.new_zeros(len(centres), x.shape[1]).requires_grad_()
        optimizer = torch.optim.LBFGS([solution], max_iter=steps, tolerance_grad=1e-7 * len(x), line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            entropy = -(weights[:, None] * soft * (x @ solution.T).log_softmax(-1)).sum()
            value = entropy + pull / 2 * solution[:, :-1].square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    weight, none = solution.detach().to(dtype), x.new_zeros(0, dtype=dtype)
    return Ordinal(weight[:, :-1].contiguous(), weight[:, -1].contiguous(), centres.to(dtype), none, none)


@torch.inference_mode(False)
def recalibrate(head: Ordinal, features, years, knots: int = 24, least_slope: float = .1) -> Ordinal:
    """The head with its temperature and then its monotone recalibration fitted to embeddings and years that it has not seen.

    The temperature minimises the cross-entropy of the nearest bin; `least_slope`: see `calibration.monotone`.
    UserError for fewer than two different readings.
    """
    features = table(features)
    years = numbers(years, features)
    nearest = (years[:, None] - head.centres).abs().argmin(1)
    temperature = head.temperature * calibration.temperature(head.logits(features), nearest)
    head = replace(head, temperature=temperature)
    predicted = (head.probabilities(features) @ head.centres).double().cpu().numpy()
    if np.ptp(predicted) <= 0:
        raise UserError("a recalibration needs embeddings that the head reads as different years; give it more.")
    x, y = (torch.from_numpy(part).to(head.centres) for part in calibration.monotone(predicted, years.cpu().numpy(), knots, least_slope))
    return replace(head, recalibration_x=x, recalibration_y=y)


def load(stem: Path, device: torch.device) -> YearHead:
    """The head over years in `<stem>.safetensors` with its card `<stem>.json`: an `Ordinal` unless the card names another."""
    head = card.load(stem, device, absent=Ordinal.kind)
    if not hasattr(head, "expected"):
        raise UserError(f"the head {stem} reads labels and not years; give the path of another one.")
    return head
