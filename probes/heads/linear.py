"""A linear head: `p = softmax((W f + b) / T)` over labels, calibrated by its temperature."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from probes.errors import UserError
from probes.heads import card
from probes.heads.head import Head, affine, checked_labels
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class Linear:
    """`weight` `(k, d)`, `bias` `(k,)` over k `labels`."""

    kind: ClassVar[str] = "linear"

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]
    temperature: float = 1.
    reliability: str = NOT_VALIDATED
    prototypes: str = ""

    def __post_init__(self):
        checked_labels(self.labels, len(self.weight) if self.bias.shape == self.weight.shape[:1] else -1, self.temperature)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Calibrated logits `(n, k)` of embeddings `(n, d)`."""
        return affine(embeddings, self.weight, self.bias) / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Calibrated probabilities `(n, k)` that sum to 1."""
        return self.logits(embeddings).softmax(-1)


def load(stem: Path, device: torch.device) -> Head:
    """The head over labels in `<stem>.safetensors` with its card `<stem>.json`: a `Linear` unless the card names another."""
    head = card.load(stem, device, absent=Linear.kind)
    if not hasattr(head, "logits"):
        raise UserError(f"the head {stem} reads years and not labels; give the path of another one.")
    return head
