"""Reference images as a target of style: how far an image is from them in what an encoder says of style, not of what they show."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from probes import image
from probes.config import offer
from probes.errors import UserError
from probes.features import Features
from probes.probe import Measure, seen_by, stages_of
from probes.style import StyleProbe

if TYPE_CHECKING:
    from probes.encoders import Encoder
    from probes.heads.head import Head

KINDS = ("moments", "gram", "style", "embedding")
LEAST = 32  # pixels a side of a reference
SPREADS = 1e-3  # of a map's channel: below it a channel says nothing


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingReference(Measure):
    """Cosine to the references' mean embedding `(d,)`: style and subject together."""

    target: Tensor
    name: str = "reference"
    unit: str = "cosine"
    range: tuple[float, float] = (-1., 1.)
    higher_is_better: bool = True
    scale: float = .05

    def score(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) @ self.target


@dataclass(frozen=True, eq=False, kw_only=True)
class StyleReference(EmbeddingReference):
    """Cosine in the space of what the style head says of all its styles: what tells none of them apart does not count.

    After the contrastive style descriptors of arXiv:2404.01292, which learn such a space; here it is the head's and nothing is trained.
    """

    head: Head

    def score(self, embeddings: Tensor) -> Tensor:
        return _told(self.head, embeddings) @ self.target


@dataclass(frozen=True, eq=False, kw_only=True)
class MapReference(Measure):
    """Relative distance of statistics of early maps, mean over the stages: 0 for the references themselves, about 1 for strangers.

    `target`: by stage, of the references' mean. "moments": mean and standard deviation of each channel (arXiv:1703.06868), each in units of
    its references' own standard deviation; "gram": the matrix of the channels' products (arXiv:1508.06576), the mean channel taken off.
    """

    target: dict[str, Tensor]
    kind: str
    name: str = "reference"
    unit: str = "relative distance"
    range: tuple[float, float] = (0., float("inf"))
    higher_is_better: bool = False
    scale: float = .1

    def look(self, features: Features) -> Tensor:
        found = [self._distance(statistics(features.maps[stage], self.kind), self.target[stage]) for stage in self.stages]
        return torch.stack(found).mean(0)

    def score(self, embeddings: Tensor) -> Tensor:
        """UserError: an embedding has lost what this measure reads."""
        raise UserError("a reference's moments and Gram matrices are read from maps, not from embeddings; give the measure the images.")

    def _distance(self, found: Tensor, target: Tensor) -> Tensor:
        if self.kind == "gram":
            return (found - target).flatten(1).norm(dim=1) / target.norm()
        spread = target[1].clamp_min(SPREADS)
        return ((found - target) / spread).square().mean((1, 2)).add(1e-12).sqrt()


def statistics(maps: Tensor, kind: str) -> Tensor:
    """Maps `(n, c, h, w)` to moments `(n, 2, c)`, mean and standard deviation, or to Gram matrices `(n, c, c)` per pixel."""
    flat = maps.flatten(2)
    mean = flat.mean(-1)
    centred = flat - mean[..., None]
    if kind == "gram":
        return centred @ centred.transpose(1, 2) / flat.shape[-1]
    return torch.stack([mean, centred.square().mean(-1).add(1e-12).sqrt()], 1)


def early(encoder: Encoder) -> tuple[str, ...]:
    """The stages that style is read from: a quarter and half of the way through the tower."""
    stages = [stage for stage in encoder.stages if stage.startswith(("layer", "block"))]
    return tuple(dict.fromkeys(stages[max(0, round(len(stages) * share) - 1)] for share in (.25, .5)))


def opened(path: str | Path) -> Tensor:
    """The reference in that file, `(1, 3, h, w)` in [0, 1]. UserError where it has too few pixels to say anything."""
    picture = image.load(path)
    height, width = picture.shape[-2:]
    if min(height, width) < LEAST:
        raise UserError(f"The reference {path} has {width} x {height} pixels, too few to read brushwork from; {LEAST} a side is the least: "
                        "take a larger one.")
    return picture


def aim(encoder: Encoder, images: Sequence[Tensor], weights: Sequence[float], kind: str = "moments") -> Measure:
    """A measure named `reference` of images `(1, 3, h, w)` in [0, 1] of any size, weighted; `kind` is one of KINDS. Never validated."""
    if kind not in KINDS:
        raise UserError(f"a reference is compared by no {kind!r}{offer(list(KINDS), complete=True)}.")
    if not images or any(not 0 < weight < float("inf") for weight in weights):
        raise UserError("references need weights above 0; leave out the one that should not count.")
    shares = torch.tensor(list(weights), dtype=encoder.precision, device=encoder.device) / sum(weights)
    with torch.inference_mode(False), torch.no_grad():
        if kind == "embedding":
            embeddings = torch.cat([encoder(image.check(one)) for one in images])
            return EmbeddingReference(encoder=encoder, target=F.normalize(shares @ F.normalize(embeddings, dim=-1), dim=0))
        if kind == "style":
            head = StyleProbe(encoder).head
            seen = torch.cat([seen_by(head, encoder, encoder.describe(image.check(one))) for one in images])
            target = F.normalize(shares @ _told(head, seen), dim=0)
            return StyleReference(encoder=encoder, target=target, head=head, stages=stages_of(encoder, head))
        stages = early(encoder)
        seen = [encoder.maps(image.check(one), stages) for one in images]
        target = {stage: sum(share * statistics(maps[stage], kind)[0] for share, maps in zip(shares, seen, strict=True))
                  for stage in stages}
    return MapReference(encoder=encoder, target=target, kind=kind, stages=stages)


def _told(head: Head, seen: Tensor) -> Tensor:
    """What the head says of the styles `(n, k)`, each less their mean, of length 1."""
    logits = head.logits(seen)
    return F.normalize(logits - logits.mean(-1, keepdim=True), dim=-1)
