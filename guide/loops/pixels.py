"""Descent on the pixels themselves, from coarse to fine: brushwork toward a target, readings of probes, distances from a photograph as
constraints. No network is made or trained for a picture."""
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from guide.transfer import colour, statistics
from guide.transfer.canvas import Canvas
from guide.transfer.content import PLACES
from guide.transfer.target import Target, shrunk
from probes.constraints import Constraint
from probes.encoders import Encoder
from probes.features import convolutional
from probes.views import _windows

SMALLEST = 64  # pixels on the shorter side of the coarsest look at brushwork
LOOKS = 3  # sizes at which brushwork is compared: the picture's own, a half, a quarter
STILL = .004  # a difference of neighbours, a grey level of 256, below which the slope of their variation goes to 0
ZOOM = .8  # a look shows from this share of the picture to all of it, so that no grid of the encoder's strides can settle
SHARES = (.45, .35, .2)  # of the steps, for the last three sizes from coarse to fine


@dataclass(frozen=True, eq=False)
class Aim:
    """What is descended. `target` and the constraints' distances belong to one photograph; `objective(images, generators)` has `.loss`.

    `compose(images, short)`: what is seen and saved of the canvas's pictures, a mask or the photograph's colours laid over them.
    `weight`: of the objective's loss beside the brushwork's; `colours`: of the distance to the target's palette, without which descent
    drifts from the colours that it started with; `variation`: of the mean difference of neighbouring pixels, against grain, by which
    statistics of strokes can be met without any.
    """

    encoder: Encoder
    target: Target | None = None
    strength: float = 1.
    objective: Callable | None = None
    weight: float = .04
    colours: float = 1.
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    variation: float = 3.
    compose: Callable[[Tensor], Tensor] = lambda images: images
    mask: Tensor | None = None


@dataclass(frozen=True)
class Pace:
    """`steps` in all; `rate` of Adam on the canvas's coefficients, falling to a twentieth over the last half of each size."""

    steps: int = 120
    rate: float = .04
    coarsest: int = 112


def sizes(height: int, width: int, coarsest: int) -> list[tuple[int, int]]:
    """From coarse to fine, each about twice the last, the shorter side of the first at least `coarsest` where the picture allows it."""
    found = [(height, width)]
    while min(found[0]) >= 2 * coarsest:
        found.insert(0, (-(-found[0][0] // 2), -(-found[0][1] // 2)))
    return found


def paint(photo: Tensor, start: Tensor, aim: Aim, generator: torch.Generator, pace: Pace, canvas: Canvas | None = None,
          on_step: Callable[[dict, Callable[[], Tensor]], None] = lambda row, picture: None) -> tuple[Tensor, list[dict]]:
    """`start` `(1, 3, h, w)` descended -> the picture, and a row per step. `photo` is what constraints and strength refer to.

    `on_step` receives each row and a function that gives the picture of that moment. A step whose gradient is not finite is skipped and
    counted in its row.
    """
    trace, multipliers = [], {name: torch.zeros(1, device=photo.device) for name in aim.constraints}
    ladder = sizes(*photo.shape[-2:], pace.coarsest)
    for level, (size, count) in enumerate(zip(ladder, _shared(pace.steps, len(ladder)), strict=True)):
        base = _resized(start, size)
        canvas = Canvas(base) if canvas is None else canvas.on(base)
        seen = _Seen(aim, _resized(photo, size), size)
        optimizer = torch.optim.Adam([canvas.coefficients], lr=pace.rate, betas=(.9, .99))
        for index in range(count):
            began = time.perf_counter()
            optimizer.param_groups[0]["lr"] = pace.rate / (1 + level) * min(1., 2 * (1 - index / count) + .05)
            with torch.inference_mode(False), torch.enable_grad():
                picture = aim.compose(canvas())
                loss, row, violations = seen.loss(picture, generator, multipliers, len(trace))
                (gradient,) = torch.autograd.grad(loss, canvas.coefficients)
            usable = bool(gradient.isfinite().all())
            if usable:
                canvas.coefficients.grad = gradient
                optimizer.step()
            for name, constraint in aim.constraints.items():
                multipliers[name] = constraint.climbed(multipliers[name], violations[name], 1 / pace.steps)
            row |= {"step": len(trace), "size": f"{size[1]}x{size[0]}", "multipliers": {k: float(v) for k, v in multipliers.items()},
                    "skipped": int(not usable), "seconds": time.perf_counter() - began}
            trace.append(row)
            on_step(row, lambda canvas=canvas: aim.compose(canvas()).detach())
    with torch.no_grad():
        return aim.compose(canvas()), trace


class _Seen:
    """The losses at one size of the canvas, whose targets are read once."""

    def __init__(self, aim: Aim, photo: Tensor, size: tuple[int, int]):
        self.aim, self.weights, self.looks, self.palette = aim, {}, [], None
        self.mask = None if aim.mask is None else _resized(aim.mask, size)
        if aim.target is None:
            return
        if aim.colours:
            self.palette = colour.palette(photo, self.mask).toward(aim.target.palette, min(aim.strength, 1.))
        self.weights = statistics.stages(aim.encoder)
        native = convolutional(aim.encoder.clip.visual)
        shorts = [min(size) // 2 ** k for k in range(LOOKS)]
        for short in [one for k, one in enumerate(shorts) if k == 0 or one >= SMALLEST] if native else [aim.encoder.side]:
            wanted, spread = aim.target.at(short)
            small = shrunk(photo, short)
            mask = None if aim.mask is None else _resized(aim.mask, small.shape[-2:])
            if aim.strength != 1:
                with torch.no_grad():
                    own = statistics.measured(aim.encoder, small, list(self.weights), mask, aim.target.gram)
                wanted = own.toward(wanted, aim.strength)
            self.looks.append((tuple(small.shape[-2:]), mask, wanted, spread))

    def loss(self, picture: Tensor, generator: torch.Generator, multipliers: Mapping[str, Tensor], step: int
             ) -> tuple[Tensor, dict, dict]:
        """The loss, a row for the trace, and each constraint's violation."""
        aim = self.aim
        loss, row, violations = torch.zeros((), device=picture.device), {}, {}
        if self.looks:
            brush = sum(self._brushwork(picture, generator, *look) for look in self.looks) / len(self.looks)
            loss, row["brushwork"] = loss + brush, float(brush.detach())
        if self.palette is not None:
            apart = colour.palette(picture, self.mask).distance(self.palette)
            loss, row["colours"] = loss + aim.colours * apart, float(apart.detach())
        if aim.objective is not None:
            values = aim.objective(picture, [generator])
            loss = loss + aim.weight * values.loss.sum()
            row |= {name: float(score) for name, score in values.terms.items()}
        for name, constraint in aim.constraints.items():
            score = constraint.measure(picture, step % PLACES)
            violation = constraint.violation(score)
            loss = loss + constraint.loss(violation, multipliers[name]).sum()
            violations[name], row[name] = violation.detach(), float(score.detach())
        if aim.variation:
            loss = loss + aim.variation * variation(picture)
        row["loss"] = float(loss.detach())
        return loss, row, violations

    def _brushwork(self, picture: Tensor, generator: torch.Generator, size: tuple[int, int], mask: Tensor | None, wanted, spread) -> Tensor:
        shift = torch.rand(3, generator=generator).tolist()
        seen = zoomed(picture, size, *shift)
        mask = None if mask is None else zoomed(mask, size, *shift)
        found = statistics.measured(self.aim.encoder, seen, list(self.weights), mask, self.aim.target.gram)
        return statistics.distance(found, wanted, spread, self.weights)


def zoomed(images: Tensor, size: tuple[int, int], share: float, down: float, right: float) -> Tensor:
    """A window of ZOOM to 1 of each side, placed by chance, at `size`: all from numbers in [0, 1), differentiable, antialiased."""
    height, width = images.shape[-2:]
    edge = ZOOM + (1 - ZOOM) * share
    rows = _windows(torch.tensor((1 - edge) * down * height), torch.tensor(edge * height * 1.), height, size[0])
    columns = _windows(torch.tensor((1 - edge) * right * width), torch.tensor(edge * width * 1.), width, size[1])
    # A window's `side` counts along its own direction, so that each has a scale of its own.
    return rows.to(images) @ images @ columns.to(images).T


def variation(images: Tensor) -> Tensor:
    """Mean length of the differences of neighbours, down, across and in all colours together: total variation that is alike in every
    direction, or strokes become blocks."""
    down, across = images[..., 1:, :-1] - images[..., :-1, :-1], images[..., :-1, 1:] - images[..., :-1, :-1]
    return ((down.square() + across.square()).mean(1) + STILL ** 2).sqrt().mean()


def _shared(steps: int, count: int) -> list[int]:
    """Steps for each of `count` sizes: SHARES for the last three, a size before them two steps at least."""
    shares = list(SHARES[-count:]) if count <= len(SHARES) else [SHARES[0] / (count - 2)] * (count - 2) + list(SHARES[1:])
    if count == 1:
        return [steps]
    total = sum(shares)
    counts = [max(1, round(steps * share / total)) for share in shares]
    counts[0] += steps - sum(counts)
    return [max(1, one) for one in counts]


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    return images if tuple(images.shape[-2:]) == tuple(size) else F.interpolate(images, tuple(size), mode="bilinear", antialias=True,
                                                                               align_corners=False)
