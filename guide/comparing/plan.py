"""What a comparison will do and how long it will take, before it does: measured costs, arms, pictures, seconds. One plan.json a run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from guide.comparing import budget
from guide.comparing.asked import Arm, Asked, Setting, cells, field_of
from guide.comparing.making import Job, jobs, made, missing
from guide.comparing.samplers import described
from probes.atomic import write_text
from probes.encoders import Encoder
from probes.errors import UserError

SCHEMA = 1
LAPS, LAPS_OF_SECONDS = 2, 4  # times that each kind of arm is measured; where seconds are the budget


@dataclass(frozen=True)
class Plan:
    """Of one setting: every arm, what a picture of it costs, which strengths are still to be chosen; `samplers` in words."""

    setting: Setting
    arms: tuple[Arm, ...]
    costs: dict[tuple[str, str], budget.Cost]
    samplers: dict[str, str]
    amount: float | None = None

    @property
    def steps(self) -> int:
        return self.setting.settings.steps

    def seconds(self, arm: Arm) -> float:
        """Predicted for one picture."""
        return self.costs[arm.kind].of("seconds", arm.steps or self.steps, arm.candidates)

    def contested(self) -> dict[str, list[Arm]]:
        """The arms of each strategy that has several strengths."""
        names = dict.fromkeys(arm.strategy for arm in self.arms if arm.strategy not in ("unguided", "best-of"))
        found = {name: [arm for arm in self.arms if arm.strategy == name] for name in names}
        return {name: some for name, some in found.items() if len(some) > 1}

    def choice_arms(self) -> list[Arm]:
        """What is run on the seeds of the choice: the strengths to choose from, and the baselines of these."""
        some = [arm for group in self.contested().values() for arm in group]
        return [*dict.fromkeys(arm.baseline() for arm in some), *some]

    def jobs(self, asked: Asked) -> list[tuple[str, Job]]:
        """("choice" or "report", batch), in the order in which they are made."""
        first = jobs(asked, self.setting, self.choice_arms(), asked.choosing()) if self.contested() and asked.choosing() else ()
        return [*(("choice", job) for job in first), *(("report", job) for job in jobs(asked, self.setting, self.arms, asked.seeds))]


def measured(asked: Asked, setting: Setting, pipeline: Any, encoder: Encoder, on_progress: Callable[[str, int, int], None]) -> Plan:
    """A plan from the costs of a few steps of every kind of arm, at the batch of the run."""
    arms = field_of(asked, setting)
    cell = cells(asked, setting)[0]
    brief, seeds = cell.per_prompt(asked.seeds)[0]
    batch, steps = seeds[: asked.batch], setting.settings.steps
    kinds = list(dict.fromkeys(arm.kind for arm in [*arms, Arm("best-of")]))
    samplers = {sampler: described(pipeline, sampler) for sampler in dict.fromkeys(sampler for _, sampler in kinds)}
    # Strategies that take a fixed number of gradients a run take all of them in five steps.
    few = min(max(5, steps // 5), 10, steps)
    many = min(2 * few, steps)
    first = {kind: next(arm for arm in [*arms, Arm("best-of")] if arm.kind == kind) for kind in kinds}

    def cost(arm: Arm, count: int) -> tuple[int, dict[str, float]]:
        _, _, meter = made(Job(cell, brief, batch, Arm(arm.strategy, arm.strength, arm.sampler, 1, count)), pipeline, encoder)
        return count, meter.per_picture(len(batch))

    cost(Arm("unguided"), 2)  # what is compiled or allocated the first time is no arm's cost
    seen: dict[tuple[str, str], list[tuple]] = {kind: [] for kind in kinds}
    laps = LAPS_OF_SECONDS if asked.budget.startswith("seconds") else LAPS
    for lap in range(laps):  # in turn, so that other work on the machine meets all of them
        for done, (kind, arm) in enumerate(first.items()):
            on_progress(f"measuring {arm.strategy}", lap * len(first) + done, laps * len(first))
            seen[kind].append((cost(arm, few), cost(arm, many)))
    found = {kind: budget.Cost.between(*(_least(each) for each in zip(*pairs, strict=True))) for kind, pairs in seen.items()}
    amount = None
    if asked.budget:
        arms, amount = budget.equal(arms, found, steps, asked.budget)
    else:
        arms = [*arms, *budget.best_of(arms, found, steps, asked.best_of)]
    return Plan(setting, tuple(arms), found, samplers, amount)


def _least(laps: Sequence[tuple[int, dict[str, float]]]) -> tuple[int, dict[str, float]]:
    """Of several measurements at one number of steps the least of each cost: other work can only add to it."""
    return laps[0][0], {name: min(costs[name] for _, costs in laps) for name in laps[0][1]}


def write(plans: Sequence[Plan], path: Path, key: str) -> None:
    """plan.json: what a resumed run, and other processes, go by, so that no clock decides twice. `key`: of what was asked for."""
    told = [
        {
            "setting": plan.setting.slug(),
            "samplers": plan.samplers,
            "amount": plan.amount,
            "arms": [asdict(arm) for arm in plan.arms],
            "costs": [{"strategy": name, "sampler": sampler, **asdict(cost)} for (name, sampler), cost in plan.costs.items()],
        }
        for plan in plans
    ]
    write_text(path, json.dumps({"schema": SCHEMA, "asked": key, "plans": told}, indent=1) + "\n")


def fits(path: Path, key: str) -> bool:
    """Whether there is a plan of the same request."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["asked"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read(path: Path, settings: Sequence[Setting]) -> list[Plan]:
    """The plans in a plan.json, of these settings. UserError where it is not one."""
    try:
        told = {entry["setting"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))["plans"]}
        return [
            Plan(
                setting,
                tuple(Arm(**arm) for arm in told[setting.slug()]["arms"]),
                {(c["strategy"], c["sampler"]): budget.Cost(c["fixed"], c["per_step"]) for c in told[setting.slug()]["costs"]},
                told[setting.slug()]["samplers"],
                told[setting.slug()]["amount"],
            )
            for setting in settings
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The plan {path} cannot be read ({type(error).__name__}); remove it, and the run is planned again.") from None


def table(plans: Sequence[Plan], asked: Asked, processes: int = 1) -> Group:
    """Arms, pictures and predicted time; what is there already is not counted again."""
    tables, total, there, free = [], 0.0, 0, shutil.disk_usage(_existing(asked.out)).free
    pictures = 0
    for plan in plans:
        table = Table(
            title=f"Plan: {plan.setting.said()}",
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("arm")
        for name in ("sampler", "to choose", "to report", "s a picture", "minutes"):
            table.add_column(name, justify="left" if name == "sampler" else "right")
        every = plan.jobs(asked)
        left = {id(job) for job in missing([job for _, job in every], asked.out)}
        for arm in plan.arms:
            own = [(kind, job) for kind, job in every if job.arm == arm]
            counts = {kind: sum(len(job.seeds) for other, job in own if other == kind) for kind in ("choice", "report")}
            seconds = plan.seconds(arm) * sum(len(job.seeds) for _, job in own if id(job) in left)
            there += sum(len(job.seeds) for _, job in own if id(job) not in left)
            total, pictures = total + seconds, pictures + sum(counts.values())
            table.add_row(
                arm.label,
                plan.samplers[arm.sampler],
                str(counts["choice"] or ""),
                str(counts["report"]),
                f"{plan.seconds(arm):.2f}",
                f"{seconds / 60:.1f}",
            )
        tables.append(table)
        if plan.amount is not None:
            unit = budget.parsed(asked.budget)[0].replace("_", " ")
            tables.append(Text(f"Budget: {plan.amount:.3g} {unit} a picture for every arm but the plain pipeline."))
    over = f", over {processes} processes" if processes > 1 else ""
    said = f"{pictures} pictures, {there} of them there already; predicted time {duration(total / processes)}{over}, then the reading."
    size = plans[0].setting.settings
    room = pictures * max(size.width or 1024, 64) * max(size.height or 1024, 64) * 3 / 2**30
    lines = [said, f"They need at most {room:.1f} GiB of the {free / 2**30:.0f} GiB that are free."]
    return Group(*tables, Text("\n".join(lines)))


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
