"""A head made of words (arXiv:2103.00020, section 3.1.4): per label the mean of its prompts' text embeddings, renormalised."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.heads.linear import Linear
from probes.probe import NOT_VALIDATED

if TYPE_CHECKING:
    from probes.encoders import Encoder


def prototypes(encoder: Encoder, prompts: Sequence[Sequence[str]]) -> Tensor:
    """One normalised prototype `(m, d)` for each of m groups of prompts."""
    embeddings = encoder.text([prompt for group in prompts for prompt in group]).split([len(group) for group in prompts])
    return F.normalize(torch.stack([group.mean(0) for group in embeddings]), dim=-1)


def zero_shot(encoder: Encoder, prompts: Mapping[str, Sequence[str]], reliability: str = NOT_VALIDATED) -> Linear:
    """The labels of `prompts` as a linear head: logits are the encoder's own scale times the cosine to each prototype."""
    weight = encoder.logit_scale * prototypes(encoder, list(prompts.values()))
    return Linear(weight, weight.new_zeros(len(weight)), tuple(prompts), reliability=reliability)
