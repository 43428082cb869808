"""Rates, means and ratios with 95 % intervals that hold the pictures of one prompt together."""

from collections.abc import Hashable, Sequence
from math import sqrt

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student

from probes.reliability import wilson

RESAMPLES = 1000
FEW = 8  # clusters, below which a bootstrap's percentiles are too narrow: Student's t then
Found = tuple[float, float | None, float | None]


def rate(successes: Sequence[bool | float], clusters: Sequence[Hashable]) -> Found:
    """A rate and its interval in [0, 1]; None where there is but one picture.

    Wilson's interval for an effective number of pictures: n over the design effect, the cluster-robust variance of the rate over that of
    n pictures by themselves, at least 1. What it exceeds 1 by counts the more the fewer the clusters that it is estimated from, by the
    square of Student's quantile over the normal one. Where clusters do not vary, as for 0 of n, or are of one picture each, that is n.
    Where eight or more clusters hold a success and eight or more a failure: a bootstrap of the clusters.
    """
    values = np.asarray(successes, float)
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    over, under = np.bincount(codes, values), np.bincount(codes)
    n, count, mean = len(values), len(over), float(values.mean())
    if n < 2:
        return mean, None, None
    if 1 < count < n and min((over > 0).sum(), (over < under).sum()) >= FEW:
        mean, low, high = ratio(values, np.ones(n), clusters)
        return mean, max(low, 0.0), min(high, 1.0)
    low, high = wilson(mean, n / _design(over, under, mean) if count > 1 else n)
    return mean, low, high


def _design(over: np.ndarray, under: np.ndarray, mean: float) -> float:
    """The design effect, 1 or more, of clusters with `over` successes among `under` pictures, at least two of them."""
    n, count = int(under.sum()), len(over)
    alone = mean * (1 - mean) / (n - 1)
    if alone <= 0:
        return 1.0
    robust = count / (count - 1) * float(np.square(over - mean * under).sum()) / n**2
    fewness = float(student.ppf(0.975, count - 1) / normal.ppf(0.975)) ** 2
    return 1 + max(robust / alone - 1, 0.0) * fewness


def ratio(above: Sequence[float], below: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Found:
    """The sum of `above` over the sum of `below` and its interval: clusters are drawn anew 1,000 times, and the percentiles taken.

    With `below` of ones it is a mean. Below eight clusters: Student's t on the linearised cluster-robust error.
    """
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    over, under = (np.bincount(codes, np.asarray(part, float)) for part in (above, below))
    count, value = len(over), float(over.sum() / under.sum())
    if count < 2:
        return value, None, None
    if count < FEW:
        error = sqrt(count / (count - 1) * float(np.square(over - value * under).sum())) / abs(float(under.sum()))
        half = float(student.ppf(0.975, count - 1)) * error
        return value, value - half, value + half
    rng = np.random.default_rng(seed)
    drawn = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        at = rng.integers(count, size=count)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[k] = over[at].sum() / under[at].sum()
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return value, float(low), float(high)
