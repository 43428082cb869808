"""Whether costs were equal where they are called so: what each arm spent beside the budget, and beside the best-of that it has to beat.

Costs by the clock are compared between pictures that were made one after another: of an arm and the plain pipeline, or best-of, at the
same prompt and seed. What else the machine did then met both of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from guide.comparing import budget
from guide.comparing.effects import PAIR, setting_of
from guide.comparing.plan import Plan


@dataclass(frozen=True)
class Spent:
    """`share`: what a picture of the arm cost as a share of what it should (1 is right); `seconds`, `calls`: means of a picture;
    `beside`: "" for the budget, else the best-of arm whose cost is the measure."""

    setting: str
    arm: str
    share: float
    seconds: float
    calls: float
    beside: str = ""

    @property
    def off(self) -> bool:
        """Whether it misses by more than a tenth."""
        return not isnan(self.share) and abs(self.share - 1) > budget.TOLERANCE


def clock(rows: pd.DataFrame) -> str:
    """Seconds of computing; the clock's in a run of before they were measured."""
    return "compute_seconds" if "compute_seconds" in rows and rows["compute_seconds"].notna().any() else "seconds"


def beside(rows: pd.DataFrame, arm: str, other: str, what: str) -> float:
    """How many times the cost of a picture of `other` one of `arm` has, the median over the same prompts and seeds."""
    pairs = rows[rows["arm"] == arm].merge(rows[rows["arm"] == other], on=PAIR, suffixes=("", "_other"))
    shares = (pairs[what] / pairs[f"{what}_other"]).to_numpy(float)
    shares = shares[np.isfinite(shares)]
    return float(np.median(shares)) if len(shares) else nan


def against_budget(rows: pd.DataFrame, text: str, plans: Mapping[str, Plan]) -> Iterator[Spent]:
    """Of every arm but the plain pipelines, and but best-of at equal seconds where the budget is of calls; nothing where there was no
    budget. `text`: as typed."""
    if not text:
        return
    what = budget.parsed(text)[0]
    told = setting_of(rows)
    for setting, one in plans.items():
        own = rows[told == setting]
        if one.amount is None:
            continue
        plain = one.costs["unguided", ""].of(what, one.steps)
        for arm in (arm for arm in one.arms if arm.strategy != "unguided"):
            mine = own[own["arm"] == arm.label]
            counted = what != "denoiser_calls" or arm.strategy != "best-of"
            if not len(mine) or not (counted or abs(one.spends(arm, what) / one.amount - 1) <= budget.TOLERANCE):
                continue
            if what == "denoiser_calls":
                share = mine[what].mean() / one.amount
            else:
                share = beside(own, arm.label, "unguided", clock(rows)) / (one.amount / plain)
            yield Spent(setting, arm.label, float(share), float(mine[clock(rows)].mean()), float(mine["denoiser_calls"].mean()))


def against_best(rows: pd.DataFrame, rivals: Mapping[tuple[str, str], str]) -> Iterator[Spent]:
    """Of every arm that has a best-of beside it: its cost as a share of that one's."""
    told = setting_of(rows)
    for (setting, arm), other in rivals.items():
        own = rows[told == setting]
        mine = own[own["arm"] == arm]
        if len(mine):
            share = beside(own, arm, other, clock(rows))
            yield Spent(setting, arm, share, float(mine[clock(rows)].mean()), float(mine["denoiser_calls"].mean()), other)
