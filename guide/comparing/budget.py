"""Equal budgets: what a picture of each arm costs, measured; how many candidates and steps a budget buys; best-of-N at equal seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from typing import NamedTuple

from guide.comparing.asked import Arm
from guide.loops import LOOPS
from guide.strategies import presets
from probes.errors import UserError

UNITS = {"seconds": "compute_seconds", "calls": "denoiser_calls"}
WORDS = {"compute_seconds": "seconds", "denoiser_calls": "denoiser calls"}
COSTS = ("seconds", *UNITS.values())
MOST_CANDIDATES, FEWEST_STEPS = 64, 2
TOLERANCE = 0.1  # of a budget: an arm that misses it by more is flagged
NEAR = 1 / 3  # a best-of that costs more or less than this beside an arm is none of its rivals


@dataclass(frozen=True)
class Cost:
    """Of one picture of one candidate: `fixed` and `per_step`, by name of the cost, of COSTS."""

    fixed: dict[str, float]
    per_step: dict[str, float]

    def of(self, what: str, steps: int, candidates: int = 1) -> float:
        return candidates * (self.fixed[what] + steps * self.per_step[what])

    @classmethod
    def between(cls, few: tuple[int, Mapping[str, float]], many: tuple[int, Mapping[str, float]]) -> "Cost":
        """The line through two measurements of (steps, costs); a slope below 0 is noise of the clock and counts as none."""
        (a, low), (b, high) = few, many
        if a == b:
            return cls(dict.fromkeys(COSTS, 0.0), {name: high[name] / b for name in COSTS})
        slope = {name: max((high[name] - low[name]) / (b - a), 0.0) for name in COSTS}
        return cls({name: max(high[name] - b * slope[name], 0.0) for name in COSTS}, slope)


Costs = Mapping[tuple[str, str], Cost]


class Budgeted(NamedTuple):
    """The arms, what each spends a picture, in seconds of computing or denoiser calls, and sentences on what could not be had."""

    arms: list[Arm]
    amount: float
    said: list[str]


def parsed(text: str) -> tuple[str, float | None]:
    """`seconds` -> ("compute_seconds", None), of which `equal` makes an amount; `calls:100` -> ("denoiser_calls", 100.)."""
    unit, _, amount = text.partition(":")
    if unit.strip() not in UNITS:
        raise UserError(f"The budget {text!r} is neither seconds nor calls; write --budget seconds, or --budget calls:100 for a picture.")
    try:
        value = float(amount) if amount.strip() else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < float("inf"):
        raise UserError(f"The budget {text!r} names no amount a picture; write --budget seconds:8.")
    return UNITS[unit.strip()], value


def equal(arms: Sequence[Arm], costs: Costs, steps: int, budget: str) -> Budgeted:
    """The arms so that a picture of each costs the same.

    Without an amount the budget is what the dearest arm costs at `steps`, or two plain pictures, from which on there is something to
    select; denoiser calls are counted, so that the budget is raised by up to a tenth to where all arms meet it best. Each arm spends it on
    candidates, of which the guide keeps one, and the rest on more steps: with n candidates a step is n steps' worth, so that an arm misses
    the budget by half of that at most. An arm that is dearer than the budget takes fewer steps; so does best-of, which has two candidates
    at least, and is left out where these cannot be had. The plain pipeline stays as it is besides: all are paired with it.
    """
    what, amount = parsed(budget)
    spenders = [arm for arm in arms if arm.strategy not in ("unguided", "best-of")] + [Arm("best-of")]

    def miss(arm: Arm, amount: float) -> float:
        return abs(costs[arm.kind].of(what, arm.steps or steps, arm.candidates) / amount - 1)

    def spent(amount: float) -> list[Arm]:
        return [_spending(arm, costs[arm.kind], what, amount, steps, lambda one: miss(one, amount)) for arm in spenders]

    if amount is None:
        amount = max(costs[arm.kind].of(what, steps) * (2 if arm.strategy == "best-of" else 1) for arm in spenders)
        if what == "denoiser_calls":
            able = range(ceil(amount - 1e-9), floor(amount * (1 + TOLERANCE)) + 1)
            amount = min(able, key=lambda one: (round(max(miss(arm, one) for arm in spent(one)), 3), one), default=amount)
    found, said = spent(amount), []
    if miss(found[-1], amount) > TOLERANCE:
        said.append(
            f"Best-of is left out: {amount:.3g} {WORDS[what]} a picture do not pay for two candidates of {FEWEST_STEPS} steps, and one "
            "candidate is no selection."
        )
        found.pop()
    said += [
        f"{arm.label} cannot spend {amount:.3g} {WORDS[what]} to a tenth: a picture of it costs {cost:.3g}."
        for arm in found
        for cost in [costs[arm.kind].of(what, arm.steps or steps, arm.candidates)]
        if miss(arm, amount) > TOLERANCE
    ]
    return Budgeted(list(dict.fromkeys([*(arm for arm in arms if arm.strategy == "unguided"), *found])), float(amount), said)


def _spending(arm: Arm, cost: Cost, what: str, amount: float, steps: int, miss: Callable[[Arm], float]) -> Arm:
    """The arm with the candidates and steps that `amount` pays for."""
    fewest = 2 if arm.strategy == "best-of" else 1
    several = arm.strategy not in LOOPS or presets()[arm.strategy].settings.get("n") or arm.strategy == "best-of"
    whole = min(max(fewest, floor(amount / cost.of(what, steps) + 0.02)), MOST_CANDIDATES) if several else 1
    found = []
    for candidates in (whole, whole + 1) if several and whole < MOST_CANDIDATES else (whole,):
        each = amount / candidates - cost.fixed[what]
        taken = max(min(FEWEST_STEPS, steps), round(each / cost.per_step[what])) if cost.per_step[what] else steps
        found.append(replace(arm, candidates=candidates, steps=0 if taken == steps else taken))
    # A candidate more, of fewer steps, only where it meets the budget clearly better.
    return found[-1] if miss(found[-1]) < miss(found[0]) - 0.03 else found[0]


def best_of(arms: Sequence[Arm], costs: Costs, steps: int, given: Sequence[int] = ()) -> list[Arm]:
    """Best-of-N, N at least 2, at the seconds of each arm that steers, or for the Ns that are given.

    Arms whose costs lie within a tenth share one. N is the nearest number of plain pictures that cost as much; what is left over or wanting
    goes into the steps of each, so that an arm at 1.4 plain pictures stands beside two of fewer steps.
    """
    if given:
        return [Arm("best-of", candidates=n) for n in dict.fromkeys(given)]
    what, cost = "compute_seconds", costs["best-of", ""]
    plain = cost.of(what, steps)
    steering = [arm for arm in arms if arm.strategy not in ("unguided", "best-of") and presets()[arm.strategy].unit != "guidance scale"]
    spent = sorted({costs[arm.kind].of(what, arm.steps or steps, arm.candidates) for arm in steering}) or [2 * plain]
    groups: list[list[float]] = []
    for value in spent:
        if groups and value <= groups[-1][0] * (1 + TOLERANCE):
            groups[-1].append(value)
        else:
            groups.append([value])
    found = []
    for group in groups:
        amount = sqrt(group[0] * group[-1])
        n = min(max(2, round(amount / max(plain, 1e-9))), MOST_CANDIDATES)
        taken = steps
        if abs(n * plain / amount - 1) > 0.03 and cost.per_step[what]:
            taken = max(min(FEWEST_STEPS, steps), round((amount / n - cost.fixed[what]) / cost.per_step[what]))
        found.append(Arm("best-of", candidates=n, steps=0 if taken == steps else taken))
    return list(dict.fromkeys(found))


def rival(arm: Arm, arms: Sequence[Arm], costs: Costs, steps: int) -> Arm | None:
    """The best-of arm that costs what this arm does, which it has to beat. None where none lies within a third of it, as may be where
    numbers of candidates were given."""
    if arm.strategy in ("unguided", "best-of"):
        return None

    def seconds(one: Arm) -> float:
        return costs[one.kind].of("compute_seconds", one.steps or steps, one.candidates)

    spent = seconds(arm)
    near = [other for other in arms if other.strategy == "best-of" and abs(seconds(other) - spent) <= NEAR * spent]
    return min(near, key=lambda other: abs(seconds(other) - spent), default=None)
