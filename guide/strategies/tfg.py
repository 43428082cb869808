"""Training-free guidance in one frame, and the methods that are settings of it."""
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guide.strategies.gradient import Gradient, at_clean, heading, sized, through_denoiser, told
from guide.strategies.strategy import Outcome, Step, per_image, rms
from probes.errors import UserError


@dataclass(frozen=True)
class TFG(Gradient):
    """TFG (Ye et al., arXiv:2409.15761): moves x_{t-1} along the gradient through the denoiser (share `rho`), moves
    the clean estimate along its own gradient `iterations` times (share `mu`), and repeats the step `recurrence` times from renoised x_t.

    `samples` draws of `sigma * b_t` around the clean estimate smooth the loss (0: none). DPS is rho alone; LGD-MC is DPS with samples;
    FreeDoM is DPS with recurrence; MPGD is mu alone. Universal guidance is both, `consistent`: it moves the model's output, so that
    the implied noise moves along, and the clean estimate's steps begin where the other half has moved it.
    """

    rho: float = .25
    mu: float = 2.
    iterations: int = 1
    samples: int = 0
    sigma: float = .1
    recurrence: int = 1
    consistent: bool = False

    def __post_init__(self):
        super().__post_init__()
        if min(self.rho, self.mu) < 0 or self.rho + self.mu == 0:
            raise UserError(f"rho {self.rho:g} and mu {self.mu:g} are shares of the move: neither below 0, one of them above.")
        for name in ("iterations", "samples", "recurrence"):
            value, least = getattr(self, name), 0 if name == "samples" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} = {value} is not a whole number from {least} on.")

    @property
    def move(self) -> str:
        return "consistent" if self.consistent else "fixed noise"

    def steer(self, step: Step, due: Tensor) -> Outcome:
        # Departs from the paper: rho and mu are shares of the one displacement that the strength allows, the same in every step, where
        # the paper multiplies the gradients and lets both grow along the run in proportion to alpha_t.
        total = self.rho + self.mu
        unit = step.responses[step.index] if self.consistent else max(step.after[0], 1e-3)
        size, spread = due / unit, self.sigma * step.before[1]
        mean, clean, ascent = None, torch.zeros_like(step.clean), None
        if self.rho:
            ascent, _ = through_denoiser(step, self.samples, spread)
            if self.consistent:
                clean = clean + sized(self.rho / total * size, heading(ascent))
            else:
                mean = sized(self.rho / total * due, heading(ascent))
        for _ in range(self.iterations if self.mu else 0):
            # Departs from the paper: each of the steps has the same length, whatever the length of its gradient.
            inner = at_clean(step, step.clean + clean, self.samples, spread)
            clean = clean + sized(self.mu / total * size / self.iterations, heading(inner))
            ascent = ascent or inner
        row = told(step, ascent, due * ascent.usable)
        again = step.repeat + 1 < self.recurrence
        if self.consistent:
            return Outcome(clean=resized(clean, size, bool(self.rho) + self.iterations * bool(self.mu)), row=row, again=again)
        if not self.mu:
            return Outcome(mean=mean, row=row, again=again)
        if mean is not None or self.iterations > 1:
            whole = unit * clean + (0 if mean is None else mean)
            scale = per_image(rms(resized(whole, due, 2)) / rms(whole).clamp_min(1e-12), whole)
            clean, mean = scale * clean, None if mean is None else scale * mean
        return Outcome(clean=clean, mean=mean, row=row, again=again)


def resized(move: Tensor, size: Tensor, parts: int) -> Tensor:
    """A move of several parts that do not point the same way, brought to the size (n,) that they were to have together; 0 stays 0."""
    length = rms(move)
    return move if parts < 2 else per_image(torch.where(length > 0, size / length.clamp_min(1e-12), 1.), move) * move


@dataclass(frozen=True)
class DPS(Gradient):
    """Diffusion posterior sampling (Chung et al., arXiv:2209.14687, Alg. 1): `x_{t-1} -= zeta * grad_{x_t} loss(clean(x_t))`.

    `samples` above 0: LGD-MC, the loss smoothed by that many draws of `sigma * b_t` around the clean estimate.
    """

    samples: int = 0
    sigma: float = .1

    def steer(self, step: Step, due: Tensor) -> Outcome:
        ascent, _ = through_denoiser(step, self.samples, self.sigma * step.before[1])
        # Departs from the papers: the size comes from the strength, not from zeta times the gradient.
        return Outcome(mean=sized(due, heading(ascent)), row=told(step, ascent, due * ascent.usable))


@dataclass(frozen=True)
class FreeDoM(DPS):
    """FreeDoM (Yu et al., arXiv:2303.09833): DPS with a step in proportion to classifier-free guidance, and time travel:
    between `travel_from` and `travel_to` of the run each step is taken `recurrence` times, from x_t renoised out of x_{t-1}.

    Departs from the authors' code in that what is in proportion is the displacement of x_{t-1}, whatever the scheduler.
    """

    recurrence: int = 3
    travel_from: float = .3
    travel_to: float = .6

    def steer(self, step: Step, due: Tensor) -> Outcome:
        inside = self.travel_from * step.count <= step.index < self.travel_to * step.count
        return replace(super().steer(step, due), again=inside and step.repeat + 1 < self.recurrence)


@dataclass(frozen=True)
class MPGD(Gradient):
    """Manifold-preserving guided diffusion (He et al., arXiv:2311.16424, Alg. 1, without its optional autoencoder projection): the clean
    estimate moves down its own gradient while the implied noise stays where it is. No gradient through the denoiser."""

    move: ClassVar[Literal["consistent", "fixed noise"]] = "fixed noise"

    def steer(self, step: Step, due: Tensor) -> Outcome:
        ascent = at_clean(step)
        # Departs from the paper: the size comes from the strength; the authors' code divides by the gradient's length as well.
        # Where x_{t-1} holds next to nothing of the clean estimate the move cannot show, and would only grow beyond bounds.
        size = due / max(step.after[0], 1e-3)
        return Outcome(clean=sized(size, heading(ascent)), row=told(step, ascent, due * ascent.usable))
