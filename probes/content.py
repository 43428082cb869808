"""Content: whether an image shows what the prompt says, as a whole, phrase by phrase, or as a change from another image."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes.config import offer
from probes.errors import UserError
from probes.heads import card
from probes.heads.zero_shot import prototypes
from probes.probe import NOT_VALIDATED, Intent, Measure, Probe

if TYPE_CHECKING:
    from probes.encoders import Encoder

MODES = ("global", "spherical", "directional")
PHRASE_TEMPLATES = ("{}", "a painting of {}")
PREPOSITIONS = "with|without|for|at|in|on|by|near|under|over|before|behind|beside|between|against|among|around|into|from"
# A phrase ends at a comma, at "and", at a preposition, and at an article with or without "of" before it; a bare "of" holds together
# what is one thing: a vase of flowers.
ENDS = re.compile(rf"[,;:]|\b(?:and|or|{PREPOSITIONS})\b|\b(?:of\s+)?(?:the|an|a)\b", re.IGNORECASE)
LEAST_CHANGE = .05


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
        return embeddings @ self.target.to(embeddings.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class SphericalMeasure(ContentMeasure):
    """`2 asin(|u - v| / 2)^2` of image u and prompt v: half the squared angle between them, in [0, pi^2 / 2].

    Unlike the cosine it pulls hardest on what is furthest from the prompt. A step of scale is that of the cosine at 80 degrees, where
    images and their prompts lie.
    """

    unit: str = "radians^2"
    range: tuple[float, float] = (0., torch.pi ** 2 / 2)
    higher_is_better: bool = False
    scale: float = .07

    def score(self, embeddings: Tensor) -> Tensor:
        apart, together = (torch.linalg.vector_norm(embeddings + sign * self.target, dim=-1) for sign in (-1, 1))
        # For unit vectors the same angle as the arcsine's, which has no gradient where image and prompt are opposite.
        return 2 * torch.atan2(apart, together).square()


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectionalMeasure(ContentMeasure):
    """Cosine of the change from a source image and the change from a source text to the prompt (CLIP direction, arXiv:2108.00946).

    `source` `(m, d)`: one for all images, or one for as many images in a row each. Changes shorter than a few hundredths are damped, so
    that an image that has not changed reads 0 and has a gradient that is finite.
    """

    source: Tensor
    scale: float = .1

    def score(self, embeddings: Tensor) -> Tensor:
        if len(embeddings) % len(self.source):
            raise UserError(f"{len(embeddings)} images cannot be changes from {len(self.source)} sources; give one, or one for each.")
        change = embeddings - self.source.repeat_interleave(len(embeddings) // len(self.source), 0)
        return change @ self.target.to(change.dtype) / (change.square().sum(-1) + LEAST_CHANGE ** 2).sqrt()


class ContentProbe(Probe):
    """Reads how well an image fits words, by the encoder's own text tower.

    `mode` is global (cosine), spherical or directional; the last compares changes, from the image `source` `(m, 3, h, w)` in [0, 1] and
    from `source_text`, which says what that shows.
    """

    name = "content"

    def __init__(self, encoder: Encoder, mode: str = "global", source: Tensor | None = None, source_text: str = "a painting"):
        if mode not in MODES:
            raise UserError(f"there is no content mode {mode!r}{offer(list(MODES), complete=True)}.")
        if (source is not None) != (mode == "directional"):
            raise UserError("the directional mode, and no other, compares with a source image; give one, or choose another mode.")
        self.encoder, self.mode, self.source_text = encoder, mode, source_text
        with torch.no_grad():
            self.source = None if source is None else encoder(source)

    def aim(self, brief: Intent) -> ContentMeasure | None:
        """None where the brief has no prompt; a prompt longer than the text tower reads says so in its reliability."""
        prompt = brief.prompt.strip()
        if not prompt:
            return None
        target = self.encoder.text([prompt])[0]
        reliability = card.reliability(card.shipped("content", self.encoder))
        if self.encoder.cuts(prompt):
            reliability += "; only the beginning of the prompt is read, it is too long for the encoder"
        if self.mode == "global":
            return ContentMeasure(encoder=self.encoder, target=target, reliability=reliability)
        # The cards compare whole images with words: the cosine. A monotone function of it is as good; a change is another reading.
        if self.mode == "spherical":
            return SphericalMeasure(encoder=self.encoder, target=target, reliability=reliability)
        change = target - self.encoder.text([self.source_text])[0]
        if not change.any():
            raise UserError(f"the prompt and the text of the source are both {prompt!r}; describe the source as it is.")
        return DirectionalMeasure(encoder=self.encoder, target=change / change.norm(), source=self.source, reliability=NOT_VALIDATED)

    def phrases(self, brief: Intent) -> dict[str, ContentMeasure]:
        """The cosine to each phrase of the prompt on its own, by phrase; as measures they are named `content: lemons`."""
        parts = phrases(brief.prompt)
        if not parts:
            return {}
        reliability = card.reliability(card.shipped("content", self.encoder), "phrases")
        targets = prototypes(self.encoder, [[template.format(part) for template in PHRASE_TEMPLATES] for part in parts])
        return {part: ContentMeasure(encoder=self.encoder, target=target, name=f"content: {part}", reliability=reliability)
                for part, target in zip(parts, targets, strict=True)}

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """Nothing: without words there is nothing to compare with."""
        return {}


def phrases(prompt: str) -> tuple[str, ...]:
    """The things that a prompt names, each once: `lemons and a jug at the window` are `lemons`, `jug` and `window`."""
    parts = (" ".join(part.split()).strip("'\"().- ") for part in ENDS.split(prompt))
    kept = (re.sub(r"\s+of$", "", part) for part in parts)
    return tuple(dict.fromkeys(part for part in kept if part and part.lower() != "of"))
