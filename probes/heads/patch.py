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


@dataclass(frozen=True, eq=False)
class Patch:
    """A small convolutional network on the maps of `stages` of one encoder; `kinds` of damage; frozen, differentiable.

    `exponent` turns the pooled map into the score; `alarm` is the score above which an image counts as damaged; `side` is the edge in pixels
    of the images that it learned from.
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
        missing = set(names(self.stages)) - set(self.weights)
        if missing or len(self.weights["out.bias"]) != len(self.kinds) + 1:
            raise UserError("a head over patches needs weights for each of its stages and a row for each kind of damage.")
        if not 0 < self.temperature < float("inf") or not 0 < self.exponent < float("inf"):
            raise UserError("a head over patches needs a temperature and an exponent above 0.")

    def severity(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps `(n, c, h, w)` by stage to the severity of each patch `(n, h, w)` in [0, 1], as fine as the finest stage."""
        return outputs(self.weights, self.stages, maps)[0]

    def pooled(self, severity: Tensor) -> Tensor:
        """The score `(n,)` in [0, 1] of severities `(n, h, w)`: see `pool`, on the scale of the severities that were measured."""
        return 1 - (1 - pool(severity)) ** self.exponent

    def score(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps by stage to the severity `(n,)` of the damage: its measured change of pixels, 1 for a fifth of their range or more."""
        return self.pooled(self.severity(maps))

    def probabilities(self, maps: dict[str, Tensor]) -> Tensor:
        """Maps by stage to the calibrated probability of each kind `(n, k)`, given that the image is damaged at all."""
        severity, logits = outputs(self.weights, self.stages, maps)
        return (attended(severity, logits) / self.temperature).softmax(-1)


def pool(severity: Tensor) -> Tensor:
    """The power mean of severities `(n, h, w)` over patches: `(n,)`."""
    return severity.clamp_min(1e-6).pow(POWER).mean((1, 2)).pow(1 / POWER)


def attended(severity: Tensor, logits: Tensor) -> Tensor:
    """Logits `(n, k, h, w)` averaged to `(n, k)` with the squares of the severities as weights: the kind is read where the damage is."""
    weight = severity.square()
    return (logits * (weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-12))[:, None]).sum((2, 3))


def names(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The tensors of a head over these stages."""
    return tuple(f"{stage}.weight" for stage in stages) + (
        "bias", "context.weight", "near.weight", "near.bias", "far.weight", "far.bias", "out.weight", "out.bias")


def initial(channels: dict[str, int], kinds: int, width: int, generator: Generator) -> Weights:
    """Random weights for stages with these numbers of channels; the patches start out as nearly whole."""
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / torch.tensor(shape[1:]).prod().sqrt()

    weights = {f"{stage}.weight": normal(width, count, 1, 1) for stage, count in channels.items()}
    weights |= {"bias": torch.zeros(width), "context.weight": normal(width, width, 1, 1)}
    for name in ("near", "far"):
        weights |= {f"{name}.weight": normal(width, width, 3, 3), f"{name}.bias": torch.zeros(width)}
    bias = torch.zeros(kinds + 1)
    bias[0] = -3.
    return weights | {"out.weight": 0.3 * normal(kinds + 1, width, 1, 1), "out.bias": bias}


def outputs(weights: Weights, stages: tuple[str, ...], maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Severity `(n, h, w)` in [0, 1] and logits of the kinds `(n, k, h, w)`, both at the resolution of the first stage.

    Each stage is projected, brought to that resolution and summed; the mean over the image is added to each patch, so that what the whole
    image shares (a soft photograph, a coarse brush) can be told from what one place shows; two 3 x 3 convolutions look around.
    """
    lacking = [stage for stage in stages if stage not in maps or maps[stage].shape[1] != weights[f"{stage}.weight"].shape[1]]
    if lacking:
        raise UserError(f"the head reads the map {lacking[0]} of another encoder; take a head that was fitted to this one.")
    size, hidden = maps[stages[0]].shape[-2:], weights["bias"][:, None, None]
    for stage in stages:
        seen = F.conv2d(maps[stage], weights[f"{stage}.weight"])
        hidden = hidden + (seen if seen.shape[-2:] == size else F.interpolate(seen, size, mode="bilinear", align_corners=False))
    hidden = F.gelu(hidden + F.conv2d(hidden.mean((2, 3), keepdim=True), weights["context.weight"]))
    hidden = hidden + F.gelu(F.conv2d(hidden, weights["near.weight"], weights["near.bias"], padding=1))
    hidden = hidden + F.gelu(F.conv2d(hidden, weights["far.weight"], weights["far.bias"], padding=2, dilation=2))
    out = F.conv2d(hidden, weights["out.weight"], weights["out.bias"])
    return out[:, 0].sigmoid().square(), out[:, 1:]  # squared: slight damage is learned as finely as severe


def load(stem: Path, device: str | torch.device = "cpu") -> Patch:
    """The head in `<stem>.safetensors` with its card `<stem>.json`. UserError where either is damaged."""
    table = card.read(stem)
    try:
        stages, kinds = tuple(map(str, table["stages"])), tuple(map(str, table["kinds"]))
        numbers = {name: float(table[name]) for name in ("exponent", "temperature", "alarm")}
        side = int(table["side"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the card {stem}.json is damaged: it lacks or garbles {error}.") from None
    weights = card.tensors(stem, names(stages), device)
    return Patch(weights, stages, kinds, **numbers, side=side, reliability=card.reliability(stem))
