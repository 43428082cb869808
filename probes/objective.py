"""What guidance descends: measures with weights, averaged over noisy crops, in one encoder pass for all measures of that encoder."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes import image
from probes.constraints import Constraint
from probes.content import ContentProbe
from probes.errors import UserError
from probes.features import Features
from probes.lineage import Lineage
from probes.origin import OriginProbe
from probes.period import PeriodProbe
from probes.probe import Intent, Measure
from probes.region import Region
from probes.scene import SceneProbe
from probes.schedules import Schedule
from probes.style import StyleProbe
from probes.views import Views

if TYPE_CHECKING:
    from probes.encoders import Encoder

PROBES = {"style": StyleProbe, "period": PeriodProbe, "content": ContentProbe, "scene": SceneProbe, "origin": OriginProbe}


@dataclass(frozen=True)
class Term:
    """A measure and how much a step of its scale counts; weight 0 watches without steering.

    `enough`: a score, in the measure's unit, from which on it asks for nothing more, which leaves the gradient to the other terms.
    `schedule`: by what the weight is multiplied at each noise level. `region`: the part of the image that it looks at and may change.
    """

    measure: Measure
    weight: float = 1.
    enough: float | None = None
    schedule: Schedule | None = None
    region: Region | None = None

    def loss(self, scores: Tensor) -> Tensor:
        """Scores `(n,)` in steps of the measure's scale, lower is better; with `enough`, what is still missing to it."""
        turned = (-1 if self.measure.higher_is_better else 1) / self.measure.scale
        return turned * scores if self.enough is None else (turned * (scores - self.enough)).relu()

    def counts(self, noise: float | None) -> float:
        """Its weight at a noise level; None knows of none, and schedules do not apply."""
        return self.weight * (1. if self.schedule is None or noise is None else self.schedule(noise))


@dataclass(frozen=True, eq=False)
class Values:
    """`loss` `(n,)`, lower is better, with gradient; `terms`: each measure's score `(n,)` in its own unit, without.

    All in fp32, or in fp64 where images or encoder are. `violations`: of each constraint, by its name, `(n,)` in steps of its measure's
    scale, without gradient. `goal`: the loss `(n,)` of the terms alone at their full weights, which unlike `loss` can be compared between
    steps; without gradient.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    violations: dict[str, Tensor] = field(default_factory=dict)
    goal: Tensor | None = None


class Objective:
    """The weighted sum of the terms' losses under constraints, one value per image; image k depends on image k and generator k alone.

    It keeps no state: `at` gives the objective of a moment of a run, whose multipliers whoever steers carries on by `climbed`.
    """

    def __init__(self, terms: Sequence[Term | Constraint], views: Views | None = None):
        if not terms:
            raise UserError("nothing to steer by: ask for a style, a period or a prompt.")
        if any(not abs(term.weight) < float("inf") for term in terms if isinstance(term, Term)):
            raise UserError("the weight of a term must be a finite number.")
        self.terms, self.views = tuple(terms), views or Views()
        self.names = _unique(self.terms)
        self.noise: float | None = None
        self.multipliers: Mapping[str, Tensor] = {}

    @property
    def constraints(self) -> dict[str, Constraint]:
        """Those of the terms that are constraints, by name."""
        return {name: term for name, term in zip(self.names, self.terms, strict=True) if isinstance(term, Constraint)}

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """Of the encoders that steer, so that a judge can tell whether it is of their family."""
        return tuple(dict.fromkeys(encoder.lineage for encoder, _ in self._by_encoder()))

    def at(self, noise: float | None, multipliers: Mapping[str, Tensor] = MappingProxyType({})) -> Objective:
        """The same at a noise level (see `Schedule`), with the multipliers `(n,)` of its constraints; a missing one is 0."""
        moment = copy(self)
        moment.noise, moment.multipliers = noise, multipliers
        return moment

    @property
    def steers(self) -> bool:
        """Whether anything counts at this moment."""
        return bool(self.constraints) or any(term.counts(self.noise) for term in self.terms)

    def climbed(self, values: Values, share: float) -> dict[str, Tensor]:
        """The multipliers after a step that is `share` of the run and had these values."""
        return {name: constraint.climbed(self._multiplier(name, values.violations[name]), values.violations[name], share)
                for name, constraint in self.constraints.items()}

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Values:
        """Images `(n, 3, h, w)` in [0, 1] and a generator each. An image with NaN gets a NaN loss and gradient, the others their own."""
        image.check(images, finite=False)
        finite = images.detach().flatten(1).isfinite().all(1)
        images = torch.nan_to_num(image.wide(images), .5, 1., 0.)
        loss, goal = torch.zeros(2, len(images), dtype=images.dtype, device=images.device)
        scores, violations = {}, {}
        unit = torch.where(finite, 1., float("nan"))
        with torch.autocast(images.device.type, enabled=False):
            for encoder, terms in self._by_encoder():
                for name, term, crops, whole in self._seen(encoder, terms, images, generators):
                    scores[name] = crops.detach()
                    if isinstance(term, Term):
                        lost = term.loss(crops)
                        loss, goal = loss + term.counts(self.noise) * lost, goal + term.weight * lost.detach()
                        continue
                    # Whether it holds is what reports read of the whole image; which way to go many noisy crops know better.
                    violation = term.violation(crops + (whole - crops).detach())
                    loss = loss + term.loss(violation, self._multiplier(name, violation))
                    violations[name], scores[name] = violation.detach() * unit, whole.detach()
        return Values(loss * unit, {name: scores[name] * unit for name in self.names}, violations, goal * unit)

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """Each measure's score `(n,)` of the whole image, without views and without gradient."""
        seen = self.of_wholes()._seen
        scores = {name: score for encoder, terms in self._by_encoder() for name, _, score, _ in seen(encoder, terms, images, ())}
        return {name: scores[name] for name in self.names}

    def of_wholes(self) -> Objective:
        """The same on whole images, without crops or noise."""
        seen = copy(self)
        seen.views = None
        return seen

    def _multiplier(self, name: str, like: Tensor) -> Tensor:
        held = self.multipliers.get(name)
        return torch.zeros_like(like) if held is None else held.to(like)

    def _seen(self, encoder: Encoder, terms: list[tuple[str, Term | Constraint]], images: Tensor, generators: Sequence[torch.Generator]
              ) -> Iterator[tuple[str, Term | Constraint, Tensor, Tensor]]:
        """Each term with its scores `(n,)` over the views, with gradient, and of the whole image, which where nothing asks for it are
        the same: all from one pass of the encoder, but for measures of maps of whole images."""
        count = len(images)
        batches, places = [], {}
        for region in dict.fromkeys(term.region for _, term in terms):
            shown = images if region is None else region(images)
            members = [term for _, term in terms if term.region is region and not whole(term.measure)]
            if not members:
                places[region] = (shown, None, None)
                continue
            views = self.views(shown, generators, encoder.side) if self.views else encoder.fit(shown.to(encoder.device))
            batches.append(views)
            bounded = bool(self.views) and any(isinstance(term, Constraint) for term in members)
            batches += [encoder.fit(shown.detach().to(encoder.device))] if bounded else []
            start = sum(map(len, batches[:len(batches) - 1 - bounded]))
            places[region] = (shown, slice(start, start + len(views)), slice(start + len(views), start + len(views) + count * bounded))
        stages = tuple(dict.fromkeys(stage for _, term in terms for stage in term.measure.stages))
        features = None
        if batches:
            pixels = torch.cat(batches)
            features = encoder.features(pixels, stages) if stages else Features(encoder(pixels), {})
        for name, term in terms:
            shown, crops, wholes = places[term.region]
            if whole(term.measure):
                score = term.measure(shown).to(images.device)
                yield name, term, score, score
                continue
            score = term.measure.look(features[crops]).view(count, -1).mean(1).to(images.device)
            seen = isinstance(term, Constraint) and wholes.stop > wholes.start
            yield name, term, score, term.measure.look(features[wholes]).to(images.device) if seen else score

    def _by_encoder(self) -> Iterator[tuple[Encoder, list[tuple[str, Term | Constraint]]]]:
        named = list(zip(self.names, self.terms, strict=True))
        for encoder in dict.fromkeys(term.measure.encoder for term in self.terms):
            yield encoder, [(name, term) for name, term in named if term.measure.encoder is encoder]


def whole(measure: Measure) -> bool:
    """Whether a measure reads feature maps of whole images, and not the embeddings of views: it says so by `reads_maps`."""
    return getattr(measure, "reads_maps", False)


def aim(brief: Intent, encoder: Encoder, weights: Mapping[str, float] = MappingProxyType({}), views: Views | None = None) -> Objective:
    """Every probe aimed at the brief through one encoder, weighted 1 unless `weights` names it.

    No brief asks for artifacts: they are a term where `weights` gives them a weight.
    """
    measures = [PROBES[name](encoder).aim(brief) for name in PROBES]
    if weights.get("artifacts"):
        from probes.artifacts import ArtifactProbe
        measures.append(ArtifactProbe(encoder).aim(brief))
    return Objective([Term(measure, weights.get(measure.name, 1.)) for measure in measures if measure], views)


def _unique(terms: Sequence[Term | Constraint]) -> list[str]:
    """The measures' names, those of constraints with their bounds; where one occurs twice, with the encoder's name, and with a number where
    that is not enough."""
    names = [str(term) if isinstance(term, Constraint) else term.measure.name for term in terms]
    names = [f"{name} ({term.measure.encoder.name})" if names.count(name) > 1 else name for name, term in zip(names, terms, strict=True)]
    return [f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
