"""Rates, means and ratios with 95 % intervals that hold the pictures of one prompt together."""

from collections.abc import Hashable, Sequence
from math import sqrt

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student

RESAMPLES = 1000
FEW = 8  # clusters, below which a bootstrap's percentiles are too narrow: Student's t then
Found = tuple[float, float | None, float | None]


def rate(successes: Sequence[bool | float], clusters: Sequence[Hashable]) -> Found:
    """A rate and its interval, cut to [0, 1]: cluster bootstrap, or Student's t on the cluster-robust error below eight clusters.

    None where there are fewer than two clusters. Where every picture is a cluster, or the clusters do not differ: Wilson's interval for
    as many trials as clusters, which is one also for 0 of n.
    """
    values = np.asarray(successes, float)
    found = ratio(values, np.ones(len(values)), clusters)
    count = len(set(np.asarray(clusters).tolist()))
    if count < 2:
        return found
    mean, low, high = found
    if count < len(values) and high - low > 1e-9:
        return mean, max(low, 0.0), min(high, 1.0)
    z = float(normal.ppf(0.975))
    middle, half = mean + z * z / 2 / count, z * sqrt(max(mean * (1 - mean), 0.0) / count + z * z / 4 / count**2)
    return mean, max((middle - half) / (1 + z * z / count), 0.0), min((middle + half) / (1 + z * z / count), 1.0)


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
