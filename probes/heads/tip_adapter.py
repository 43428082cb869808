"""Tip-Adapter (arXiv:2207.09519): the prototypes' logits plus a vote of the labelled images that resemble this one."""
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
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class TipAdapter:
    """`(weight f + alpha exp(-beta (1 - keys f)) values) / temperature`: `weight` `(k, d)`, `keys` `(m, d)`, `values` `(m, k)`."""

    kind: ClassVar[str] = "tip-adapter"

    weight: Tensor
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
        if self.keys.shape[-1:] != self.weight.shape[-1:] or self.values.shape != (len(self.keys), len(self.labels)):
            raise UserError("a cache needs keys as wide as the weights, and for each key a value per label.")

    def logits(self, embeddings: Tensor) -> Tensor:
        """Calibrated logits `(n, k)` of normalised embeddings `(n, d)`."""
        f = fitting(embeddings, self.weight.shape[-1])
        votes = affinity(f @ self.keys.to(f).T, self.beta) @ self.values.to(f)
        return (f @ self.weight.to(f).T + self.alpha * votes) / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Calibrated probabilities `(n, k)` that sum to 1."""
        return self.logits(embeddings).softmax(-1)


def affinity(cosines: Tensor, beta: float) -> Tensor:
    """How much a key has to say: 1 where it is the image itself, falling off with `beta`."""
    return (-beta * (1 - cosines)).exp()


@torch.inference_mode(False)
def fit(features, labels, names, *, text=None, alpha: float = 1., beta: float = 5.5, scale: float = 100., shots: int | None = None,
        seed: int = 0) -> TipAdapter:
    """Keys are the examples, values their one-hot labels. No training.

    `alpha` weighs the vote, `beta` narrows it (the paper's 1 and 5.5). Votes are summed, so with very different numbers of examples the
    frequent labels win: `shots` keeps as many of each, drawn with `seed`.
    """
    given = examples(features, labels, names, text, unit=True)
    keys, values = given.few(shots, seed)
    return TipAdapter(scale * given.prototypes, keys, values, given.names, alpha, beta, prototypes=given.origin)


@torch.inference_mode(False)
def fit_keys(features, labels, names, *, text=None, alpha: float = 1., beta: float = 5.5, scale: float = 100., shots: int | None = None,
             epochs: int = 20, learning_rate: float = .001, seed: int = 0) -> TipAdapter:
    """Tip-Adapter-F: the keys are trained by AdamW on the cross-entropy of their own images.

    The paper trains on augmented views of those images. Embeddings have no views, and a key would answer for its own image, so each image's
    own key is left out while it trains.
    """
    head = fit(features, labels, names, text=text, alpha=alpha, beta=beta, scale=scale, shots=shots, seed=seed)
    f, y = head.keys, head.values.argmax(1)
    prior = f @ head.weight.T

    def loss(rows: Tensor, keys: Tensor) -> Tensor:
        votes = affinity(f[rows] @ keys.T, beta) * (rows[:, None] != torch.arange(len(f), device=f.device))
        return F.cross_entropy(prior[rows] + alpha * votes @ head.values, y[rows])

    keys, = descend([head.keys], loss, len(f), epochs=epochs, learning_rate=learning_rate, eps=1e-4, weight_decay=.01, seed=seed)
    return TipAdapter(head.weight, keys, head.values, head.labels, alpha, beta, prototypes=head.prototypes)
