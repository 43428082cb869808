"""Scene: the genre of a picture, whether it shows figures, and whether it is indoors or outdoors."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from probes.genres import FIGURES, NO_FIGURES, PLACES, WORDS, scene
from probes.heads import card, linear
from probes.heads.contrast import Contrast
from probes.heads.head import Head
from probes.heads.zero_shot import zero_shot
from probes.probe import NOT_VALIDATED, Intent, Measure, Probe, seen_by, stages_of

if TYPE_CHECKING:
    from probes.encoders import Encoder

TEMPLATES = ("a {}", "a painting: {}", "a {} in oil")
DERIVED = "derived from the genre"


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneMeasure(Measure):
    """Log-odds of the scene asked for: a genre against all others, figures against none, indoors against outdoors."""

    contrast: Contrast
    name: str = "scene"
    unit: str = "log-odds"
    range: tuple[float, float] = (-float("inf"), float("inf"))
    higher_is_better: bool = True
    scale: float = 1.

    def score(self, embeddings: Tensor) -> Tensor:
        return self.contrast(seen_by(self.contrast.head, self.encoder, embeddings))


class SceneProbe(Probe):
    """Reads the genre through a head: the one that ships for the embedded encoder, one handed in, else words for each genre.

    Figures follow from the genre; indoors or outdoors is read by words and validated by nothing.
    """

    name = "scene"

    def __init__(self, encoder: Encoder, head: Head | None = None):
        self.encoder, self._head = encoder, head

    @cached_property
    def head(self) -> Head:
        if self._head:
            return self._head
        stem = card.shipped("scene", self.encoder)
        return linear.load(stem, self.encoder.device) if stem else from_words(self.encoder)

    @cached_property
    def figures(self) -> Contrast:
        """The genres that show figures against those that mostly show none; genres that may be either stay out."""
        wanted, against = (tuple(label for label in group if label in self.head.labels) for group in (FIGURES, NO_FIGURES))
        return Contrast(self.head, wanted, against)

    @cached_property
    def indoors(self) -> Contrast:
        """By words, so it needs an encoder that reads text."""
        return Contrast(zero_shot(self.encoder, PLACES), ("indoor",), ("outdoor",))

    @property
    def derived(self) -> dict[str, Callable[[], Contrast]]:
        """What is read beside the genres, by name: made only when called, since `indoor` needs an encoder with text."""
        return {"figures": lambda: self.figures, "indoor": lambda: self.indoors}

    def aim(self, brief: Intent) -> SceneMeasure | None:
        """None where the brief asks for no scene."""
        asked = getattr(brief, "scene", "")
        if not asked:
            return None
        name = scene(asked)
        if name in PLACES:
            contrast, reading = Contrast(self.indoors.head, (name,), tuple(place for place in PLACES if place != name)), "indoor"
        elif name in ("figures", "no-figures"):
            groups = (self.figures.wanted, self.figures.against)
            contrast, reading = Contrast(self.head, *(groups if name == "figures" else groups[::-1])), "figures"
        else:
            contrast, reading = Contrast.rest(self.head, (name,)), "scene"
        return SceneMeasure(encoder=self.encoder, contrast=contrast, reliability=self.reliabilities[reading],
                            stages=stages_of(self.encoder, contrast.head))

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """`scene_probabilities` `(n, k)` over `scene_labels`; probabilities `(n,)` of `figures` and, for an encoder with text, `indoor`."""
        own, plain = seen_by(self.head, self.encoder, embeddings), self.encoder.cut(embeddings, self.encoder.dim)
        found = {"scene_probabilities": self.head.probabilities(own), "scene_labels": list(self.head.labels),
                 "figures": self.figures.probability(own)}
        return found | ({"indoor": self.indoors.probability(plain)} if self.encoder.has_text else {})

    @cached_property
    def reliabilities(self) -> dict[str, str]:
        """How far to trust `scene`, `figures` and `indoor`, each in a sentence."""
        stem = None if self._head else card.shipped("scene", self.encoder)
        figures = str(card.read(stem).get("figures") or NOT_VALIDATED) if stem else NOT_VALIDATED
        return {"scene": self.head.reliability, "figures": f"{DERIVED}; {figures}", "indoor": NOT_VALIDATED}


def from_words(encoder: Encoder) -> Head:
    """A zero-shot head over the genres, not validated."""
    return zero_shot(encoder, {genre: [template.format(word) for template in TEMPLATES] for genre, word in WORDS.items()})
