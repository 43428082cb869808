"""What is watched by name: `referee`, `verdict`, or a measure of the brief; and what a finished run says of it."""
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from guide.brief import Brief
from guide.goals import MEASURES, Goals
from guide.objectives import asked
from guide.watch import Watch, of_judge, of_measure
from probes import encoders, judge, judges
from probes.config import lookup
from probes.encoders import Encoder
from probes.errors import UserError
from probes.lineage import Lineage


def watches(names: Sequence[str], reaction: str, brief: Brief, encoder: Encoder, goals: Goals, device: str = "cpu") -> tuple[Watch, ...]:
    """A watch for each name. UserError for one that is unknown, or that nothing was asked of."""
    found = []
    for name in map(known, names):
        if name in judges.NETWORKS:
            found.append(of_judge(judge.load(name, device), brief, reaction))
        else:
            found += [of_measure(measure.name, measure, reaction) for measure in asked(name, brief, encoder, goals)]
    return tuple(found)


def known(name: str) -> str:
    """The judge or measure that a name means; UserError with the nearest where there is none."""
    return lookup({key: key for key in (*judges.NETWORKS, *MEASURES)}, name.strip(), "judge or measure to watch")


def consulted(request, device: str = "cpu") -> dict[str, Lineage]:
    """The lineages of the judges that a request of `guide.run` asks while it runs, by the role that its record names them in, so that an
    audit of the pictures knows of them too. UserError where one of them is of the guide's family, or is to give the verdict."""
    names = dict.fromkeys([*map(known, request.watch), *(["referee"] if request.strength == "auto" else [])])
    judged = {name: judge.load(name, device) for name in names if name in judges.NETWORKS}
    verdict = judge.load(request.judge, device)
    for name, one in judged.items():
        if name == verdict.name:
            raise UserError(f"The {name} is watched, or tunes the strength, and cannot give the verdict then; choose another with --judge.")
        one.check([encoders.load(request.encoder, device).lineage])
    verdict.check([one.lineage for one in judged.values()])
    return {f"watched {name}": one.lineage for name, one in judged.items()}


def told(trace: Iterable[dict[str, Any]]) -> list[str]:
    """A sentence for each watched measure: where guide and it began and ended, and in how many steps they were in conflict."""
    runs: dict[tuple, list[dict[str, Any]]] = {}
    for row in trace:
        if row.get("watch"):
            runs.setdefault(tuple(row.get("seeds", ())), []).append(row)
    lines = []
    for name in dict.fromkeys(name for rows in runs.values() for row in rows for name in row["watch"]):
        ends = [[rows[place] for rows in runs.values()] for place in (0, -1)]
        loss = [_mean(row["goal"] for row in rows) for rows in ends]
        score = [_mean(row["watch"][name] for row in rows) for rows in ends]
        conflicts = sum(sum(row["conflict"][name]) for rows in runs.values() for row in rows)
        steps = sum(len(row["conflict"][name]) for rows in runs.values() for row in rows)
        left = fmean(share for rows in runs.values() for share in rows[-1]["steering_left"])
        what = f"in conflict in {conflicts} of {steps} guided steps of a picture" if conflicts else "never in conflict"
        kept = f"; {left:.0%} of the steering was left at the end" if left < 1 else ""
        lines.append(f"Watched {name}: {score[0]:+.2f} -> {score[1]:+.2f} while the guide's loss went {loss[0]:+.2f} -> {loss[1]:+.2f}; "
                     f"{what}{kept}.")
    return lines


def _mean(rows: Iterable[Sequence[float | None]]) -> float:
    values = [value for row in rows for value in row if value is not None]
    return fmean(values) if values else float("nan")
