"""Linear heads over what an encoder's layers say: Gaussian discriminant analysis in closed form, an artist's works weighing less each.

Thousands of columns and a few hundred artists: a shrunken covariance (arXiv:2402.04087, `probes/heads/gda.py`) with memberships in place of
labels, so that bins of years are fitted like styles. How far it is shrunk is chosen on the judge split's artists, whom neither the CLIP
nor these heads learn from; the test split chooses nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

SHRINKAGES = (0.03, 0.1, 0.3, 1.0)  # of the mean variance, added to each
ARTIST = 0.5  # an artist's works of a label weigh as their number to the power of minus this
DEAD = 1e-3  # spread, in shares of the mean spread, below which a column says nothing


def evened(artists: pd.Series, members: np.ndarray) -> np.ndarray:
    """Weights `(n,)`: a label's most collected painter is not to stand for it; works without an artist count each on its own."""
    names = artists.fillna("").to_numpy()
    keys = pd.Series([f"{name}\t{label}" for name, label in zip(names, members.argmax(1), strict=True)])
    counts = np.where(names == "", 1.0, keys.map(keys.value_counts()))
    return counts**-ARTIST


def fits(features: np.ndarray, members: np.ndarray, weights: np.ndarray, shrinkages: Sequence[float] = SHRINKAGES) -> dict[float, tuple]:
    """Features `(n, d)` and how much each belongs to each of k labels `(n, k)` to weight `(k, d)` and bias `(k,)`, by shrinkage.

    Every label is as likely beforehand. Columns are standardised, which the weights that come out undo.
    """
    known = members.sum(1) > 0
    x, shares = features[known].astype(np.float32), members[known] * weights[known, None]
    centre, spread = x.mean(0), x.std(0)
    spread = np.where(spread > DEAD * spread.mean(), spread, np.inf)
    x = (x - centre) / spread
    shares = shares * (shares.sum(0).mean() / np.maximum(shares.sum(0), 1e-12))
    total = shares.sum(0)
    means = shares.T @ x / np.maximum(total, 1e-12)[:, None]
    covariance = (x * shares.sum(1)[:, None].astype(np.float32)).T @ x - (means * total[:, None]).T @ means
    values, vectors = np.linalg.eigh(covariance.astype(np.float64) / total.sum())
    found = {}
    for shrinkage in shrinkages:
        weight = means @ (vectors / (values.clip(0) + shrinkage * values.mean())) @ vectors.T
        bias = -(weight * means).sum(1) / 2
        weight = weight / spread
        found[shrinkage] = weight.astype(np.float32), (bias - weight @ centre).astype(np.float32)
    return found


def best(found: dict[float, tuple], features: np.ndarray, score: Callable[[np.ndarray], float]) -> tuple[float, tuple]:
    """The shrinkage whose logits of `features` score highest, and its weight and bias; the middle one where there is nothing to score."""
    if not len(features):
        return list(found.items())[len(found) // 2]
    return max(found.items(), key=lambda item: score(features @ item[1][0].T + item[1][1]))
