"""What a perception is: a `Probe` is aimed at a brief, and the `Measure` that comes of it serves steering and auditing alike."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from probes.encoders import Encoder
    from probes.features import Features

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
        """Embeddings `(n, d)` of the measure's encoder to scores `(n,)`."""

    def look(self, features: Features) -> Tensor:
        """What one pass of the encoder gave, its embeddings and the maps of `stages`, to scores `(n,)`."""
        return self.score(features.embeddings)

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
        """Everything this perception says about embeddings `(n, d)` without a target, one entry per image."""
