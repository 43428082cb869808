"""What came of the goals of a run: each picture's score of what was to be kept, to be like, or to be steered toward."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from guide.brief import Brief
from guide.objectives import aimed
from probes import encoders
from probes.constraints import Constraint
from probes.image import load
from probes.objective import Term

if TYPE_CHECKING:
    from guide.run import Request

Read = dict[str, tuple[Term | Constraint, list[float]]]


def read(request: Request, briefs: Sequence[Brief], pictures: Sequence[Path], device: str) -> Read:
    """By the name of each constraint, reference and direction of words: it, and its scores of the pictures as they were saved, whole, in
    their order. `briefs`: of each picture."""
    goals = replace(request.goals, weights=(), schedules=(), content="global")
    if not (goals.constraints or goals.asks):
        return {}
    encoder, found, objectives = encoders.load(request.encoder, device), {}, {}
    for brief, path in zip(briefs, pictures, strict=True):
        objective = objectives[brief] = objectives.get(brief) or aimed(brief, encoder, goals)
        scores = objective.read(load(path).to(device))
        for name, term in zip(objective.names, objective.terms, strict=True):
            if isinstance(term, Constraint) or term.measure.name == "reference" or term.measure.name.startswith("toward "):
                found.setdefault(name, (term, []))[1].append(float(scores[name]))
    return found


def sentences(found: Read, variants: Sequence[str]) -> tuple[str, ...]:
    """One for each: for how many pictures of each variant a constraint holds, and the mean scores. `variants`: of each picture."""
    lines = []
    for name, (term, scores) in found.items():
        by_variant = {variant: [score for score, other in zip(scores, variants, strict=True) if other == variant]
                      for variant in dict.fromkeys(variants)}
        means = {variant: sum(own) / len(own) for variant, own in by_variant.items()}
        if isinstance(term, Constraint):
            kept = {variant: int(term.holds(torch.tensor(own)).sum()) for variant, own in by_variant.items()}
            counts = (f"{variant} {kept[variant]} of {len(own)} (mean {means[variant]:.3g})" for variant, own in by_variant.items())
            lines.append(f"{name} holds for {', '.join(counts)}.")
            if "unguided" in kept and not any(kept.values()):
                lines[-1] += (" It is out of reach here, and reaching for it costs what else was asked for: take a bound nearer to "
                              f"{means['unguided']:.3g}.")
        else:
            better = "higher" if term.measure.higher_is_better else "lower"
            told = ", ".join(f"{variant} {mean:.3g}" for variant, mean in means.items())
            lines.append(f"{name[0].upper()}{name[1:]}: {told} ({term.measure.unit}, {better} is better).")
    return tuple(lines)
