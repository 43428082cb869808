"""Stacked linear heads (stacked generalization, Wolpert 1992): labels are read from the embedding and from ridge scores of what is known
beside them.

First ridge regressions read the label and its companions (the year of a painting helps to read its style), each embedding by ones that have
not seen its group. Then a logistic regression reads the embedding beside those scores. Both steps are linear, so what comes out is one
linear map: a head that costs no more than any other. The gain is in the penalty: directions that carry a score become cheap.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import solve
from scipy.optimize import minimize
from torch import Tensor

from probes.errors import UserError
from probes.heads.examples import CLASS_MEANS, table
from probes.heads.folds import group_folds
from probes.heads.linear import Linear
from probes.heads.ordinal import Ordinal


def fit(features, labels, names: Sequence[str], groups: Sequence, *, companions=None, influence: float = 1., ridge: float = 1.,
        pull: float = 1., balance: float = 1., evenness: float = .5) -> Linear:
    """A `Linear` of embeddings `(n, d)`. `labels` are numbers into `names`, or shares of votes `(n, k)` that sum to 1.

    `companions` `(n, q)`: other known values, of about unit size. `influence`: how much cheaper the directions of the scores are, 0 for
    none; `pull`: weight of the L2 norm (1 / C of scikit-learn). Labels weigh by their frequency to the power of -`balance`, the embeddings
    of a group (an artist) by their number to the power of -`evenness`. UserError where rows do not match.
    """
    x, names = table(features).cpu().numpy().astype(np.float64), tuple(names)
    given = np.asarray(labels)
    shares = given.astype(np.float64) if given.ndim == 2 else np.eye(len(names))[given]
    if shares.shape != (len(x), len(names)) or len(groups) != len(x):
        raise UserError(f"{len(x)} embeddings need as many labels and groups; there are {len(given)} and {len(groups)}.")
    weight, bias = _fit(x, shares, groups, companions, influence, ridge, pull, balance, evenness)
    return Linear(torch.from_numpy(weight), torch.from_numpy(bias), names, prototypes=CLASS_MEANS)


def fit_bins(features, values, groups: Sequence, *, companions=None, influence: float = 2., ridge: float = 1., pull: float = 1.,
             balance: float = 0., evenness: float = 0.) -> Ordinal:
    """An `Ordinal` whose centres are the distinct `values` `(n,)`: for data dated by spans, whose middles are those values."""
    x, values = table(features).cpu().numpy().astype(np.float64), np.asarray(values, float)
    centres, place = np.unique(values, return_inverse=True)
    if len(values) != len(x) or len(groups) != len(x) or len(centres) < 2:
        raise UserError("each embedding needs a value and a group, and there have to be two different values.")
    shares = np.eye(len(centres))[place]
    standard = ((values - values.mean()) / values.std())[:, None]
    companions = standard if companions is None else np.concatenate([standard, companions], 1)
    weight, bias = _fit(x, shares, groups, companions, influence, ridge, pull, balance, evenness)
    none = torch.zeros(0)
    return Ordinal(torch.from_numpy(weight), torch.from_numpy(bias), torch.from_numpy(centres).float(), none, none)


def _fit(x, shares, groups, companions, influence, ridge, pull, balance, evenness) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(0)
    x = x - mean
    known = shares if companions is None else np.concatenate([shares, companions], 1)
    scores, first, offset = without_group(x, known, groups, ridge)
    count = shares.sum(0)
    weights = shares @ (count / count.mean()).clip(1e-9) ** -balance
    _, group, size = np.unique([str(name) for name in groups], return_inverse=True, return_counts=True)
    weights = weights * size[group].astype(float) ** -evenness
    second, bias = logistic(np.concatenate([x, influence * scores], 1), shares, weights / weights.mean(), pull)
    raw, through = np.split(second, [x.shape[1]], 1)
    weight = raw + influence * through @ first
    return weight.astype(np.float32), (bias + influence * through @ offset - weight @ mean).astype(np.float32)


def without_group(x: np.ndarray, y: np.ndarray, groups: Sequence, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge scores `(n, q)` of each row by the other groups' rows, and the weight `(q, d)` and bias `(q,)` of all rows.

    Least squares leaves its own rows out in closed form: with the hat matrix H, a group's residuals without it are `(I - H_gg)^-1 r_g`.
    """
    mean, middle = x.mean(0), y.mean(0)
    centred = x - mean
    solved = solve(centred.T @ centred + ridge * np.eye(x.shape[1]), centred.T, assume_a="pos")
    weight = (solved @ (y - middle)).T
    residual = y - middle - centred @ weight.T
    scores = np.zeros_like(y)
    _, group = np.unique([str(name) for name in groups], return_inverse=True)
    for rows in np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1]):
        hat = centred[rows] @ solved[:, rows] + 1 / len(x)
        scores[rows] = y[rows] - np.linalg.solve(np.eye(len(rows)) - hat, residual[rows])
    return scores, weight, middle - weight @ mean


def logistic(x: np.ndarray, shares: np.ndarray, weights: np.ndarray, pull: float, steps: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(k, d)` and bias `(k,)`: the minimum of `sum_i w_i cross-entropy_i + pull / 2 |W|^2` by L-BFGS; shares `(n, k)`."""
    # Products in fp32 take half the time; the minimum is flat enough for that.
    x = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float32)
    shape = shares.shape[1], x.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(shape)
        logits = (x @ solution.T.astype(np.float32)).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        total = np.exp(logits).sum(1, keepdims=True)
        log_p = logits - np.log(total)
        residual = weights[:, None] * (np.exp(log_p) - shares)
        gradient = (residual.astype(np.float32).T @ x).astype(np.float64)
        gradient[:, :-1] += pull * solution[:, :-1]
        return float(-(weights[:, None] * shares * log_p).sum() + pull / 2 * (solution[:, :-1] ** 2).sum()), gradient.ravel()

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B",
                     options={"maxiter": steps, "ftol": 1e-5, "gtol": 1e-2, "maxcor": 5})
    solution = found.x.reshape(shape)
    return solution[:, :-1], solution[:, -1]


def out_of_fold(fit_fold, features: Tensor, groups: Sequence, folds: int = 5) -> Tensor:
    """Logits `(n, k)` of each embedding by `fit_fold(rows)`, a head fitted to the rows of the other groups."""
    fold, logits = group_folds(groups, folds=folds), None
    for number in range(folds):
        held = fold == number
        found = fit_fold(np.flatnonzero(~held.numpy())).logits(features[held])
        logits = features.new_zeros(len(features), found.shape[1]) if logits is None else logits
        logits[held] = found
    return logits
