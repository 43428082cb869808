"""What a perception is: a `Probe` is aimed at a brief, and the `Measure` that comes of it serves steering and auditing alike."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from probes.errors import UserError
from probes.heads.head import width
from probes.layers import SPREAD

if TYPE_CHECKING:
    from probes.encoders import Encoder
    from probes.features import Features
    from probes.heads.head import Head, YearHead

NOT_VALIDATED = "not validated"


class Intent(Protocol):
    """What a probe reads of a brief: prompt, (style, weight) pairs, styles to avoid, first and last year."""

    prompt: str
    styles: tuple[tuple[str, float], ...]
    avoid: tuple[str, ...]
    period: tuple[int, int] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Measure(ABC):
    """A number per image, in `unit` and within `range`, with its target already encoded.

    `scale` is the natural size of a step in that unit, so that weighted sums of different measures are comparable; `reliability` says
    on what labelled data the reading was checked. `stages`: of the encoder, whose maps the measure reads from the pass that embeds.
    """

    encoder: Encoder
    name: str
    unit: str
    range: tuple[float, float]
    higher_is_better: bool
    scale: float
    differentiable: bool = True
    reliability: str = NOT_VALIDATED
    stages: tuple[str, ...] = ()

    @abstractmethod
    def score(self, embeddings: Tensor) -> Tensor:
        """Embeddings `(n, d)` of the measure's encoder to scores `(n,)`; descriptions `(n, described)` where it `reads_layers`."""

    @property
    def reads_layers(self) -> bool:
        """Whether a head of this measure reads more than embeddings: what `Encoder.describe` gives."""
        return self.stages == SPREAD

    def look(self, features: Features) -> Tensor:
        """What one pass of the encoder gave, its embeddings and the maps of `stages`, to scores `(n,)`."""
        return self.score(features.described if self.reads_layers else features.embeddings)

    def __call__(self, images: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` in [0, 1] to scores `(n,)`."""
        return self.look(self.encoder.features(images, self.stages)) if self.stages else self.score(self.encoder(images))

    def loss(self, embeddings: Tensor) -> Tensor:
        """The score in steps of `scale`, turned so that lower is better: `(n, d)` to `(n,)`."""
        score = self.score(embeddings)
        return (-score if self.higher_is_better else score) / self.scale


class Probe(ABC):
    """A perception read from one encoder's embeddings."""

    name: str
    encoder: Encoder

    @abstractmethod
    def aim(self, brief: Intent) -> Measure | None:
        """What the brief asks of this perception, or None where it asks nothing."""

    @abstractmethod
    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """Everything this perception says about embeddings `(n, d)`, or descriptions, without a target, one entry per image."""


def stages_of(encoder: Encoder, *heads: Head | YearHead) -> tuple[str, ...]:
    """The stages of the encoder that a measure by these heads reads: none where its embeddings are enough for all."""
    return SPREAD if any(width(head) != encoder.dim for head in heads) else ()


def seen_by(head: Head | YearHead, encoder: Encoder, seen: Tensor) -> Tensor:
    """Of embeddings or descriptions `seen`, what the head reads. UserError where it reads layers and there are embeddings alone."""
    wanted = width(head)
    if seen.shape[-1] == encoder.dim != wanted == encoder.described:
        raise UserError("this head reads the layers of the encoder too; give it what encoder.describe makes of the images.")
    return encoder.cut(seen, wanted)
