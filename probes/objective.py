"""What guidance descends: measures with weights, averaged over noisy crops, in one encoder pass for all measures of that encoder."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes import image
from probes.content import ContentProbe
from probes.errors import UserError
from probes.lineage import Lineage
from probes.origin import OriginProbe
from probes.period import PeriodProbe
from probes.probe import Intent, Measure
from probes.scene import SceneProbe
from probes.style import StyleProbe
from probes.views import Views

if TYPE_CHECKING:
    from probes.encoders import Encoder

PROBES = {"style": StyleProbe, "period": PeriodProbe, "content": ContentProbe, "scene": SceneProbe, "origin": OriginProbe}


@dataclass(frozen=True)
class Term:
    """A measure and how much a step of its scale counts; weight 0 watches without steering.

    `enough`: a score, in the measure's unit, from which on it asks for nothing more: a constraint to be kept rather than a goal, which
    leaves the gradient to the other terms.
    """

    measure: Measure
    weight: float = 1.
    enough: float | None = None

    def loss(self, scores: Tensor) -> Tensor:
        """Scores `(n,)` in steps of the measure's scale, lower is better; with `enough`, what is still missing to it."""
        turned = (-1 if self.measure.higher_is_better else 1) / self.measure.scale
        return turned * scores if self.enough is None else (turned * (scores - self.enough)).relu()


@dataclass(frozen=True, eq=False)
class Values:
    """`loss` `(n,)` in fp32, lower is better, with gradient; `terms`: each measure's score `(n,)` in its own unit, without."""

    loss: Tensor
    terms: dict[str, Tensor]


class Objective:
    """The weighted sum of the terms' losses, one value per image; image k depends on image k and generator k alone."""

    def __init__(self, terms: Sequence[Term], views: Views | None = None):
        if not terms:
            raise UserError("nothing to steer by: ask for a style, a period or a prompt.")
        if any(not abs(term.weight) < float("inf") for term in terms):
            raise UserError("the weight of a term must be a finite number.")
        self.terms, self.views = tuple(terms), views or Views()
        self.names = _unique([term.measure for term in terms])

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """Of the encoders that steer, so that a judge can tell whether it is of their family."""
        return tuple(dict.fromkeys(encoder.lineage for encoder, _ in self._by_encoder()))

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Values:
        """Images `(n, 3, h, w)` in [0, 1] and a generator each. An image with NaN gets a NaN loss and gradient, the others their own."""
        image.check(images, finite=False)
        finite = images.detach().flatten(1).isfinite().all(1)
        images = torch.nan_to_num(images.float(), .5, 1., 0.)
        loss = torch.zeros(len(images), device=images.device)
        scores: dict[str, Tensor] = {}
        with torch.autocast(images.device.type, enabled=False):
            for encoder, terms in self._by_encoder():
                measures = [term.measure for _, term in terms]
                views = self.views(images, generators, encoder.side) if not all(map(whole, measures)) else None
                for (name, term), score in zip(terms, scored(encoder, measures, images, views), strict=True):
                    score = score.view(len(images), -1).mean(1).to(images.device)
                    loss = loss + term.weight * term.loss(score)
                    scores[name] = score.detach()
        unit = torch.where(finite, 1., float("nan"))
        return Values(loss * unit, {name: scores[name] * unit for name in self.names})

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """Each measure's score `(n,)` of the whole image, without views and without gradient."""
        scores = {}
        for encoder, terms in self._by_encoder():
            read = scored(encoder, [term.measure for _, term in terms], images, images)
            scores.update({name: score for (name, _), score in zip(terms, read, strict=True)})
        return {name: scores[name] for name in self.names}

    def _by_encoder(self) -> Iterator[tuple[Encoder, list[tuple[str, Term]]]]:
        named = list(zip(self.names, self.terms, strict=True))
        for encoder in dict.fromkeys(term.measure.encoder for term in self.terms):
            yield encoder, [(name, term) for name, term in named if term.measure.encoder is encoder]


def whole(measure: Measure) -> bool:
    """Whether a measure reads feature maps of whole images, and not the embeddings of views: it says so by `reads_maps`."""
    return getattr(measure, "reads_maps", False)


def scored(encoder: Encoder, measures: Sequence[Measure], images: Tensor, views: Tensor | None) -> list[Tensor]:
    """Each measure's scores of the views, all from one pass of the encoder, or of the images where it reads maps."""
    embeddings = encoder(views) if views is not None and not all(map(whole, measures)) else None
    return [measure(images) if whole(measure) else measure.score(embeddings) for measure in measures]


def aim(brief: Intent, encoder: Encoder, weights: Mapping[str, float] = MappingProxyType({}), views: Views | None = None) -> Objective:
    """Every probe aimed at the brief through one encoder, weighted 1 unless `weights` names it.

    No brief asks for artifacts: they are a term where `weights` gives them a weight.
    """
    measures = [PROBES[name](encoder).aim(brief) for name in PROBES]
    if weights.get("artifacts"):
        from probes.artifacts import ArtifactProbe
        measures.append(ArtifactProbe(encoder).aim(brief))
    return Objective([Term(measure, weights.get(measure.name, 1.)) for measure in measures if measure], views)


def _unique(measures: Sequence[Measure]) -> list[str]:
    """The measures' names; where one occurs twice, with the encoder's name, and with a number where that is not enough."""
    names = [measure.name for measure in measures]
    names = [f"{name} ({measure.encoder.name})" if names.count(name) > 1 else name for name, measure in zip(names, measures, strict=True)]
    return [f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
