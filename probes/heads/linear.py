"""A linear head: `p = softmax((W f + b) / T)` over labels, calibrated by its temperature."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from probes.errors import UserError
from probes.heads import card
from probes.probe import NOT_VALIDATED


@dataclass(frozen=True, eq=False)
class Linear:
    """`weight` `(k, d)`, `bias` `(k,)` over k `labels`."""

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]
    temperature: float = 1.
    reliability: str = NOT_VALIDATED

    def __post_init__(self):
        if self.weight.shape[0] != len(self.labels) or self.bias.shape != (len(self.labels),) or not self.temperature > 0:
            raise UserError(f"a head of {len(self.labels)} labels needs a weight row and a bias for each and a temperature above 0.")

    def logits(self, embeddings: Tensor) -> Tensor:
        """Calibrated logits `(n, k)` of embeddings `(n, d)`."""
        return (embeddings @ self.weight.T + self.bias) / self.temperature

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Calibrated probabilities `(n, k)` that sum to 1."""
        return self.logits(embeddings).softmax(-1)


def load(stem: Path, device: torch.device) -> Linear:
    """The head in `<stem>.safetensors` with its card `<stem>.json`."""
    table = card.read(stem)
    return Linear(**card.tensors(stem, ("weight", "bias"), device), labels=tuple(table["labels"]), temperature=float(table["temperature"]),
                  reliability=card.reliability(stem))
