"""Heads made of words (arXiv:2103.00020, section 3.1.4): per label the mean of its prompts' text embeddings, renormalised."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.errors import UserError
from probes.heads.examples import TEXT, examples
from probes.heads.head import checked_labels, fitting
from probes.heads.linear import Linear
from probes.probe import NOT_VALIDATED

if TYPE_CHECKING:
    from probes.encoders import Encoder


def prototypes(encoder: Encoder, prompts: Sequence[Sequence[str]]) -> Tensor:
    """One normalised prototype `(m, d)` for each of m groups of prompts."""
    if not all(len(group) for group in prompts):
        raise UserError("a label without prompts cannot be read by words; give each at least one.")
    embeddings = encoder.text([prompt for group in prompts for prompt in group]).split([len(group) for group in prompts])
    return F.normalize(torch.stack([group.mean(0) for group in embeddings]), dim=-1)


def zero_shot(encoder: Encoder, prompts: Mapping[str, Sequence[str]], reliability: str = NOT_VALIDATED) -> Linear:
    """The labels of `prompts` as a linear head: logits are the encoder's own scale times the cosine to each prototype."""
    weight = encoder.logit_scale * prototypes(encoder, list(prompts.values()))
    return Linear(weight, weight.new_zeros(len(weight)), tuple(prompts), reliability=reliability, prototypes=TEXT)


@torch.inference_mode(False)
def fit(features, labels, names, *, text=None, scale: float = 100.) -> Linear:
    """`scale` times the cosine to each text prototype; examples are checked and take part only where class means stand in for text."""
    given = examples(features, labels, names, text, unit=True)
    weight = scale * given.prototypes
    return Linear(weight, weight.new_zeros(len(weight)), given.names, prototypes=given.origin)


@dataclass(frozen=True, eq=False)
class Antonyms:
    """Pairs of opposites (CLIP-IQA, arXiv:2207.12396): each label is the softmax over its own pair, independent of the other labels.

    `positive` and `negative`, `(k, d)`, are the scaled prototypes of "sharp" and of "blurry".
    """

    kind: ClassVar[str] = "antonyms"

    positive: Tensor
    negative: Tensor
    labels: tuple[str, ...]
    temperature: float = 1.
    reliability: str = NOT_VALIDATED
    prototypes: str = TEXT

    def __post_init__(self):
        checked_labels(self.labels, len(self.positive) if self.positive.shape == self.negative.shape else -1, self.temperature)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Log-odds `(n, k)` of the positive word of each pair, of embeddings `(n, d)`."""
        return fitting(embeddings, self.positive.shape[-1]) @ (self.positive - self.negative).to(embeddings).T / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Probability `(n, k)` of the positive word of each pair: a softmax over two is the sigmoid of their difference."""
        return self.logits(embeddings).sigmoid()


def antonyms(encoder: Encoder, pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]], reliability: str = NOT_VALIDATED) -> Antonyms:
    """Label to (prompts of the word, prompts of its opposite), as `{"quality": (["Good photo."], ["Bad photo."])}`."""
    positive, negative = (encoder.logit_scale * prototypes(encoder, [pair[side] for pair in pairs.values()]) for side in (0, 1))
    return Antonyms(positive, negative, tuple(pairs), reliability=reliability)
