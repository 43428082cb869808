"""APE and APE-T (arXiv:2304.01195): Tip-Adapter's cache in the channels that tell labels apart, each key weighed by its divergence."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.errors import UserError
from probes.heads.descent import descend
from probes.heads.examples import examples
from probes.heads.head import checked_labels, fitting
from probes.heads.tip_adapter import affinity
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class Ape:
    """`(weight f + alpha exp(-beta (1 - keys f')) values) / temperature`, `f'` the `channels` `(q,)` of f, renormalised.

    `weight` `(k, d)`, `keys` `(m, q)`, `values` `(m, k)`.
    """

    kind: ClassVar[str] = "ape"

    weight: Tensor
    channels: Tensor
    keys: Tensor
    values: Tensor
    labels: tuple[str, ...]
    alpha: float
    beta: float
    temperature: float = 1.
    reliability: str = NOT_VALIDATED
    prototypes: str = ""

    def __post_init__(self):
        checked_labels(self.labels, len(self.weight), self.temperature)
        inside = self.channels.dtype == torch.int64 and bool(((self.channels >= 0) & (self.channels < self.weight.shape[-1])).all())
        if not inside or self.keys.shape[-1:] != self.channels.shape or self.values.shape != (len(self.keys), len(self.labels)):
            raise UserError("a refined cache needs channels of the embedding, keys of that width, and for each key a value per label.")

    def logits(self, embeddings: Tensor) -> Tensor:
        """Calibrated logits `(n, k)` of normalised embeddings `(n, d)`."""
        f = fitting(embeddings, self.weight.shape[-1])
        refined = F.normalize(f[:, self.channels], dim=-1)
        votes = affinity(refined @ self.keys.to(f).T, self.beta) @ self.values.to(f)
        return (f @ self.weight.to(f).T + self.alpha * votes) / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Calibrated probabilities `(n, k)` that sum to 1."""
        return self.logits(embeddings).softmax(-1)


def criterion(prototypes: Tensor, weights: tuple[float, float]) -> Tensor:
    """`J_d = -w0 S_d + w1 V_d` `(d,)` of prototypes `(k, d)`: S the mean product between different labels, V the variance over labels.

    S is the mean over the `k (k - 1)` ordered pairs and V is unbiased (over k - 1), both as in the paper's code. Prototypes alone enter,
    one a label, as in that code for APE-T; for APE it takes the keys into S as well.
    """
    k = len(prototypes)
    pairs = prototypes.sum(0).square() - prototypes.square().sum(0)
    return -weights[0] * pairs / (k * (k - 1)) + weights[1] * prototypes.var(0, unbiased=True)


@torch.inference_mode(False)
def fit(features, labels, names, *, text=None, alpha: float = 2., beta: float = 1., gamma: float = .1,
        weights: tuple[float, float] = (.7, .3), channels: int | None = None, scale: float = 100., shots: int | None = None,
        seed: int = 0) -> Ape:
    """Keys are the examples in the `channels` channels of the highest J, 7 in 10 unless given; values their labels times `exp(gamma KL)`.

    `alpha` weighs the vote and `beta` narrows it; `gamma` gives more say to keys that the prototypes get wrong; `weights` are `w0, w1`.
    `shots` keeps as many examples of each label, drawn with `seed`: votes are summed, so frequent labels win otherwise (11 styles of 884
    paintings by unseen artists: balanced accuracy .26 with all, .65 with 16 each, class means for text). No training.
    """
    given = examples(features, labels, names, text, unit=True)
    width = given.features.shape[1]
    channels = max(1, round(.7 * width)) if channels is None else channels
    if not 1 <= channels <= width:
        raise UserError(f"the embeddings have {width} channels, so from 1 to {width} can be kept, not {channels}.")
    kept = criterion(given.prototypes, weights).topk(channels).indices.sort().values
    keys, one_hot = given.few(shots, seed)
    keys, refined = F.normalize(keys[:, kept], dim=-1), F.normalize(given.prototypes[:, kept], dim=-1)
    # KL of a one-hot label and p is -log p of that label, in nats. The paper's code takes bits: its gamma is this one times ln 2.
    divergence = -((keys @ refined.T).log_softmax(-1) * one_hot).sum(1, keepdim=True)
    values = one_hot * (gamma * divergence).exp()
    return Ape(scale * given.prototypes, kept, keys, values, given.names, alpha, beta, prototypes=given.origin)


@torch.inference_mode(False)
def fit_residuals(features, labels, names, *, text=None, alpha: float = 2., beta: float = 1., gamma: float = .1,
                  weights: tuple[float, float] = (.2, .8), channels: int | None = None, scale: float = 100., shots: int | None = None,
                  epochs: int = 20, learning_rate: float = .001, seed: int = 0) -> Ape:
    """APE-T: one residual per label `(k, q)`, added to its prototype and its keys, and a weight per key, trained by AdamW from APE's.

    Residuals move keys and prototypes, which are not renormalised, as in the paper's code. That trains on augmented views; embeddings have
    none, so here each image's own key is left out while it trains. Keys stay in the chosen channels, where that code keeps all of them.
    """
    head = fit(features, labels, names, text=text, alpha=alpha, beta=beta, gamma=gamma, weights=weights, channels=channels, scale=scale,
               shots=shots, seed=seed)
    f, one_hot = examples(features, labels, names, text, unit=True).few(shots, seed)
    y, others = one_hot.argmax(1), ~torch.eye(len(f), dtype=torch.bool, device=f.device)

    def moved(residual: Tensor, key_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padded = torch.zeros_like(head.weight).index_copy(1, head.channels, scale * residual)
        return head.weight + padded, head.keys + residual[y], one_hot * key_weights

    def loss(rows: Tensor, residual: Tensor, key_weights: Tensor) -> Tensor:
        weight, keys, values = moved(residual, key_weights)
        votes = affinity(head.keys[rows] @ keys.T, beta) * others[rows]
        return F.cross_entropy(f[rows] @ weight.T + alpha * votes @ values, y[rows])

    start = [head.keys.new_zeros(len(head.labels), len(head.channels)), head.values.sum(1, keepdim=True)]
    trained = descend(start, loss, len(f), epochs=epochs, learning_rate=learning_rate, eps=.001, weight_decay=.1, seed=seed)
    weight, keys, values = moved(*trained)
    return Ape(weight, head.channels, keys, values, head.labels, alpha, beta, prototypes=head.prototypes)
