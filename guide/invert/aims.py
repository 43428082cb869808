"""What an inversion climbs: a style, a label of any probe or head, a year, a phrase, a channel of a feature map."""
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from guide.brief import Brief
from probes import explain, overview
from probes.config import offer
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card
from probes.heads.head import width
from probes.objective import Objective, Term, Values
from probes.period import PeriodProbe
from probes.probe import Measure, stages_of
from probes.style import StyleProbe
from probes.views import Views

MARGIN = 6  # views reach beyond the picture by a sixth of its side


@dataclass(frozen=True)
class Mirrored(Views):
    """Views that reach over mirrored borders: those of a picture alone hardly come to its borders, toward which it fades."""

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator], side: int | None = None) -> Tensor:
        margin = min(images.shape[-2:]) // MARGIN
        return super().__call__(F.pad(images, (margin,) * 4, mode="reflect"), generators, side or min(images.shape[-2:]))


VIEWS = Mirrored(count=8, smallest=.3, noise=.05)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading(Measure):
    """Any score of embeddings as a measure."""

    read: Callable[[Tensor], Tensor]
    range: tuple[float, float] = (-float("inf"), float("inf"))
    higher_is_better: bool = True
    scale: float = 1.

    def score(self, embeddings: Tensor) -> Tensor:
        return self.read(embeddings)


@dataclass(frozen=True, eq=False)
class Channel:
    """The mean of one channel of a stage's map over places and views: an objective like `probes.objective.Objective`."""

    encoder: Encoder
    stage: str
    number: int
    views: Views = VIEWS

    @property
    def names(self) -> tuple[str, ...]:
        return (f"{self.stage}:{self.number}",)

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Values:
        score = self.score(self.views(images, generators, self.encoder.side)).view(len(images), -1).mean(1)
        return Values(-score, {self.names[0]: score.detach()})

    def score(self, images: Tensor) -> Tensor:
        return self.encoder.maps(images, [self.stage])[self.stage][:, self.number].flatten(1).mean(1)


@dataclass(frozen=True, eq=False)
class Wish:
    """`objective(images, generators)` to be descended; `said`: what it is, in words; `unit` of its one score; `reliability`."""

    objective: Callable
    said: str
    unit: str
    reliability: str

    @property
    def name(self) -> str:
        return self.objective.names[0]

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """The score `(n,)` of whole images."""
        if isinstance(self.objective, Channel):
            return self.objective.score(images)
        return self.objective.read(images)[self.name]


def wish(encoder: Encoder, brief: Brief, probe: str, label: str, neuron: str, stems: Sequence[Path]) -> Wish:
    """The one thing that was asked for. UserError where it is none, or several."""
    asked = [name for name, given in (("--style", brief.styles), ("--period", brief.period), ("--prompt", brief.prompt),
                                      ("--probe", probe), ("--neuron", neuron)) if given]
    if len(asked) != 1:
        what = f"{' and '.join(asked)} were given together" if asked else "nothing is asked for"
        raise UserError(f"An inversion shows one reading, and {what}; choose one of --style, --period, --prompt, --probe with --label, "
                        "and --neuron.")
    if neuron:
        return _neuron(encoder, neuron)
    if probe:
        return _label(encoder, probe, label, stems)
    if brief.prompt:
        trust = card.reliability(card.shipped("content", encoder))
        target = explain.words(encoder, brief.prompt, encoder.text([brief.prompt]), trust)
        measure = Reading(encoder=encoder, name="content", unit=target.unit, read=target.score, scale=5., reliability=trust)
        return _of(measure, f"what is near to {brief.prompt!r}")
    measure = StyleProbe(encoder).aim(brief) if brief.styles else PeriodProbe(encoder).aim(brief)
    said = " and ".join(key for key, _ in brief.styles) if brief.styles else "painted in " + "-".join(map(str, dict.fromkeys(brief.period)))
    return _of(measure, said)


def _of(measure: Measure, said: str) -> Wish:
    return Wish(Objective([Term(measure)], VIEWS), said, measure.unit, measure.reliability)


def _label(encoder: Encoder, probe: str, label: str, stems: Sequence[Path]) -> Wish:
    known = overview.available(encoder, stems)
    if probe not in known:
        raise UserError(f"there is no probe {probe!r}{offer(list(known), complete=True)}.")
    head = getattr(known[probe], "head", None)
    if head is None:
        raise UserError(f"the probe {probe} has no head over embeddings to invert; choose another.")
    if not label and not hasattr(head, "expected"):
        raise UserError(f"The probe {probe} tells several labels apart; choose one by --label{offer(list(head.labels), complete=True)}.")
    found = explain.target(probe, head, torch.zeros(1, width(head), device=encoder.device), label)
    scale = 20. if hasattr(head, "expected") else 1.
    return _of(Reading(encoder=encoder, name=probe, unit=found.unit, read=found.score, scale=scale, reliability=found.reliability,
                       stages=stages_of(encoder, head)), found.label)


def _neuron(encoder: Encoder, text: str) -> Wish:
    match = re.fullmatch(r"\s*([A-Za-z]+\d*)\s*:\s*(\d{1,6})\s*", text)
    if not match:
        raise UserError(f"--neuron {text!r} names no channel; write the stage and its number, as layer3:17; there are "
                        f"{', '.join(encoder.stages)}.")
    stage, number = match[1], int(match[2])
    with torch.no_grad():
        width = encoder.maps(torch.zeros(1, 3, *encoder.size, device=encoder.device), [stage])[stage].shape[1]
    if number >= width:
        raise UserError(f"The stage {stage} has channels 0 to {width - 1}, and no {number}.")
    return Wish(Channel(encoder, stage, number), f"channel {number} of {stage}", "activation", "not a reading: what one channel answers to")
