"""Period: the year an image looks painted in, and how far that is from the years asked for."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes.errors import UserError
from probes.heads import card, ordinal
from probes.heads.head import YearHead
from probes.heads.ordinal import Ordinal
from probes.heads.zero_shot import prototypes
from probes.probe import Intent, Measure, Probe, seen_by, stages_of

if TYPE_CHECKING:
    from probes.encoders import Encoder

DECADES = range(1400, 2021, 10)
TEMPLATES = ("a painting made in {}", "a painting, painted in {}")


@dataclass(frozen=True, eq=False, kw_only=True)
class PeriodMeasure(Measure):
    """Years from the expected year to the span `first` to `last`; 0 inside it."""

    head: YearHead
    first: float
    last: float
    name: str = "period"
    unit: str = "years"
    range: tuple[float, float] = (0., float("inf"))
    higher_is_better: bool = False
    scale: float = 25.

    def score(self, embeddings: Tensor) -> Tensor:
        year = self.head.expected(seen_by(self.head, self.encoder, embeddings))
        return (self.first - year).relu() + (year - self.last).relu()


class PeriodProbe(Probe):
    """Reads the year through an ordinal head: the one that ships for the embedded encoder, one handed in, else words for each decade."""

    name = "period"

    def __init__(self, encoder: Encoder, head: YearHead | None = None):
        self.encoder, self._head = encoder, head

    @cached_property
    def head(self) -> YearHead:
        if self._head:
            return self._head
        stem = card.shipped("period", self.encoder)
        return ordinal.load(stem, self.encoder.device) if stem else from_words(self.encoder)

    def aim(self, brief: Intent) -> PeriodMeasure | None:
        """None where the brief names no period."""
        if brief.period is None:
            return None
        first, last = brief.period
        if first > last:
            raise UserError(f"a period runs from the earlier year to the later one, not from {first} to {last}.")
        return PeriodMeasure(encoder=self.encoder, head=self.head, first=first, last=last, reliability=self.head.reliability,
                             stages=stages_of(self.encoder, self.head))

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """`year`, and the 10 to 90 % span `year_low` to `year_high`: `(n,)` each; where the head has bins, also what it gives each.

        The span may end beyond `year_first` or `year_last` `(n,)`, the first and last bin: that only says earlier or later than these.
        Then `year_probabilities` `(n, m)` lie at the `years` `(m,)` that the recalibration makes of the bins' centres.
        """
        embeddings = seen_by(self.head, self.encoder, embeddings)
        found = dated(self.head, embeddings)
        if not isinstance(self.head, Ordinal):
            return found
        years = self.head.recalibrated(self.head.centres).tolist()
        return found | {"year_probabilities": self.head.probabilities(embeddings), "years": years}


def dated(head: YearHead, embeddings: Tensor) -> dict[str, Tensor]:
    """`year`, `year_low` and `year_high`, and for a head of bins `year_first` and `year_last`: `(n,)` each."""
    year, (low, high) = head.expected(embeddings), head.span(embeddings)
    known = {"year_first": head.centres[0], "year_last": head.centres[-1]} if isinstance(head, Ordinal) else {}
    return {"year": year, "year_low": low, "year_high": high} | {name: value.expand(len(year)) for name, value in known.items()}


def from_words(encoder: Encoder) -> Ordinal:
    """A zero-shot head over decades: cosines to sentences that name a year, at the encoder's own scale; not validated."""
    weight = encoder.logit_scale * prototypes(encoder, [[template.format(year) for template in TEMPLATES] for year in DECADES])
    centres = torch.tensor([float(year) for year in DECADES], device=weight.device)
    none = weight.new_zeros(0)
    return Ordinal(weight, weight.new_zeros(len(centres)), centres, none, none)
