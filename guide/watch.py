"""A referee beside the guide: when the guide climbs and the referee falls, the run says so, damps its steering, or stops it."""
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from guide.strategies.strategy import Outcome, per_image
from probes.errors import UserError
from probes.lineage import Lineage


@dataclass(frozen=True)
class Watch:
    """`score`: images (n, 3, h, w) in [0, 1] to (n,), higher is better, never a gradient; `lineages`: of the networks that it consults.

    Whatever is watched with the reaction "damp" or "stop" shaped the pictures, so that it can no longer judge them: a caller adds
    `lineages` to what steered. `patience`: the guided steps over which guide and referee are compared.
    """

    score: Callable[[Tensor], Tensor]
    reaction: Literal["off", "warn", "damp", "stop"] = "warn"
    patience: int = 4
    name: str = "referee"
    lineages: tuple[Lineage, ...] = ()

    def __post_init__(self):
        if self.reaction not in ("off", "warn", "damp", "stop"):
            raise UserError(f"There is no reaction {self.reaction!r} to a referee that falls; choose off, warn, damp or stop.")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise UserError(f"The patience with a falling referee must be 1 step or more, not {self.patience}.")

    @property
    def steers(self) -> tuple[Lineage, ...]:
        """The lineages that had a say in the pictures."""
        return self.lineages if self.reaction in ("damp", "stop") else ()


@dataclass
class Conflict:
    """What one run of a pipeline saw of guide and referee, and how much of its steering is left: `factor` (n,), 1 at first."""

    watch: Watch
    losses: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    since: int = 0
    factor: Tensor | None = None

    def see(self, loss: Tensor, score: Tensor) -> Tensor:
        """Takes in one guided step, (n,) each; returns which images are in conflict: True where over the last `patience` steps the guide's
        loss fell and the referee's score fell too."""
        loss, score = loss.detach().float().cpu(), score.detach().float().cpu()
        self.factor = torch.ones_like(score) if self.factor is None else self.factor
        self.losses.append(loss)
        self.scores.append(score)
        self.since += 1
        # After a reaction the next comparison waits until it had time to act.
        if self.since <= self.watch.patience or self.watch.reaction == "off":
            return torch.zeros_like(score, dtype=torch.bool)
        before = -1 - self.watch.patience
        fooled = (loss < self.losses[before]) & (score < self.scores[before]) & (self.factor > 0)
        if fooled.any():
            self.since = 0
            left = {"warn": 1., "damp": .5, "stop": 0.}[self.watch.reaction]
            self.factor = torch.where(fooled, left * self.factor, self.factor)
        return fooled

    @property
    def over(self) -> bool:
        """Whether nothing is steered any more."""
        return self.factor is not None and not self.factor.any()

    def damped(self, outcome: Outcome) -> Outcome:
        """The outcome with what is left of its steering."""
        if self.factor is None or bool((self.factor == 1).all()):
            return outcome

        def less(change: Tensor | None) -> Tensor | None:
            return None if change is None else per_image(self.factor.to(change), change) * change

        def shape(noise: Tensor) -> Tensor:
            factor = per_image(self.factor.to(noise), noise)
            mixed = noise + factor * (outcome.noise(noise) - noise)
            # A mixture of noises is shorter than either; the scheduler counts on its length.
            length = per_image(noise.flatten(1).norm(dim=1) / mixed.flatten(1).norm(dim=1).clamp_min(1e-12), noise)
            return torch.where(factor > 0, length * mixed, noise)

        return replace(outcome, clean=less(outcome.clean), mean=less(outcome.mean), noise=shape if outcome.noise else None)
