"""The brushwork and the colours that a picture is to have: of a style's typical paintings, or of reference pictures, at every size."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guide.transfer import brushwork, colour, statistics
from guide.transfer.brushwork import Painting
from guide.transfer.colour import Palette
from guide.transfer.statistics import Statistics
from probes import image
from probes.encoders import Encoder

Order = Callable[[str, list[Painting]], list[Painting]]


@dataclass(frozen=True, eq=False)
class Target:
    """`at(short)`: statistics and their spread for a picture whose shorter side has so many pixels; `palette`; `said`: what it is."""

    at: Callable[[int], tuple[Statistics, Statistics]]
    palette: Palette
    said: tuple[str, ...]
    gram: bool = False


@dataclass(frozen=True, eq=False)
class _References:
    """Pictures with weights, read at each size once."""

    encoder: Encoder
    pictures: Sequence[Tensor]
    weights: Sequence[float]
    photo: Tensor
    gram: bool
    read: dict[int, tuple[Statistics, Statistics]] = field(default_factory=dict)

    @torch.no_grad()
    def at(self, short: int) -> tuple[Statistics, Statistics]:
        if short not in self.read:
            wanted = list(statistics.stages(self.encoder))
            found = [statistics.measured(self.encoder, shrunk(one, short), wanted, gram=self.gram) for one in self.pictures]
            own = statistics.measured(self.encoder, shrunk(self.photo, short), wanted)
            self.read[short] = statistics.mean(found, self.weights), statistics.pooled([*found, own])
        return self.read[short]


def of_references(encoder: Encoder, pictures: Sequence[Tensor], weights: Sequence[float], photo: Tensor, gram: bool,
                  names: Sequence[str]) -> Target:
    """Reference pictures `(1, 3, h, w)`, mixed by weight; read at the picture's own size, so that strokes keep their share of it."""
    palettes = colour.mean([colour.palette(one) for one in pictures], torch.tensor(list(weights), device=photo.device))
    return Target(_References(encoder, pictures, weights, photo, gram).at, palettes, tuple(names), gram)


def of_styles(encoder: Encoder, styles: Sequence[tuple[str, float]], photo: Tensor, rank: int = 0, order: Order | None = None
              ) -> Target | None:
    """A typical painting of each style, the first in `order` (default: by nearness of colour to the photograph), or by `rank` the next
    ones, in a circle; None where none of the styles was learned."""
    colours = colour.palette(photo)
    known = [(style, weight, brushwork.paintings(encoder, style)) for style, weight in styles]
    chosen = [(style, weight, (order(style, some) if order else brushwork.nearest(some, colours))[rank % len(some)], len(some))
              for style, weight, some in known if some]
    if not chosen:
        return None
    weights = [weight for _, weight, _, _ in chosen]

    def at(short: int) -> tuple[Statistics, Statistics]:
        read = [one.at(short) for _, _, one, _ in chosen]
        return statistics.mean([found for found, _ in read], weights), read[0][1]
    palettes = colour.mean([one.palette for _, _, one, _ in chosen], torch.tensor(weights, device=photo.device))
    by = "what the style reads as in its colours" if order else "nearness of colour"
    said = tuple(f"{style}, painting {rank % count + 1} of {count} by {by}" for style, _, _, count in chosen)
    return Target(at, palettes, said)


def mixed(several: Sequence[Target], weights: Sequence[float]) -> Target:
    """References and styles together."""
    if len(several) == 1:
        return several[0]

    def at(short: int) -> tuple[Statistics, Statistics]:
        read = [one.at(short) for one in several]
        return statistics.mean([found for found, _ in read], weights), read[0][1]
    palettes = colour.mean([one.palette for one in several], torch.tensor(list(weights)))
    return Target(at, palettes, tuple(line for one in several for line in one.said), all(one.gram for one in several))


def shrunk(picture: Tensor, short: int) -> Tensor:
    """With at most `short` pixels on the shorter side; never enlarged."""
    height, width = picture.shape[-2:]
    share = short / min(height, width)
    return picture if share >= 1 else image.resize(picture, (max(round(height * share), 1), max(round(width * share), 1)), "bilinear")
