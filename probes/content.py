"""Content: whether an image shows what the prompt says."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from probes.heads import card
from probes.probe import Intent, Measure, Probe

if TYPE_CHECKING:
    from probes.encoders import Encoder


@dataclass(frozen=True, eq=False, kw_only=True)
class ContentMeasure(Measure):
    """Cosine of the image's embedding and the prompt's `(d,)`."""

    target: Tensor
    name: str = "content"
    unit: str = "cosine"
    range: tuple[float, float] = (-1., 1.)
    higher_is_better: bool = True
    scale: float = .05

    def score(self, embeddings: Tensor) -> Tensor:
        return embeddings @ self.target


class ContentProbe(Probe):
    """Reads how well an image fits words, by the encoder's own text tower."""

    name = "content"

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def aim(self, brief: Intent) -> ContentMeasure | None:
        """None where the brief has no prompt; a prompt longer than the text tower reads says so in its reliability."""
        prompt = brief.prompt.strip()
        if not prompt:
            return None
        target = self.encoder.text([prompt])[0]
        reliability = card.reliability(card.shipped("content", self.encoder))
        if self.encoder.cuts(prompt):
            reliability += "; only the beginning of the prompt is read, it is too long for the encoder"
        return ContentMeasure(encoder=self.encoder, target=target, reliability=reliability)

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """Nothing: without words there is nothing to compare with."""
        return {}
