"""How different the pictures of one prompt are, and how much of what the plain pipeline paints for it is still painted."""

from collections.abc import Sequence
from math import nan

import numpy as np

NEIGHBOURS = 3


def vendi(features: np.ndarray) -> float:
    """Vendi score (Friedman and Dieng, arXiv:2210.02410, unverified) of features (n, d): the exponential of the entropy of the
    eigenvalues of the cosine kernel over n. 1 where all pictures are alike, n where all are orthogonal; nan for fewer than 2."""
    if len(features) < 2:
        return nan
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit)).clip(0)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def recall(plain: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of the features `plain` (n, d) that lie within the k-th neighbour's ball of one of `made` (m, d) (improved recall,
    arXiv:1904.06991); k is m - 1 where there are no more. nan where there are fewer than 2."""
    if len(made) < 2 or not len(plain):
        return nan
    inner = np.linalg.norm(made[:, None] - made[None], axis=-1)
    radius = np.sort(inner, axis=1)[:, min(k, len(made) - 1)]  # the nearest is the picture itself
    across = np.linalg.norm(plain[:, None] - made[None], axis=-1)
    return float((across <= radius).any(1).mean())


def within(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over prompts of (plain, made) features: the Vendi score as a share of the plain pipeline's, itself, and recall."""
    scores = np.array([(vendi(made), vendi(plain), recall(plain, made)) for plain, made in groups], dtype=float).reshape(-1, 3)
    scores = scores[np.isfinite(scores).all(1)]
    if not len(scores):
        return {"vendi": nan, "vendi_ratio": nan, "recall": nan}
    return {
        "vendi": float(scores[:, 0].mean()),
        "vendi_ratio": float((scores[:, 0] / scores[:, 1]).mean()),
        "recall": float(scores[:, 2].mean()),
    }
