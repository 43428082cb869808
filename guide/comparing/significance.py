"""Whether two strategies can be told apart: Wilcoxon over prompts, Holm's correction, win rates, and how many seeds it would take."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
from scipy.stats import nct, wilcoxon
from scipy.stats import t as student

from guide.statistics import Interval, clusters_of, mean_difference

ALPHA, POWER = 0.05, 0.8
SIGNS = 5


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in their order; nan belongs to no family and stays nan."""
    values = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(values))
    adjusted, running = np.full(len(values), nan), 0.0
    for rank, index in enumerate(known[np.argsort(values[known], kind="stable")]):
        running = max(running, min(1.0, (len(known) - rank) * values[index]))
        adjusted[index] = running
    return adjusted.tolist()


def signed_rank(differences: Sequence[float], prompts: Sequence[Hashable]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on the prompts' mean differences, which are independent as the pairs of one prompt are
    not (on the pairs where all share one prompt). Exact up to 50 of them without ties; nan where nothing differs. Fewer than 6 cannot
    come below .05."""
    values = np.asarray(differences, dtype=float)
    kept = np.isfinite(values)
    if not kept.any():
        return nan
    groups, _ = clusters_of([prompt for prompt, keep in zip(prompts, kept, strict=True) if keep])
    means = np.bincount(groups, values[kept]) / np.bincount(groups)
    moved = means[np.abs(means) > 1e-12]
    return float(wilcoxon(moved).pvalue) if len(moved) else nan


def wins(differences: Sequence[float], prompts: Sequence[Hashable]) -> Interval:
    """Share of the pairs in which the first is the better one, ties counting half, with the same cluster interval within [0, 1]."""
    values = np.asarray(differences, dtype=float)
    found = mean_difference(np.where(np.isnan(values), nan, np.sign(values) / 2), prompts, bounds=(-0.5, 0.5))
    shifted = (found.mean + 0.5, found.low + 0.5, found.high + 0.5)
    return Interval(*shifted, found.pairs, found.clusters, found.method, found.p)


@dataclass(frozen=True)
class Needed:
    """What it would take to tell a difference of the size seen from 0 at p < .05 in 8 of 10 experiments.

    `seeds`: for each of the `of` prompts at hand; None where more seeds cannot do it, because the prompts themselves disagree; `prompts`:
    how many prompts, at `each` seeds as there were; None where there is one prompt only, which says nothing of how prompts differ. Both
    None where no difference was seen.
    """

    seeds: int | None
    prompts: int | None
    of: int = 0
    each: float = 0.0

    @property
    def some(self) -> bool:
        return self.seeds is not None or self.prompts is not None

    def __str__(self) -> str:
        """`12 prompts x 9 seeds, 30 x 4`."""
        parts = [f"{count} x {seeds:g}" for count, seeds in ((self.of, self.seeds), (self.prompts, self.each)) if count and seeds]
        return " or ".join(parts) or "-"

    def long(self) -> str:
        """`9 seeds for each of the 12 prompts, or 30 prompts at 4 seeds each`."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds != 1)}" if self.seeds is not None else ""
        own = f"{round(self.each, 1):g} seed{'s' * (self.each != 1)} each"
        where = "of the one prompt, which says nothing of others" if self.of == 1 else f"for each of the {self.of} prompts"
        parts = [f"{seeds} {where}"] if seeds else []
        parts += [f"{self.prompts} prompts at {own}"] if self.prompts is not None else []
        more = f" (more seeds of the same {self.of} prompts cannot do it)" if not seeds and self.of > 1 and self.each > 1 else ""
        return ", or ".join(parts) + more


MOST = 10**6  # more than anybody makes


def needed(differences: Sequence[float], prompts: Sequence[Hashable], alpha: float = ALPHA, power: float = POWER) -> Needed:
    """From the variance between prompts and within them (one-way analysis of variance), by the power of a t test over the prompts: few
    prompts have heavy tails, which more seeds of each do not take away."""
    values = np.asarray(differences, dtype=float)
    kept = np.isfinite(values)
    values = values[kept]
    if len(values) < 2 or abs(mean := float(values.mean())) < 1e-12:
        return Needed(None, None)
    codes = {prompt: code for code, prompt in enumerate(dict.fromkeys(p for p, keep in zip(prompts, kept, strict=True) if keep))}
    groups = np.array([codes[prompt] for prompt, keep in zip(prompts, kept, strict=True) if keep])
    sizes, count = np.bincount(groups), len(codes)
    means = np.bincount(groups, values) / sizes
    each = len(values) / count
    inner = float(((values - means[groups]) ** 2).sum() / (len(values) - count)) if len(values) > count else 0.0
    outer = max(float(means.var(ddof=1)) - inner / each, 0.0) if count > 1 else 0.0
    if len(values) == count:
        outer = float(values.var(ddof=1))  # a seed a prompt: what is between and what is within cannot be told apart

    def enough(variance: float, clusters: int) -> bool:
        if clusters < 2:
            return False
        away = min(abs(mean) / sqrt(max(variance, 1e-300)), 30.0)  # beyond, the distribution's tail is not computed well
        return float(nct.sf(student.ppf(1 - alpha / 2, clusters - 1), clusters - 1, away)) >= power

    if count == 1:
        return Needed(_first(lambda n: enough(inner / n, n)), None, 1, each)
    seeds = _first(lambda n: enough((outer + inner / n) / count, count)) if inner > 0 else None
    least = SIGNS if len(values) == count else 2  # with fewer prompts of a seed each nothing is ever called significant
    return Needed(seeds, _first(lambda n: n >= least and enough((outer + inner / each) / n, n)), count, each)


def _first(enough: Callable[[int], bool]) -> int | None:
    """The smallest number that is enough, where every larger one is too; None where none is."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def significant(adjusted: float, interval: Interval) -> bool:
    """Whether a figure may be set in bold: its adjusted p is below .05 and its interval leaves 0 out. Never where fewer than SIGNS prompts
    have one seed each: with labels dealt anew, all of 4 differences agree in 1 of 8 experiments, of 3 in 1 of 4."""
    if interval.pairs == interval.clusters < SIGNS:
        return False
    return not isnan(adjusted) and adjusted < ALPHA and interval.excludes_zero
