"""A head over feature maps: how damaged each patch of an image is, and in which way."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from probes.errors import UserError
from probes.heads import card
from probes.probe import NOT_VALIDATED

Weights = dict[str, Tensor]
POWER = 3  # of the mean over patches: a small damaged place counts nearly as much as a large one
POOLED = 4  # cells of the maps, in each direction, that make a patch
NAMES = ("centre", "spread", "in.weight", "in.bias", "context.weight", "near.weight", "near.bias", "out.weight", "out.bias")


@dataclass(frozen=True, eq=False)
class Patch:
    """A small convolutional network on `textures` of the maps of `stages` of one encoder; `kinds` of damage; frozen, differentiable.

    `exponent` turns the pooled map into the score; `alarm` is the score above which an image counts as damaged; `side` is the edge in
    pixels of the images that it learned from.
    """

    kind: ClassVar[str] = "patch"

    weights: Weights
    stages: tuple[str, ...]
    kinds: tuple[str, ...]
    exponent: float = 1.
    temperature: float = 1.
    alarm: float = 1.
    side: int = 128
    reliability: str = NOT_VALIDATED

    def __post_init__(self):
        if set(NAMES) - set(self.weights) or len(self.weights["out.bias"]) != len(self.kinds) + 1:
            raise UserError("a head over patches needs all of its weights, and a row of the last ones for each kind of damage.")
        if not 0 < self.temperature < float("inf") or not 0 < self.exponent < float("inf"):
            raise UserError("a head over patches needs a temperature and an exponent above 0.")

    def severity(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps by stage to the severity `(n, h, w)` of each patch, in [0, 1]."""
        return self._outputs(maps)[0]

    def pooled(self, severity: Tensor) -> Tensor:
        """Severities `(n, h, w)` of patches to one score `(n,)` in [0, 1], on the scale of the severities that were measured."""
        return 1 - (1 - pool(severity)) ** self.exponent

    def score(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps by stage to the severity `(n,)` of the damage: its measured change of pixels, 1 for a fifth of their range or more."""
        return self.pooled(self.severity(maps))

    def probabilities(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps by stage to the calibrated probability `(n, k)` of each kind, given that the image is damaged at all."""
        return (attended(*self._outputs(maps)) / self.temperature).softmax(-1)

    def _outputs(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        seen = textures(maps, self.stages)
        if seen.shape[1] != len(self.weights["centre"]):
            raise UserError("the head over patches reads the maps of another encoder; take one that was fitted to this encoder.")
        return outputs(self.weights, seen)


def textures(maps: dict[str, Tensor], stages: tuple[str, ...]) -> Tensor:
    """What each patch of the maps looks like: `(n, 4 c, h / POOLED, w / POOLED)` for stages of one size with c channels in all.

    Each channel's mean, and the logarithm of its energy above the local mean in the patch, in 3 x 3 and in 7 x 7 patches around it:
    damage raises or lowers fine energy in one place, whichever way the brush went.
    """
    found = torch.cat([maps[stage] for stage in stages], 1)
    energy = F.avg_pool2d((found - _smooth(found, 3)).square(), POOLED)
    return torch.cat([F.avg_pool2d(found, POOLED), *((_smooth(energy, size) + 1e-4).log() for size in (1, 3, 7))], 1)


def outputs(weights: Weights, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Textures `(n, d, h, w)` to severity `(n, h, w)` in [0, 1] and logits of the kinds `(n, k, h, w)`.

    The mean over the image is read apart: what all of it shares (a soft photograph, a coarse brush) is told from what one place shows.
    """
    seen = (seen - weights["centre"][:, None, None]) / weights["spread"][:, None, None]
    shared = seen.mean((2, 3), keepdim=True)
    hidden = F.gelu(F.conv2d(seen - shared, weights["in.weight"], weights["in.bias"]) + F.conv2d(shared, weights["context.weight"]))
    hidden = hidden + F.gelu(F.conv2d(hidden, weights["near.weight"], weights["near.bias"], padding=1))
    out = F.conv2d(hidden, weights["out.weight"], weights["out.bias"])
    return out[:, 0].sigmoid().square(), out[:, 1:]  # squared: slight damage is learned as finely as severe


def pool(severity: Tensor) -> Tensor:
    """The power mean of severities `(n, h, w)` over patches: `(n,)`."""
    return severity.clamp_min(1e-6).pow(POWER).mean((1, 2)).pow(1 / POWER)


def attended(severity: Tensor, logits: Tensor) -> Tensor:
    """Logits `(n, k, h, w)` averaged to `(n, k)`, weighted by the squares of the severities: the kind is read where the damage is."""
    weight = severity.square()
    return (logits * (weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-12))[:, None]).sum((2, 3))


def initial(centre: Tensor, spread: Tensor, kinds: int, width: int, generator: Generator) -> Weights:
    """Random weights for textures with these means and standard deviations `(d,)`; the patches start out as nearly whole."""
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / torch.tensor(shape[1:]).prod().sqrt()

    bias = torch.zeros(kinds + 1)
    bias[0] = -1.
    return {"centre": centre, "spread": spread, "in.weight": normal(width, len(centre), 1, 1), "in.bias": torch.zeros(width),
            "context.weight": 0.3 * normal(width, len(centre), 1, 1), "near.weight": normal(width, width, 3, 3),
            "near.bias": torch.zeros(width), "out.weight": 0.3 * normal(kinds + 1, width, 1, 1), "out.bias": bias}


def load(stem: Path, device: str | torch.device = "cpu") -> Patch:
    """The head in `<stem>.safetensors` with its card `<stem>.json`. UserError where either is damaged."""
    table = card.read(stem)
    try:
        stages, kinds = tuple(map(str, table["stages"])), tuple(map(str, table["kinds"]))
        numbers = {name: float(table[name]) for name in ("exponent", "temperature", "alarm")}
        side = int(table["side"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the card {stem}.json is damaged: it lacks or garbles {error}.") from None
    return Patch(card.tensors(stem, NAMES, device), stages, kinds, **numbers, side=side, reliability=card.reliability(stem))


def _smooth(x: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
