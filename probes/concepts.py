"""What a picture is near to: concepts in words, and labelled pictures."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from probes.config import styles
from probes.genres import WORDS
from probes.heads.zero_shot import prototypes
from probes.labelled import Labelled

if TYPE_CHECKING:
    from probes.encoders import Encoder

TEMPLATES = ("a {}", "a painting: {}", "a painting of a {}")
STYLE_TEMPLATES = ("a {} painting", "a painting in the {} style")
SUBJECTS = ("woman", "man", "child", "saint", "crowd of people", "river", "sea with ships", "mountain", "forest", "garden", "street",
            "church", "room", "table with fruit", "vase of flowers", "horse", "bridge", "village", "snow", "night sky")
MANNERS = {
    "soft light and deep shadow": ("a painting with soft light and deep shadow", "a dark painting with strong chiaroscuro"),
    "bright pure colours": ("a painting in bright pure colours", "a very colourful painting"),
    "muted colours": ("a painting in muted earth colours", "a painting in brown and grey"),
    "pastel colours": ("a painting in pale pastel colours",),
    "loose visible brushwork": ("a painting with loose visible brushstrokes", "a sketchy painting"),
    "smooth fine detail": ("a smooth painting with fine detail", "a finely finished painting"),
    "dots of colour": ("a painting made of small dots of colour",),
    "flat areas and outlines": ("a picture with flat areas of colour and clear outlines", "a woodblock print"),
    "geometric planes": ("a painting of geometric planes and angles",),
    "ornament and curving lines": ("a decorative picture with ornament and curving lines",),
}
STEP = .1


@dataclass(frozen=True)
class Concept:
    """`cosine` of the picture and the words; `pull`: what the score gains when the embedding goes a tenth toward them from their kind."""

    kind: str
    words: str
    cosine: float
    pull: float


@dataclass(frozen=True)
class Neighbour:
    """A labelled picture: its place in the labelled set, its name, label and group, and the cosine of both embeddings."""

    row: int
    name: str
    label: str
    group: str
    cosine: float


def vocabulary() -> dict[str, dict[str, Sequence[str]]]:
    """Prompts by kind of concept and words: every style of `configs/styles`, genres, subjects and manners of painting."""
    painted = {style.adjective.lower(): [template.format(style.adjective.lower()) for template in STYLE_TEMPLATES]
               for style in styles().values()}
    things = {word: [template.format(word) for template in TEMPLATES] for word in (*WORDS.values(), *SUBJECTS)}
    return {"style": painted, "subject": things, "manner": MANNERS}


def concepts(encoder: Encoder, embedding: Tensor, score: Callable[[Tensor], Tensor], count: int = 5,
             words: Mapping[str, Mapping[str, Sequence[str]]] | None = None) -> list[Concept]:
    """The `count` nearest of each kind to an embedding `(1, d)`; empty where the encoder reads no text.

    Cosines compare within a kind alone: an image is nearer to some sentences than to others whatever it shows. A pull is a finite
    difference along the concept's direction from the mean of its kind (as TCAV's derivative, arXiv:1711.11279), so it holds for any head.
    """
    found: list[Concept] = []
    if not encoder.has_text:
        return found
    for kind, prompts in (words or vocabulary()).items():
        texts = prototypes(encoder, list(prompts.values())).to(embedding)
        cosines = (texts @ embedding[0]).tolist()
        direction = F.normalize(texts - texts.mean(0), dim=-1)
        with torch.no_grad():
            pulls = (score(F.normalize(embedding + STEP * direction, dim=-1)) - score(embedding)).tolist()
        named = [Concept(kind, name, cosine, pull) for name, cosine, pull in zip(prompts, cosines, pulls, strict=True)]
        found += sorted(named, key=lambda concept: -concept.cosine)[:count]
    return found


def neighbours(embedding: Tensor, labelled: Labelled, count: int = 6, without: Sequence[int] = ()) -> list[Neighbour]:
    """The `count` nearest labelled pictures to an embedding `(1, d)`, the nearest first; `without` are rows that do not count.

    A picture of the set that is the picture itself (a cosine of 1) is no neighbour and left out.
    """
    cosines = labelled.features @ embedding[0].detach().cpu().float().numpy()
    cosines[np.asarray(without, int)] = -np.inf
    order = [int(row) for row in np.argsort(-cosines, kind="stable") if np.isfinite(cosines[row]) and cosines[row] < 1 - 1e-5][:count]
    return [Neighbour(row, str(labelled.names[row]), str(labelled.labels[row]), str(labelled.groups[row]) if labelled.group else "",
                      float(cosines[row])) for row in order]
