"""The engine *pixels*: brushwork, colours and readings descended on the picture itself, the photograph held by constraints."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guide.loops.pixels import Aim, Pace, paint
from guide.seeds import view_generators
from guide.transfer import colour, content, words
from guide.transfer.request import Request
from guide.transfer.target import Target, mixed, of_references, of_styles
from probes import image
from probes.constraints import Constraint
from probes.encoders import Encoder

STEPS = 120
ROOM = .5  # of a constraint that the colours alone may use up
SHARES = (1., .8, .6, .4, .2)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Called with a photograph and a seed, it gives the picture `(1, 3, h, w)`, the trace, and what the picture is to say besides."""

    request: Request
    encoder: Encoder
    references: tuple[Tensor, ...]
    first: Tensor

    @classmethod
    def of(cls, request: Request, encoder: Encoder, photos: Sequence) -> "Pixels":
        references = tuple(image.load(path).to(encoder.device) for path, _ in request.references)
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
        target = self.target(self.first if request.video else pixels, seed)
        constraints = content.constraints(self.encoder, pixels, request.keep)
        objective = words.objective(request.brief, self.encoder, pixels, target is not None)
        compose = partial(composed, photo=pixels, mask=photo.mask, preserve=request.preserve_color)
        aim = Aim(self.encoder, target, self.strength, objective, constraints=constraints, compose=compose, mask=photo.mask)
        start = pixels if target is None or request.preserve_color else self._start(pixels, target, photo.mask, constraints)
        (generator,) = view_generators([seed])
        painted, trace = paint(pixels, start, aim, generator, Pace(self.steps), on_step=on_step)
        return painted.cpu(), trace, {"target": list(target.said) if target else []}

    @torch.no_grad()
    def _start(self, pixels: Tensor, target: Target, mask: Tensor | None, constraints: Mapping[str, Constraint]) -> Tensor:
        """The photograph in the target's colours, as far toward them as the constraints leave half of what they allow: descent that has
        to climb back first loses the brushwork on the way."""
        own = colour.palette(pixels, mask)
        for share in SHARES:
            start = colour.mapped(pixels, own, own.toward(target.palette, share * min(self.strength, 1.)))
            if all(float(one.measure(start)) <= ROOM * one.bound for one in constraints.values()):
                return start
        return pixels

    def target(self, pixels: Tensor, seed: int) -> Target | None:
        """Of the references, of the styles, or of both at even weights."""
        request = self.request
        found = []
        if self.references:
            said = [path.rpartition("/")[2] for path, _ in request.references]
            found.append(of_references(self.encoder, self.references, [weight for _, weight in request.references], pixels,
                                       request.statistics == "gram", said))
        if styled := of_styles(self.encoder, request.brief.styles, pixels, seed):
            found.append(styled)
        return mixed(found, [1.] * len(found)) if found else None


def composed(images: Tensor, photo: Tensor, mask: Tensor | None, preserve: bool) -> Tensor:
    """The photograph's colours over the canvas's brightness, and the photograph itself outside of the mask; at any size of the images."""
    if preserve:
        images = colour.recoloured(images, _as(photo, images))
    if mask is not None:
        mask = _as(mask, images)
        images = mask * images + (1 - mask) * _as(photo, images)
    return images


def _as(other: Tensor, images: Tensor) -> Tensor:
    size = tuple(images.shape[-2:])
    if tuple(other.shape[-2:]) == size:
        return other
    return torch.nn.functional.interpolate(other, size, mode="bilinear", antialias=True, align_corners=False)
