"""How two sets of pictures compare as distributions of features: KID, precision and recall, Vendi score, nearest neighbours."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from probes.errors import UserError


def mmd(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy of features `(n, d)` and `(m, d)` under the kernel `(x . y / d + 1) ** 3`, without bias.

    The estimator and kernel of the Kernel Inception Distance (arXiv:1801.01401); its mean is 0 for two samples of one distribution, so a
    single value may be negative. UserError for fewer than two pictures on a side.
    """
    if min(len(a), len(b)) < 2:
        raise UserError(f"A distance of distributions needs two pictures on each side, not {len(a)} and {len(b)}: take more samples.")
    a, b = a.double(), b.double()
    n, m, d = len(a), len(b), a.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3

    def apart(x: Tensor) -> Tensor:
        """The kernel's mean over pairs of different pictures."""
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    return float(apart(a) + apart(b) - 2 * kernel(a, b).sum() / (n * m))


def kid(a: Tensor, b: Tensor, subsets: int = 10, size: int = 1000, seed: int = 0) -> dict[str, float | None]:
    """KID over random subsets without replacement: mean, deviation between subsets, and how many of `pictures` a subset held.

    Where both sets hold no more than `size` pictures, subsets of half the smaller set are taken, so that there is still a deviation; below
    eight pictures all are one sample, without one (None). Subsets overlap, so the deviation understates what other pictures would do.
    """
    size, fewer = min(size, len(a), len(b)), min(len(a), len(b))
    rng = np.random.default_rng(seed)
    if max(len(a), len(b)) <= size:
        subsets, size = (subsets, fewer // 2) if fewer >= 8 else (1, fewer)
    values = [mmd(a[rng.permutation(len(a))[:size]], b[rng.permutation(len(b))[:size]]) for _ in range(subsets)]
    spread = float(np.std(values, ddof=1)) if subsets > 1 else None
    return {"kid": float(np.mean(values)), "deviation": spread, "subsets": subsets, "size": size, "pictures": fewer}


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> dict[str, float]:
    """Improved precision and recall (arXiv:1904.06991): the share of `made` features within the `k`-th neighbour's ball of a real one, and
    the share of real ones within that of a made one; both in [0, 1], both fall with the number of pictures."""
    if min(len(real), len(made)) <= k:
        raise UserError(f"Precision and recall need more than {k} pictures a side, not {len(real)} and {len(made)}: take more samples.")
    across = torch.cdist(real, made)

    def radius(x: Tensor) -> Tensor:
        return torch.cdist(x, x).kthvalue(k + 1, dim=1).values  # the nearest is the picture itself

    return {
        "precision": float((across <= radius(real)[:, None]).any(0).float().mean()),
        "recall": float((across <= radius(made)[None]).any(1).float().mean()),
        "neighbours": k,
    }


def vendi(features: Tensor) -> float:
    """Vendi score (Friedman and Dieng): the exponential of the entropy of the eigenvalues of the cosine kernel over n.

    The effective number of different pictures: 1 where all are alike, n where all are orthogonal.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    values = torch.linalg.eigvalsh(unit @ unit.T / len(unit)).clamp_min(0)
    values = values[values > 1e-12]
    return float((-(values * values.log()).sum()).exp())


def nearest(queries: Tensor, pool: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Euclidean distance `(n,)` of each query to its nearest row of the pool, and which row that is."""
    best = torch.full((len(queries),), float("inf"))
    where = torch.zeros(len(queries), dtype=torch.long)
    for start, part in _parts(pool, chunk):
        distance, index = torch.cdist(queries, part).min(1)
        closer = distance < best
        best, where = torch.where(closer, distance, best), torch.where(closer, index + start, where)
    return best, where


def _parts(pool: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(pool), chunk):
        yield start, pool[start : start + chunk]
