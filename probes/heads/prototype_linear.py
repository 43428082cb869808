"""Logistic regression pulled toward prototypes instead of zero, so that few examples need no validation set (after CLAP, arXiv:2312.12730).

CLAP pulls each class by a weight of its own that it finds on the examples, while it trains; here one weight for all makes a strictly
convex problem, solved to its minimum.
"""
import torch
from torch.nn import functional as F

from probes.heads.examples import examples
from probes.heads.linear import Linear


@torch.inference_mode(False)
def fit(features, labels, names, *, text=None, scale: float = 20., pull: float = .3, balanced: bool = True, steps: int = 500) -> Linear:
    """The minimum over `W, b` of `sum_i w_i cross-entropy(W f_i + b) + pull / 2 (||W - scale P||^2 + ||b||^2)`, P text or class means.

    `scale`: how decided the prototypes alone are, in logits per cosine; `pull`: 1 / C of scikit-learn; `balanced`: every label weighs as
    much as every other (`w_i = n / (k n_class)`), whatever the number of its examples. Deterministic: LBFGS in fp64 on all examples.
    """
    given = examples(features, labels, names, text)
    x, y = given.features.double(), given.labels
    target = torch.cat([scale * given.prototypes.double(), x.new_zeros(len(names), 1)], 1)
    x = F.pad(x, (0, 1), value=1.)
    counts = y.bincount().double()
    weights = len(y) / (len(counts) * counts) if balanced else torch.ones_like(counts)
    with torch.enable_grad():
        solution = target.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([solution], max_iter=steps, tolerance_grad=1e-7 * len(x), line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            entropy = F.cross_entropy(x @ solution.T, y, weight=weights, reduction="none").sum()
            value = entropy + pull / 2 * (solution - target).square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    weight = solution.detach().to(given.features.dtype)
    return Linear(weight[:, :-1].contiguous(), weight[:, -1].contiguous(), given.names, prototypes=given.origin)
