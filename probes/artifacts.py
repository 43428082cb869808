"""Artifacts: how damaged an image is, where, and in which way, learned from damage of known kind, place and severity."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from probes import image
from probes.errors import UserError
from probes.heads import card, patch
from probes.heads.patch import Patch
from probes.probe import Intent, Measure, Probe

if TYPE_CHECKING:
    from probes.encoders import Encoder

SMALLEST = 32  # pixels: a smaller image has hardly a patch
LARGEST = 256  # pixels a side: the head learned from paintings of about that size, and a large scan's grain is not theirs


@dataclass(frozen=True, eq=False, kw_only=True)
class ArtifactMeasure(Measure):
    """Severity of the damage to an image, differentiable to its pixels: as a limit it keeps guidance from breaking what it steers.

    It reads whole images in their own pixels, not their embeddings: call the measure, and not on noisy views, whose noise it would see.
    """

    head: Patch
    name: str = "artifacts"
    unit: str = "severity"
    range: tuple[float, float] = (0., 1.)
    higher_is_better: bool = False
    scale: float = .1
    reads_maps: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        return self.head.score(large_enough(images))

    def score(self, embeddings: Tensor) -> Tensor:
        """UserError: an embedding has lost what this measure reads."""
        raise UserError("artifacts are read from images, not from their embeddings; give the measure the images.")


class ArtifactProbe(Probe):
    """Reads damage through a head over patches: the one that ships for the embedded encoder, or one handed in; there are no words for it.

    A small network of its own: an encoder sees paintings at its own size and forgets what damage looks like. Images are read in their own
    pixels, whole and of any shape; a patch is 8 of them wide, and what is left over at the right and the bottom goes unread.
    """

    name = "artifacts"

    def __init__(self, encoder: Encoder, head: Patch | None = None):
        self.encoder, self._head = encoder, head

    @cached_property
    def head(self) -> Patch:
        if self._head:
            return self._head
        stem = card.shipped("artifacts", self.encoder)
        if not stem:
            raise UserError(f"no artifact head ships for the encoder {self.encoder.name}; read artifacts with the embedded one.")
        return patch.load(stem, self.encoder.device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The kinds of damage."""
        return self.head.kinds

    def aim(self, brief: Intent | None = None) -> ArtifactMeasure:
        """The same measure for every brief: nobody asks for damage."""
        return ArtifactMeasure(encoder=self.encoder, head=self.head, reliability=self.head.reliability)

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """Nothing: see `look`, which reads images."""
        return {}

    def map(self, images: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` to the severity of each patch `(n, h / 8, w / 8)`, in [0, 1]."""
        return self.head.severity(large_enough(images))

    def kinds(self, images: Tensor) -> Tensor:
        """Images to the probability `(n, k)` of each of `labels`, given that there is damage."""
        return self.head.look(large_enough(images))[2]

    def relative(self, images: Tensor, paired: Tensor) -> Tensor:
        """How much more damaged images `(n, 3, h, w)` are than the images they are paired with: `(n,)` in [-1, 1].

        What both share (a coarse brush, a soft autoencoder) cancels. UserError unless they are pairs of one size.
        """
        if images.shape != paired.shape:
            shapes = f"{tuple(images.shape)} with {tuple(paired.shape)}"
            raise UserError(f"images are compared with paired ones of the same number and size, not {shapes}; resize one of them.")
        measure = self.aim()
        return measure(images) - measure(paired)

    def look(self, images: Tensor) -> dict[str, Tensor | list]:
        """All from one pass: `severity` `(n,)`, `map`, `kind_probabilities` over `kinds`, and `damaged`: above the alarm or not."""
        score, severity, kinds = self.head.look(large_enough(images))
        return {"severity": score, "map": severity, "damaged": score > self.head.alarm, "kind_probabilities": kinds,
                "kinds": list(self.labels)}


def large_enough(images: Tensor) -> Tensor:
    """The images, checked; UserError for those too small to have patches."""
    height, width = image.check(images).shape[-2:]
    if min(height, width) < SMALLEST:
        raise UserError(f"an image of {width} x {height} pixels is too small to be read for artifacts; {SMALLEST} a side is the least.")
    return images


def fitted(images: Tensor) -> Tensor:
    """Images as they are, or shrunk to `LARGEST` pixels on their longer side."""
    height, width = images.shape[-2:]
    scale = LARGEST / max(height, width)
    return images if scale >= 1 else image.resize(images, (max(round(height * scale), 1), max(round(width * scale), 1)), "bilinear")
