"""The engine *pixels*: brushwork, colours and readings descended on the picture itself, the photograph held by constraints."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guide.brief import Brief
from guide.loops.pixels import Aim, Pace, paint
from guide.seeds import view_generators
from guide.transfer import colour, content, words
from guide.transfer.brushwork import Painting
from guide.transfer.colour import Palette
from guide.transfer.request import Request
from guide.transfer.target import Order, Target, mixed, of_references, of_styles
from probes import reference
from probes.constraints import Constraint
from probes.encoders import Encoder
from probes.style import StyleProbe

STEPS = 120
ROOM = .8  # of a constraint that the colours alone may use up
COLOURS = 1.  # what a unit of the palette's distance counts beside one of brushwork
CLIPPED = 10.  # log-odds that count against a palette which would drive all values of the photograph to black or white
SHARES = (1., .9, .8, .7, .6, .5, .4, .3, .2, .1)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Called with a photograph and a seed, it gives the picture `(1, 3, h, w)`, the trace, and what the picture is to say besides."""

    request: Request
    encoder: Encoder
    references: tuple[Tensor, ...]
    first: Tensor

    sampler = ""

    @classmethod
    def of(cls, request: Request, encoder: Encoder, photos: Sequence) -> "Pixels":
        references = tuple(reference.opened(path).to(encoder.device) for path, _ in request.references)
        return cls(request, encoder, references, photos[0].pixels)

    @property
    def steps(self) -> int:
        return STEPS if self.request.steps is None else self.request.steps

    @property
    def strength(self) -> float:
        return 1. if self.request.strength is None else self.request.strength

    def notes(self) -> list[str]:
        """What this run cannot do as well as asked."""
        if self.request.references or not self.request.brief.styles or self.target(self.first, 0):
            return []
        names = ", ".join(key for key, _ in self.request.brief.styles)
        return [f"No paintings stand for {names} with the encoder {self.encoder.name}: it goes by words alone, which say little about "
                "brushwork; --reference takes pictures of the style."]

    def __call__(self, photo, seed: int, on_step: Callable[[dict, Callable[[], Tensor]], None]) -> tuple[Tensor, list[dict], dict]:
        if self.strength == 0:
            return photo.pixels.cpu(), [], {}
        pixels, request = photo.pixels, self.request
        # Frames of one scene share what they are compared with, or they would flicker with it.
        scene = self.first if request.video else pixels
        target = self.target(scene, seed, None if request.preserve_color else self._by_reading(scene))
        constraints = content.constraints(self.encoder, pixels, request.keep)
        objective = words.objective(request.brief, self.encoder, pixels, target is not None)
        compose = partial(composed, photo=pixels, mask=photo.mask, preserve=request.preserve_color)
        aim = Aim(self.encoder, target, self.strength, objective, constraints=constraints, compose=compose, mask=photo.mask,
                  colours=0. if request.preserve_color else COLOURS)
        start = pixels
        if target is not None and not request.preserve_color:
            start = started(pixels, target.palette, self.strength, photo.mask, constraints)
        (generator,) = view_generators([seed])
        painted, trace = paint(pixels, start, aim, generator, Pace(self.steps), on_step=on_step)
        painted, share = held(painted, pixels, constraints)
        return painted.cpu(), trace, {"target": list(target.said) if target else [], "drawn_back": 1 - share}

    def _by_reading(self, photo: Tensor) -> Order:
        """The paintings in order of how clearly the photograph reads as the style in their colours, as far as the constraints let it.

        Readings of six palettes are often within a tenth of each other, and then the garish one would win by chance: what it drives to
        black or white counts against it.
        """
        small = content.fitted(photo)
        constraints = content.constraints(self.encoder, small, self.request.keep)

        def order(style: str, paintings: list[Painting]) -> list[Painting]:
            measure = StyleProbe(self.encoder).aim(Brief(styles=((style, 1.),)))
            coloured = [started(small, one.palette, self.strength, None, constraints) for one in paintings]
            with torch.no_grad():
                scores = [float(score) - CLIPPED * max(clipped(one) - clipped(small), 0.)
                          for score, one in zip(measure(torch.cat(coloured)), coloured, strict=True)]
            return [paintings[k] for k in sorted(range(len(paintings)), key=lambda k: -scores[k])]
        return order

    def target(self, pixels: Tensor, seed: int, order: Order | None = None) -> Target | None:
        """Of the references, of the styles, or of both at even weights."""
        request = self.request
        found = []
        if self.references:
            said = [path.rpartition("/")[2] for path, _ in request.references]
            found.append(of_references(self.encoder, self.references, [weight for _, weight in request.references], pixels,
                                       request.statistics == "gram", said))
        if styled := of_styles(self.encoder, request.brief.styles, pixels, seed, order):
            found.append(styled)
        return mixed(found, [1.] * len(found)) if found else None


def clipped(picture: Tensor) -> float:
    """The share of values that are black or white, 0 to 1."""
    return float(((picture <= 0) | (picture >= 1)).float().mean())


@torch.no_grad()
def started(photo: Tensor, palette: Palette, strength: float, mask: Tensor | None, constraints: Mapping[str, Constraint]) -> Tensor:
    """The photograph in other colours, as far toward them as the constraints leave room: descent that has to climb back first loses the
    brushwork on the way."""
    own = colour.palette(photo, mask)
    for share in SHARES:
        start = colour.mapped(photo, own, own.toward(palette, share * min(strength, 1.)))
        if all(float(one.measure(start)) <= ROOM * one.bound for one in constraints.values()):
            return start
    return photo


@torch.no_grad()
def held(painted: Tensor, photo: Tensor, constraints: Mapping[str, Constraint], halvings: int = 7) -> tuple[Tensor, float]:
    """The picture, mixed with the photograph as little as brings it within every constraint, as 8 bits hold it; and its share of the mix.

    Multipliers leave a bound broken by a little where descent ends; a bound that was asked for is a promise.
    """
    def within(share: float) -> bool:
        mix = (255 * (photo + share * (painted - photo))).round() / 255
        return all(bool(one.holds(one.measure(mix)).all()) for one in constraints.values())
    if within(1.):
        return painted, 1.
    low, high = 0., 1.
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return photo + low * (painted - photo), low


def composed(images: Tensor, photo: Tensor, mask: Tensor | None, preserve: bool) -> Tensor:
    """The photograph's colours and mean brightness over the canvas's lights and darks, and the photograph itself outside of the mask; at
    any size of the images."""
    if preserve:
        own = _as(photo, images)
        images = colour.recoloured(colour.lit(images, own, None if mask is None else _as(mask, images)), own)
    if mask is not None:
        mask = _as(mask, images)
        images = mask * images + (1 - mask) * _as(photo, images)
    return images


def _as(other: Tensor, images: Tensor) -> Tensor:
    size = tuple(images.shape[-2:])
    if tuple(other.shape[-2:]) == size:
        return other
    return torch.nn.functional.interpolate(other, size, mode="bilinear", antialias=True, align_corners=False)
