"""What stands for a style where no reference is given: statistics of a few typical paintings that ship for the embedded encoder."""
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from guide.transfer.colour import Palette
from guide.transfer.statistics import Statistics
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card

SIZES = (144, 72)  # pixels a side at which the paintings were read


@dataclass(frozen=True, eq=False)
class Painting:
    """One painting as statistics, by the size it was read at, and its palette; `spread`: the units of distance, at each size."""

    statistics: dict[int, Statistics]
    spread: dict[int, Statistics]
    palette: Palette

    def at(self, short: int) -> tuple[Statistics, Statistics]:
        """Statistics and spread that suit a picture whose shorter side has so many pixels: strokes are as large as on the painting, or,
        on a larger picture, finer ones of the same kind."""
        size = min(SIZES, key=lambda size: abs(torch.log(torch.tensor(size / short))))
        return self.statistics[size], self.spread[size]


def paintings(encoder: Encoder, style: str) -> list[Painting]:
    """Those that stand for the style; none where it was not learned, or for another encoder than the embedded one."""
    stem = card.shipped("brushwork", encoder)
    return list(_all(stem, encoder.device).get(style, ())) if stem else []


def between_paintings(encoder: Encoder) -> dict[str, float]:
    """How far one painting is from another in the encoder's eyes, by distance of `content.UNASKED`, medians: as the card of the brushwork
    says. Photographs lie as far apart (six of scikit-image and scikit-learn: within .05 of it). Nothing where no card says it."""
    stem = card.shipped("brushwork", encoder)
    told = card.read(stem).get("between paintings", {}) if stem else {}
    if not isinstance(told, dict) or not all(isinstance(value, int | float) for value in told.values()):
        raise UserError(f"the card {stem}.json is damaged: how far paintings lie apart has to be numbers by distance; reinstall.")
    return told


def nearest(candidates: list[Painting], colours: Palette) -> list[Painting]:
    """The paintings in order of how near their palettes are to a picture's, by mean and by the deviation of brightness: a map between
    palettes that are alike keeps shadows and lights apart."""
    def apart(one: Painting) -> float:
        mean = (one.palette.mean - colours.mean).square().sum()
        deviation = one.palette.covariance.diagonal().clamp_min(0).sqrt() - colours.covariance.diagonal().clamp_min(0).sqrt()
        return float(mean + deviation.square().sum())
    return sorted(candidates, key=apart)


@lru_cache(maxsize=2)
def _all(stem: Path, device: torch.device) -> dict[str, tuple[Painting, ...]]:
    table = card.read(stem)
    labels, count = table.get("labels"), table.get("paintings")
    stages = table.get("stages") or ["conv1", "conv3", "layer1", "layer2", "layer3"]
    if not (isinstance(labels, list) and isinstance(count, int)):
        raise UserError(f"the card {stem}.json is damaged: it does not say which styles and how many paintings it holds; reinstall.")
    names = [f"{size} {stage} {kind}" for size in SIZES for stage in stages for kind in ("mean", "deviation", "spread")]
    held = card.tensors(stem, (*names, "palette mean", "palette covariance"), device)
    spread = {size: _statistics({stage: held[f"{size} {stage} spread"] for stage in stages}) for size in SIZES}

    def one(style: int, number: int) -> Painting:
        read = {size: Statistics(*({stage: held[f"{size} {stage} {kind}"][style, number] for stage in stages}
                                   for kind in ("mean", "deviation")), {}) for size in SIZES}
        return Painting(read, spread, Palette(held["palette mean"][style, number], held["palette covariance"][style, number]))
    return {label: tuple(one(style, number) for number in range(count)) for style, label in enumerate(labels)}


def _statistics(spread: dict[str, Tensor]) -> Statistics:
    return Statistics({stage: torch.zeros_like(value) for stage, value in spread.items()}, spread, {})
