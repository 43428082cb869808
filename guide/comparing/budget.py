"""Equal budgets: what a picture of each arm costs, measured; how many candidates and steps a budget buys; best-of-N at equal seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor

from guide.comparing.asked import Arm
from guide.loops import LOOPS
from guide.strategies import presets
from probes.errors import UserError

UNITS = {"seconds": "seconds", "calls": "denoiser_calls"}
MOST_CANDIDATES, FEWEST_STEPS = 64, 2
KINDS_OF_BEST = 3  # numbers of candidates that best-of is run with where none is named


@dataclass(frozen=True)
class Cost:
    """Of one picture of one candidate: `fixed` and `per_step`, by name of the cost (seconds, denoiser_calls)."""

    fixed: dict[str, float]
    per_step: dict[str, float]

    def of(self, what: str, steps: int, candidates: int = 1) -> float:
        return candidates * (self.fixed[what] + steps * self.per_step[what])

    @classmethod
    def between(cls, few: tuple[int, Mapping[str, float]], many: tuple[int, Mapping[str, float]]) -> "Cost":
        """The line through two measurements of (steps, costs); a slope below 0 is noise of the clock and counts as none."""
        (a, low), (b, high) = few, many
        names = UNITS.values()
        if a == b:
            return cls(dict.fromkeys(names, 0.0), {name: high[name] / b for name in names})
        slope = {name: max((high[name] - low[name]) / (b - a), 0.0) for name in names}
        return cls({name: max(high[name] - b * slope[name], 0.0) for name in names}, slope)


Costs = Mapping[tuple[str, str], Cost]


def parsed(text: str) -> tuple[str, float | None]:
    """`seconds` -> ("seconds", None), that is the dearest arm's; `calls:100` -> ("denoiser_calls", 100.)."""
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


def equal(arms: Sequence[Arm], costs: Costs, steps: int, budget: str) -> tuple[list[Arm], float]:
    """The arms so that a picture of each costs the same, and that cost a picture, in seconds or denoiser calls.

    Without an amount the budget is what the dearest arm costs at `steps`. Each other arm spends it on candidates, of which the guide
    keeps one, and the rest on more steps: with n candidates a step is n steps' worth, so that an arm misses the budget by half of that at
    most. An arm that is dearer than the budget takes fewer steps. The plain pipeline stays as it is besides: it is what all are paired
    with, and best-of is it at the budget.
    """
    what, amount = parsed(budget)
    spenders = [arm for arm in arms if arm.strategy != "unguided"]
    if amount is None:
        amount = max((costs[arm.kind].of(what, steps) for arm in spenders), default=costs["unguided", ""].of(what, steps))
    found = [arm for arm in arms if arm.strategy == "unguided"]
    for arm in [*spenders, Arm("best-of")]:
        cost = costs[arm.kind]
        one = cost.of(what, steps)
        several = arm.strategy not in LOOPS or presets()[arm.strategy].settings.get("n") or arm.strategy == "best-of"
        candidates = min(max(1, floor(amount / one + 0.02)), MOST_CANDIDATES) if several else 1
        each = amount / candidates - cost.fixed[what]
        taken = max(FEWEST_STEPS, round(each / cost.per_step[what])) if cost.per_step[what] else steps
        found.append(replace(arm, candidates=candidates, steps=0 if taken == steps else taken))
    return list(dict.fromkeys(found)), amount


def best_of(arms: Sequence[Arm], costs: Costs, steps: int, given: Sequence[int] = ()) -> list[Arm]:
    """Best-of-N for the Ns that cost as many seconds as one or another of the arms, at most three of them, or for those given."""
    if given:
        return [Arm("best-of", candidates=n) for n in dict.fromkeys(given)]
    wanted = sorted({equal_n(arm, costs, steps) for arm in arms if arm.strategy not in ("unguided", "best-of")} - {1}) or [2]
    kept = wanted if len(wanted) <= KINDS_OF_BEST else [wanted[0], wanted[len(wanted) // 2], wanted[-1]]
    return [Arm("best-of", candidates=n) for n in kept]


def equal_n(arm: Arm, costs: Costs, steps: int) -> int:
    """The number of plain candidates that cost as many seconds as a picture of the arm."""
    plain = costs["best-of", ""].of("seconds", steps)
    spent = costs[arm.kind].of("seconds", arm.steps or steps, arm.candidates)
    return min(max(1, round(spent / max(plain, 1e-9))), MOST_CANDIDATES)


def rival(arm: Arm, arms: Sequence[Arm], costs: Costs, steps: int) -> Arm | None:
    """The best-of arm that costs the same seconds, give or take a third: what this arm has to beat. None where there is none, as for an
    arm that costs no more than the plain pipeline."""
    if arm.strategy in ("unguided", "best-of"):
        return None

    def seconds(one: Arm) -> float:
        return costs[one.kind].of("seconds", one.steps or steps, one.candidates)

    spent = seconds(arm)
    near = [other for other in arms if other.strategy == "best-of" and abs(seconds(other) - spent) <= spent / 3]
    return min(near, key=lambda other: abs(seconds(other) - spent), default=None)
