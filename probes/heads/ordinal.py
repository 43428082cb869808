"""A head over ordered bins: a softmax over bin centres, its mean, and a monotone recalibration of that mean."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from probes.heads import card
from probes.probe import NOT_VALIDATED

LEAST_SLOPE = .1


@dataclass(frozen=True, eq=False)
class Ordinal:
    """`weight` `(m, d)` and `bias` `(m,)` over m rising `centres`; recalibration knots `(r,)`, none for none."""

    weight: Tensor
    bias: Tensor
    centres: Tensor
    recalibration_x: Tensor
    recalibration_y: Tensor
    temperature: float = 1.
    reliability: str = NOT_VALIDATED

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """`(n, d)` to the probability of each bin `(n, m)`."""
        return ((embeddings @ self.weight.T + self.bias) / self.temperature).softmax(-1)

    def expected(self, embeddings: Tensor) -> Tensor:
        """`(n, d)` to the recalibrated mean over the bins `(n,)`, in the unit of the centres."""
        return self.recalibrated(self.probabilities(embeddings) @ self.centres)

    def recalibrated(self, values: Tensor) -> Tensor:
        """Piecewise linear between the knots, constant beyond them.

        On a flat piece the gradient takes a slope of `LEAST_SLOPE` instead of 0, so that an image that reads there can still be steered.
        """
        if len(self.recalibration_x) < 2:
            return values
        x, y = self.recalibration_x, self.recalibration_y
        inside = values.detach().clamp(x[0], x[-1])
        piece = (torch.searchsorted(x, inside, right=True) - 1).clamp(0, len(x) - 2)
        slope = ((y[1:] - y[:-1]) / (x[1:] - x[:-1]).clamp_min(1e-6))[piece]
        exact = y[piece] + slope * (inside - x[piece])
        return exact + slope.clamp_min(LEAST_SLOPE) * (values - values.detach())

    def span(self, embeddings: Tensor, share: float = .8) -> tuple[Tensor, Tensor]:
        """The central `share` of each distribution, shifted as the recalibration shifts its mean and never leaving it out: two `(n,)`."""
        probabilities = self.probabilities(embeddings)
        mean = probabilities @ self.centres
        shift = self.recalibrated(mean) - mean
        low, high = (self._quantile(probabilities, q) for q in ((1 - share) / 2, (1 + share) / 2))
        return torch.minimum(low, mean) + shift, torch.maximum(high, mean) + shift

    def _quantile(self, probabilities: Tensor, q: float) -> Tensor:
        middle = (self.centres[1:] + self.centres[:-1]) / 2
        edges = torch.cat([2 * self.centres[:1] - middle[:1], middle, 2 * self.centres[-1:] - middle[-1:]])
        cumulative = probabilities.cumsum(-1)
        place = (cumulative < q).sum(-1, keepdim=True).clamp(max=len(self.centres) - 1)
        inside = probabilities.gather(-1, place)
        before = cumulative.gather(-1, place) - inside
        fraction = ((q - before) / inside.clamp_min(1e-12)).clamp(0, 1)
        return (edges[place] + fraction * (edges[place + 1] - edges[place]))[:, 0]


def load(stem: Path, device: torch.device) -> Ordinal:
    """The head in `<stem>.safetensors` with its card `<stem>.json`."""
    names = ("weight", "bias", "centres", "recalibration_x", "recalibration_y")
    return Ordinal(**card.tensors(stem, names, device), temperature=float(card.read(stem).get("temperature", 1.)),
                   reliability=card.reliability(stem))
