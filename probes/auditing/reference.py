"""Audited pictures beside a folder of reference images: their distance as distributions, and which of them repeat one."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from probes import distributions

MOST = 10_000  # pictures of a side that the distance is taken from, drawn evenly from all
LEAST = 2


def distance(made: Iterable[tuple[np.ndarray, np.ndarray]], counts: tuple[int, int],
             real: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[dict | None, dict | None]:  # fmt: skip
    """Kernel distance (KID's estimator and kernel, arXiv:1801.01401) of two sets of features, and the floor: of the reference's halves.

    Not Inception's features but the judge's (the encoder's where there is none), scaled to mean square 1 as the kernel expects: it compares
    with its floor and with other audits by the same judge, not with published figures. `counts`: rows on either side; None below two.
    """
    a, b = (_sampled(features, count) for features, count in zip((made, real), counts, strict=True))
    if min(len(a), len(b)) < LEAST:
        return None, None
    halves = torch.randperm(len(b), generator=torch.Generator().manual_seed(0))
    one, other = b[halves[::2]], b[halves[1::2]]
    return distributions.kid(a, b), distributions.kid(one, other) if len(other) >= LEAST else None


def _sampled(features: Iterable[tuple[np.ndarray, np.ndarray]], count: int) -> Tensor:
    """Features (n, d) of at most MOST pictures, of length sqrt(d)."""
    chosen = set(np.random.default_rng(0).permutation(count)[:MOST].tolist()) if count > MOST else None
    found = [some if chosen is None else some[[place for place, k in enumerate(at) if int(k) in chosen]] for at, some in features]
    whole = torch.from_numpy(np.concatenate(found)) if found else torch.zeros(0, 1)
    return torch.nn.functional.normalize(whole, dim=1) * whole.shape[1] ** 0.5
