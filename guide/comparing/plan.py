"""What a comparison will do and how long it will take, before it does: measured costs, arms, pictures, seconds. One plan.json a run."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from guide.comparing import budget
from guide.comparing.asked import Arm, Asked, Setting, cells, field_of
from guide.comparing.making import Job, jobs, made, missing
from guide.samplers import described
from probes.atomic import write_text
from probes.encoders import Encoder
from probes.errors import UserError

SCHEMA = 2
BUSY = 1.25  # seconds of the clock for one of computing, from which on it is said
LAPS, LAPS_OF_SECONDS = 2, 3  # times that each kind of arm is measured; where seconds are the budget


@dataclass(frozen=True)
class Plan:
    """Of one setting: every arm, what a picture of it costs, which strengths are still to be chosen; `samplers` in words.

    `amount`: the budget of a picture, where there is one; `said`: sentences on what it could not pay for.
    """

    setting: Setting
    arms: tuple[Arm, ...]
    costs: dict[tuple[str, str], budget.Cost]
    samplers: dict[str, str]
    amount: float | None = None
    said: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return self.setting.settings.steps

    def seconds(self, arm: Arm) -> float:
        """Predicted for one picture."""
        return self.costs[arm.kind].of("seconds", arm.steps or self.steps, arm.candidates)

    def spends(self, arm: Arm, what: str) -> float:
        """Predicted for one picture, in seconds of computing or denoiser calls."""
        return self.costs[arm.kind].of(what, arm.steps or self.steps, arm.candidates)

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
    """A plan from the costs of every kind of arm, measured at a few steps and at more, at the batch of the run."""
    arms = field_of(asked, setting)
    cell = cells(asked, setting)[0]
    brief, seeds = cell.per_prompt(asked.seeds)[0]
    batch, steps = seeds[: asked.batch], setting.settings.steps
    kinds = list(dict.fromkeys(arm.kind for arm in [Arm("unguided"), *arms, Arm("best-of")]))
    samplers = {sampler: described(pipeline, sampler) for sampler in dict.fromkeys(sampler for _, sampler in kinds)}
    # Strategies that take a fixed number of gradients a run take all of them in five steps. Where seconds are to be equal, no cost is
    # drawn out beyond what was measured.
    few = min(max(5, steps // 5), 10, steps)
    many = min(2 * few, steps) if asked.best_of or asked.budget.startswith("calls") else steps
    first = {kind: next(arm for arm in [*arms, Arm("unguided"), Arm("best-of")] if arm.kind == kind) for kind in kinds}

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
    plain = list(zip(*seen["unguided", ""], strict=True))
    every = [costs for pairs in seen.values() for pair in pairs for _, costs in pair]
    stretch = sum(costs["seconds"] for costs in every) / max(sum(costs["compute_seconds"] for costs in every), 1e-9)
    found = {
        kind: budget.Cost.between(*(_typical(own, beside, stretch) for own, beside in zip(zip(*pairs, strict=True), plain, strict=True)))
        for kind, pairs in seen.items()
    }
    if asked.budget:
        spent = budget.equal(arms, found, steps, asked.budget)
        # Equal calls are not equal seconds: best-of at those of each arm stands beside.
        more = budget.best_of(spent.arms, found, steps) if asked.budget.startswith("calls") else ()
        return Plan(setting, tuple(dict.fromkeys([*spent.arms, *more])), found, samplers, spent.amount, tuple(spent.said))
    return Plan(setting, (*arms, *budget.best_of(arms, found, steps, asked.best_of)), found, samplers)


Laps = Sequence[tuple[int, dict[str, float]]]


def _typical(laps: Laps, plain: Laps, stretch: float = 1.0) -> tuple[int, dict[str, float]]:
    """What a picture costs, from several measurements at one number of steps, each beside the plain pipeline's of the same lap.

    How many plain pictures an arm costs in computing (the median) hardly changes with what else the machine does, while its seconds do.
    `stretch`: seconds of the clock for one of computing, over all measurements: what the machine grants this process.
    """
    one = "compute_seconds"
    shares = [own[one] / max(beside[one], 1e-9) for (_, own), (_, beside) in zip(laps, plain, strict=True)]
    computing = median(shares) * min(costs[one] for _, costs in plain)
    least = {name: min(costs[name] for _, costs in laps) for name in laps[0][1]}  # the calls, which are counted
    return laps[0][0], least | {one: computing, "seconds": stretch * computing}


def write(plans: Sequence[Plan], path: Path, key: str, machine: dict | None = None) -> None:
    """plan.json: what a resumed run, and other processes, go by, so that no clock decides twice. `key`: of what was asked for; `machine`:
    what was measured on."""
    told = [
        {
            "setting": plan.setting.slug(),
            "samplers": plan.samplers,
            "amount": plan.amount,
            "said": plan.said,
            "arms": [asdict(arm) for arm in plan.arms],
            "costs": [{"strategy": name, "sampler": sampler, **asdict(cost)} for (name, sampler), cost in plan.costs.items()],
        }
        for plan in plans
    ]
    write_text(path, json.dumps({"schema": SCHEMA, "asked": key, "machine": machine or {}, "plans": told}, indent=1) + "\n")


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
        return [_read(told[setting.slug()], setting) for setting in settings]
    except OSError as error:
        raise UserError(f"There is no plan at {path} ({error.strerror}); the command that made the run writes it again.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"The plan {path} is not one of this version; remove it, and the run is planned again.") from None


def _read(told: dict, setting: Setting) -> Plan:
    costs = {(c["strategy"], c["sampler"]): budget.Cost(_costs(c["fixed"]), _costs(c["per_step"])) for c in told["costs"]}
    arms = tuple(Arm(**arm) for arm in told["arms"])
    return Plan(setting, arms, costs, told["samplers"], told["amount"], tuple(told.get("said", ())))


def _costs(told: dict[str, float]) -> dict[str, float]:
    """Plans of the first schema have the clock's seconds alone."""
    return {"compute_seconds": told["seconds"]} | told


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
        tables += [Text(line) for line in _budget(plan, asked)]
    over = f", over {processes} processes" if processes > 1 else ""
    said = f"{pictures} pictures, {there} of them there already; predicted time {duration(total / processes)}{over}, then the reading."
    size = plans[0].setting.settings
    room = pictures * max(size.width or 1024, 64) * max(size.height or 1024, 64) * 3
    clocks = [sum(one.costs["unguided", ""].of(name, one.steps) for one in plans) for name in ("seconds", "compute_seconds")]
    if clocks[0] > BUSY * clocks[1]:
        said += f" Other work on this machine makes it {clocks[0] / clocks[1]:.1f} times as long as the computing takes."
    lines = [said, f"They need at most {size_of(room)} of the {size_of(free)} that are free."]
    return Group(*tables, Text("\n".join(lines)))


def _budget(plan: Plan, asked: Asked) -> Iterator[str]:
    """What every arm is to spend, what that is in plain pictures, and what cannot be had."""
    if plan.amount is None:
        return
    what = budget.parsed(asked.budget)[0]
    plain = plan.costs["unguided", ""].of(what, plan.steps)
    unit = "seconds of computing" if what == "compute_seconds" else budget.WORDS[what]
    yield (
        f"Budget: {plan.amount:.3g} {unit} a picture for every arm but the plain pipeline, which is {plan.amount / max(plain, 1e-9):.2f} "
        f"plain pictures.{' Best-of at the seconds of each arm stands beside.' if what == 'denoiser_calls' else ''}"
    )
    yield from plan.said


def size_of(count: float) -> str:
    """Bytes as `340 KiB`, `12 MiB` or `1.4 GiB`."""
    for unit, one in (("KiB", 2**10), ("MiB", 2**20)):
        if count < 1000 * one:
            return f"{max(ceil(count / one), 1)} {unit}"
    return f"{count / 2**30:.1f} GiB" if count < 100 * 2**30 else f"{count / 2**30:.0f} GiB"


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
