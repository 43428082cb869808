"""Readings of pictures of one subject relative to one another: what the subject itself says of the value is taken out first.

People's ratings of pictures by models follow the subject more than the picture (a portrait has more defects to show than an abstraction).
Centred within a prompt, an embedding tells which model made a picture half again as well as it does alone, and models differ in how often
they fail: the expected effect of the maker is half of the reading, a head's own reading of each picture is the other half. Both are
centred by the pictures that are read together, so a picture needs others of its prompt beside it.
"""
from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.errors import UserError
from probes.heads.examples import numbers, table
from probes.heads.head import Head, fitting
from probes.heads.stacked import logistic


@dataclass(frozen=True, eq=False)
class Relative:
    """`weight` `(k, d)` and `bias` `(k,)` tell k makers apart, `effects` `(k,)` is what each does to the value.

    `own`: a head of two labels that reads pictures one by one, whose log-odds of the second count `share` times as much; both parts are
    measured in their spreads `scales` within a group of the examples.
    """

    weight: Tensor
    bias: Tensor
    effects: Tensor
    scales: tuple[float, float]
    own: Head | None = None
    share: float = 1.

    def read(self, embeddings: Tensor, groups: Sequence[Hashable]) -> Tensor:
        """Embeddings `(n, d)` and the group of each to `(n,)`: higher in value than the others of its group, in spreads; mean 0 in each.

        Differentiable to the embeddings. UserError where a group has one picture only, which is relative to nothing.
        """
        place = _places(groups, len(embeddings), embeddings.device)
        if (place.bincount() < 2).any():
            raise UserError("a relative reading needs two pictures or more of each prompt; read a single one by a head of its own.")
        makers = (centred(fitting(embeddings, self.weight.shape[1]), place) @ self.weight.T + self.bias).softmax(-1)
        found = centred(makers @ self.effects, place) / self.scales[0]
        if self.own is None or not self.share:
            return found
        return found + self.share * centred(_odds(self.own, embeddings), place) / self.scales[1]


def fit(features, values, groups: Sequence[Hashable], makers: Sequence[str], *, own: Head | None = None, share: float = 1.,
        pull: float = .03) -> Relative:
    """From embeddings `(n, d)`, values `(n,)`, the prompt and the maker of each; `pull` is the weight of the L2 norm (1 / C of
    scikit-learn) of the logistic regression that tells makers apart."""
    x = table(features)
    y = numbers(values, x).to(x)
    place, (names, maker) = _places(groups, len(x), x.device), np.unique(np.asarray(makers, str), return_inverse=True)
    if len(maker) != len(x) or len(names) < 2:
        raise UserError("a relative reading is fitted to two makers or more, one for each embedding.")
    seen = centred(x, place)
    one_hot = np.eye(len(names))[maker]
    weight, bias = logistic(seen.double().cpu().numpy(), one_hot, np.ones(len(x)), pull)
    effects = torch.from_numpy(one_hot.T @ centred(y, place).double().cpu().numpy() / one_hot.sum(0)).to(x)
    weight, bias = (torch.from_numpy(part).to(x) for part in (weight, bias))
    parts = [(seen @ weight.T + bias).softmax(-1) @ effects] + ([] if own is None else [_odds(own, x)])
    spreads = [max(float(centred(part, place).std()), 1e-12) for part in parts]
    return Relative(weight, bias, effects, (spreads[0], spreads[-1]), own, share)


def centred(values: Tensor, place: Tensor) -> Tensor:
    """`(n, ...)` without the mean of each group; `place` `(n,)` numbers the groups."""
    count = place.bincount().to(values)
    mean = values.new_zeros(len(count), *values.shape[1:]).index_add(0, place, values)
    return values - (mean / count.view(-1, *[1] * (values.dim() - 1)))[place]


def _odds(head: Head, embeddings: Tensor) -> Tensor:
    logits = head.logits(embeddings)
    return logits[:, 1] - logits[:, 0]


def _places(groups: Sequence[Hashable], count: int, device: torch.device) -> Tensor:
    if len(groups) != count:
        raise UserError(f"there are {count} embeddings and {len(groups)} groups; each embedding needs one.")
    return torch.from_numpy(np.unique([str(name) for name in groups], return_inverse=True)[1]).to(device)
