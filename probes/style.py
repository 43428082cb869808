"""Style: how strongly an image reads as the styles asked for, in log-odds against the styles that were not."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes.config import Style, lookup, styles
from probes.errors import UserError
from probes.heads import card, linear
from probes.heads.linear import Linear
from probes.heads.zero_shot import zero_shot
from probes.probe import NOT_VALIDATED, Intent, Measure, Probe, seen_by, stages_of

if TYPE_CHECKING:
    from probes.encoders import Encoder

TEMPLATES = ("a {} painting", "{} painting", "a painting in the {} style")
INFINITY = float("inf")


@dataclass(frozen=True, eq=False)
class Odds:
    """Weighted log-odds of `targets` under `head`. `mixed`: against the labels that are no target, else each against all others."""

    head: Linear
    targets: tuple[str, ...]
    weights: tuple[float, ...]
    mixed: bool = True

    def __post_init__(self):
        if self.mixed and set(self.targets) == set(self.head.labels):
            raise UserError("the styles asked for are all that there are, so nothing is left to tell them from; ask for fewer.")

    @cached_property
    def index(self) -> list[int]:
        return [self.head.labels.index(target) for target in self.targets]

    def __call__(self, embeddings: Tensor) -> Tensor:
        logits = self.head.logits(embeddings)
        total = logits.new_zeros(len(logits))
        for index, weight in zip(self.index, self.weights, strict=True):
            excluded = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            excluded[self.index if self.mixed else [index]] = True
            total = total + weight * (logits[:, index] - logits.masked_fill(excluded, -INFINITY).logsumexp(-1))
        return total


@dataclass(frozen=True, eq=False, kw_only=True)
class StyleMeasure(Measure):
    """Log-odds of the wanted styles minus the mean log-odds of the avoided ones.

    For one style it is `log p / (1 - p)`. In a mixture each style's odds are taken against the styles outside the mixture: against all
    others, raising the heavier style would push the lighter one down.
    """

    wanted: Odds | None
    avoided: Odds | None
    name: str = "style"
    unit: str = "log-odds"
    range: tuple[float, float] = (-INFINITY, INFINITY)
    higher_is_better: bool = True
    scale: float = 1.

    def score(self, embeddings: Tensor) -> Tensor:
        score = embeddings.new_zeros(len(embeddings))
        for sign, odds in ((1, self.wanted), (-1, self.avoided)):
            score = score + sign * odds(seen_by(odds.head, self.encoder, embeddings)) if odds else score
        return score

    def probability(self, embeddings: Tensor) -> Tensor | None:
        """Probability `(n,)` of the wanted styles together, by the head that the score uses; None where none is wanted."""
        if not self.wanted:
            return None
        return self.wanted.head.probabilities(seen_by(self.wanted.head, self.encoder, embeddings))[:, self.wanted.index].sum(-1)


class StyleProbe(Probe):
    """Reads style through a linear head: the one that ships for the embedded encoder, one handed in, else words for `configs/styles`."""

    name = "style"

    def __init__(self, encoder: Encoder, head: Linear | None = None):
        self.encoder, self._head = encoder, head

    @cached_property
    def head(self) -> Linear:
        if self._head:
            return self._head
        stem = card.shipped("style", self.encoder)
        return linear.load(stem, self.encoder.device) if stem else from_words(self.encoder, styles())

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def knows(self, style: str) -> bool:
        """Whether the head was given this style, by key, name or alias."""
        return self._key(style) in self.labels

    def aim(self, brief: Intent) -> StyleMeasure | None:
        """None where the brief names no style. One that the head does not know is read by words, and the reliability says so."""
        weights: dict[str, float] = {}
        for style, weight in brief.styles:
            weights[self._key(style)] = weights.get(self._key(style), 0.) + weight
        avoid = list(dict.fromkeys(self._key(style) for style in brief.avoid))
        both = sorted(set(weights) & set(avoid))
        if both:
            raise UserError(f"the style {both[0]} is both asked for and to be avoided; choose one.")
        if not weights and not avoid:
            return None
        total = sum(weights.values())
        if weights and not (all(weight > 0 for weight in weights.values()) and total < INFINITY):
            raise UserError("the weights of styles must be above 0; a style to be avoided is named apart.")
        wanted = Odds(self._head_for(weights), tuple(weights), tuple(w / total for w in weights.values())) if weights else None
        avoided = Odds(self._head_for(avoid), tuple(avoid), (1 / len(avoid),) * len(avoid), mixed=False) if avoid else None
        unknown = [style for style in [*weights, *avoid] if style not in self.labels]
        reliability = f"{NOT_VALIDATED}: the head does not know {' and '.join(unknown)}" if unknown else self.head.reliability
        read = stages_of(self.encoder, *(odds.head for odds in (wanted, avoided) if odds))
        return StyleMeasure(encoder=self.encoder, wanted=wanted, avoided=avoided, reliability=reliability, stages=read)

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """`style_probabilities` `(n, k)`, calibrated where the head is, over `labels`."""
        return {"style_probabilities": self.head.probabilities(seen_by(self.head, self.encoder, embeddings)), "labels": list(self.labels)}

    def _key(self, style: str) -> str:
        return style if style in self.labels else lookup(styles(), style, "style").key

    def _head_for(self, wanted: Iterable[str]) -> Linear:
        unknown = [style for style in wanted if style not in self.labels]
        return from_words(self.encoder, [*self.labels, *unknown]) if unknown else self.head


def from_words(encoder: Encoder, keys: Iterable[str]) -> Linear:
    """A zero-shot head over styles, each in its noun and its adjective within the templates."""
    return zero_shot(encoder, {key: _prompts(key, styles().get(key)) for key in keys})


def _prompts(key: str, style: Style | None) -> list[str]:
    words = dict.fromkeys((style.names[0].lower(), style.adjective.lower())) if style else [key.replace("-", " ")]
    return [template.format(word) for word in words for template in TEMPLATES]
