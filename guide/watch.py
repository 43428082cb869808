"""Measures and judges watched beside the guide: when it climbs and one of them falls, the run says so, damps its steering, or stops."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from guide.goals import REACTIONS
from guide.strategies.strategy import Outcome, per_image
from probes.config import offer
from probes.errors import UserError
from probes.judge import Judge
from probes.lineage import Lineage
from probes.probe import Intent, Measure

YEARS = 25.  # a step of a judge's year, as of the period probe's


@dataclass(frozen=True)
class Watch:
    """`score`: images (n, 3, h, w) in [0, 1] to (n,), never a gradient; `lineages`: of the networks that it consults.

    Whatever a run consults can no longer judge its pictures: a caller adds `lineages` to what steered. `patience`: the guided steps over
    which the guide and what is watched are compared. `unit`: of the score, for whoever reads the trace.
    """

    score: Callable[[Tensor], Tensor]
    reaction: Literal["off", "warn", "damp", "stop"] = "warn"
    patience: int = 4
    name: str = "referee"
    lineages: tuple[Lineage, ...] = ()
    unit: str = "log-odds"
    higher_is_better: bool = True

    def __post_init__(self):
        if self.reaction not in REACTIONS:
            raise UserError(f"There is no reaction {self.reaction!r} to a referee that falls{offer(list(REACTIONS), complete=True)}.")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise UserError(f"The patience with a falling referee must be 1 step or more, not {self.patience}.")


def of_judge(judge: Judge, brief: Intent, reaction: str = "warn") -> Watch:
    """A judge's log-odds of the style asked for, else minus its years from the period, in steps of 25. UserError where the brief asks for
    neither, or for a style that the judge does not know."""
    if (brief.styles or brief.avoid) and {*(key for key, _ in brief.styles), *brief.avoid} <= set(judge.labels):
        return Watch(lambda images: judge.log_odds(judge(images), brief.styles, brief.avoid), reaction, name=judge.name,
                     lineages=(judge.lineage,))
    if brief.period:
        first, last = brief.period

        def early_or_late(images: Tensor) -> Tensor:
            years = judge(images).years.float()
            return -((first - years).relu() + (years - last).relu()) / YEARS

        return Watch(early_or_late, reaction, name=judge.name, lineages=(judge.lineage,), unit=f"{YEARS:g} years")
    unknown = next((key for key, _ in brief.styles if key not in judge.labels), None)
    raise UserError(f"The {judge.name} does not know {unknown} and cannot be asked about it{offer(list(judge.labels), complete=True)}."
                    if unknown else f"The {judge.name} reads styles and years; ask for a --style or a --period that it can look for.")


def of_measure(name: str, measure: Measure, reaction: str = "warn") -> Watch:
    """A measure's score of the whole picture; its encoder steers as well, or is watched too."""
    return Watch(measure, reaction, name=name, lineages=(measure.encoder.lineage,), unit=measure.unit,
                 higher_is_better=measure.higher_is_better)


def listed(watch: Watch | Sequence[Watch] | None) -> tuple[Watch, ...]:
    """One, several or none as a tuple; UserError for two of one name."""
    found = () if watch is None else (watch,) if isinstance(watch, Watch) else tuple(watch)
    if len({one.name for one in found}) < len(found):
        raise UserError(f"{found[0].name} is watched twice; name each once.")
    return found


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
        loss, score = loss.detach().float().cpu(), score.detach().float().cpu() * (1 if self.watch.higher_is_better else -1)
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
