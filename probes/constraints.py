"""Constraints: a measure that has to stay on one side of a bound, by the modified differential method of multipliers (Platt and Barr 1988,
"Constrained Differential Optimization")."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from probes.errors import UserError
from probes.probe import Measure
from probes.region import Region


@dataclass(frozen=True)
class Constraint:
    """`measure` at least or at most `bound`, in the measure's own unit.

    The violation g is how far a score is on the wrong side, in steps of the measure's scale: above 0 where the constraint is broken.
    Descent adds `max(0, multiplier + damping * g)^2 / (2 * damping)` to the loss, the augmented Lagrangian of an inequality but for what
    has no gradient, and the multiplier climbs by `rate * g` over a run, never below 0: it presses harder the longer a constraint stays
    broken, and lets go once there is room. Departs from the paper in that inequalities need no slack variable, and in `margin`, in steps
    of the scale: descent presses already where there is less room than that, since a run that is read at few steps moves on after each.
    """

    measure: Measure
    bound: float
    side: Literal["at least", "at most"] = "at least"
    damping: float = 1.
    rate: float = 60.
    region: Region | None = None
    margin: float = 0.

    def __post_init__(self):
        if self.side not in ("at least", "at most"):
            raise UserError(f"a constraint keeps a measure 'at least' or 'at most' at a bound, not {self.side!r}.")
        low, high = self.measure.range
        if not low <= self.bound <= high:
            raise UserError(f"{self.measure.name} is read in {self.measure.unit} from {low:g} to {high:g}, so that a bound of "
                            f"{self.bound:g} means nothing; choose one within.")
        if not (0 < self.damping < float("inf") and 0 <= self.rate < float("inf") and 0 <= self.margin < float("inf")):
            raise UserError(f"damping {self.damping:g} must be above 0, rate {self.rate:g} and margin {self.margin:g} 0 or more.")

    def __str__(self) -> str:
        return f"{self.measure.name}{'>=' if self.side == 'at least' else '<='}{self.bound:g}"

    def violation(self, scores: Tensor) -> Tensor:
        """Scores `(n,)` to steps of the scale beyond the bound, negative where there is room."""
        return (self.bound - scores if self.side == "at least" else scores - self.bound) / self.measure.scale

    def holds(self, scores: Tensor) -> Tensor:
        """Whether each score keeps it: `(n,)`."""
        return scores >= self.bound if self.side == "at least" else scores <= self.bound

    def loss(self, violation: Tensor, multiplier: Tensor) -> Tensor:
        """What descent adds, `(n,)`; its slope by the violation is `max(0, multiplier + damping * (violation + margin))`."""
        return (multiplier + self.damping * (violation + self.margin)).relu().square() / (2 * self.damping)

    def climbed(self, multiplier: Tensor, violation: Tensor, share: float) -> Tensor:
        """The multiplier `(n,)` after a step that is `share` of the run; one whose violation is not finite stays."""
        moved = (multiplier + self.rate * share * violation).relu()
        return torch.where(violation.isfinite(), moved, multiplier)
