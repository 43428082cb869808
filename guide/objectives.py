"""The objective of a brief and its goals: every perception that is asked for something, weighed, timed, bounded and placed."""
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from guide.brief import Brief
from guide.goals import WEIGHTS, Goals
from probes import reference, region
from probes.config import offer
from probes.constraints import Constraint
from probes.content import ContentMeasure, ContentProbe
from probes.encoders import Encoder
from probes.errors import UserError
from probes.objective import PROBES, Objective, Term
from probes.probe import Measure
from probes.schedules import Schedule
from probes.views import Views

SIDES = {">=": "at least", "<=": "at most"}
# Of multipliers, where few steps are guided and each moves a picture far. With Constraint's own 1 and 60 a picture that began just below a
# bound was carried far beyond it, past its style; without a margin the last move carries some across ("Constraints", benchmarks/README.md).
DAMPING, RATE, MARGIN = 16., 10., 1.


def aimed(brief: Brief, encoder: Encoder, goals: Goals | None = None, source: Tensor | None = None, views: Views | None = None
          ) -> Objective:
    """The objective that every perception which the brief or the goals ask something of adds a term to.

    A measure that is kept or limited is no goal besides, unless it is given a weight. `source`: the pictures (n, 3, h, w) from which
    directional content measures change, one for each image. UserError where goals name a measure that nothing was asked of.
    """
    goals = goals or Goals()
    given = dict(goals.weights)
    bounded = {name for name, _, _ in goals.constraints}
    schedules = {name: Schedule(points) for name, points in goals.schedules}
    where = region.load(goals.region) if goals.region else None
    measures: dict[str, list[tuple[Measure, float]]] = {}
    for name, measure, share in _measures(brief, encoder, goals, source):
        measures.setdefault(name, []).append((measure, share))
    for name, how in [(name, "given a weight") for name in given] + [(name, "bounded") for name in bounded] + [
            (name, "scheduled") for name in schedules]:
        if name not in measures:
            raise UserError(f"{name} is {how}, but nothing says what it should be; {REMEDIES[name]}"
                            f"{offer(list(measures), complete=True).replace('known are', 'asked for is') if measures else ''}.")
    terms: list[Term | Constraint] = []
    for name, found in measures.items():
        weight = given.get(name, 0. if name in bounded else WEIGHTS[name])
        if name in given or name not in bounded:
            terms += [Term(measure, weight * share, schedule=schedules.get(name), region=where) for measure, share in found]
    for name, side, bound in goals.constraints:
        # A bound on content is one on its cosine, which is what reports show, however content is steered.
        held = asked(name, brief, encoder, goals) if name == "content" else [measure for measure, _ in measures[name]]
        terms += [Constraint(measure, bound, SIDES[side], DAMPING, RATE, where, MARGIN) for measure in held]
    return Objective(terms, views)


REMEDIES = {"style": "add --style", "period": "add --period", "content": "add --prompt", "scene": "add --scene", "origin": "add --origin",
            "artifacts": "give it a weight or a limit", "reference": "add --reference PICTURE", "toward": "add --toward WORDS"}


def _measures(brief: Brief, encoder: Encoder, goals: Goals, source: Tensor | None) -> Iterator[tuple[str, Measure, float]]:
    """Name, measure and share of everything that is asked for."""
    for name, probe in PROBES.items():
        made = probe(encoder) if name != "content" else _content(encoder, goals, source)
        if (measure := made.aim(brief)) is not None:
            yield name, measure, 1.
    if any(name == "artifacts" for name, *_ in (*goals.weights, *goals.constraints)):
        from probes.artifacts import ArtifactProbe
        yield "artifacts", ArtifactProbe(encoder).aim(brief), 1.
    if goals.references:
        pictures, weights = [reference.opened(path) for path, _ in goals.references], [weight for _, weight in goals.references]
        yield "reference", reference.aim(encoder, pictures, weights, goals.by), sum(weights)
    for words, weight in goals.toward:
        yield "toward", ContentMeasure(encoder=encoder, target=encoder.text([words])[0], name=f"toward {words}"), weight


def _content(encoder: Encoder, goals: Goals, source: Tensor | None) -> ContentProbe:
    if goals.content != "directional":
        return ContentProbe(encoder, goals.content)
    if source is None:
        raise UserError("Directional content compares with a picture to change from; give the unguided ones as source.")
    with torch.inference_mode(False):
        return ContentProbe(encoder, "directional", source)


def asked(name: str, brief: Brief, encoder: Encoder, goals: Goals) -> list[Measure]:
    """The measures of one name, to be watched; content by its cosine. UserError where nothing was asked of it."""
    wanted = replace(goals, content="global", weights=((name, 0.),) if name == "artifacts" else (), constraints=())
    found = [measure for other, measure, _ in _measures(brief, encoder, wanted, None) if other == name]
    if not found:
        raise UserError(f"{name} is to be watched, but nothing says what it should be; {REMEDIES[name]}.")
    return found
