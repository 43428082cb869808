"""What the gradient strategies share: how far a step may move its images, and the gradients they move along."""
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from guide.strategies.strategy import Ascent, Outcome, Step, Strategy, per_image, rms
from probes.errors import UserError

# Strength 1: the displacement of x_{t-1} summed over the window, as a share of that by classifier-free guidance.
SHARE_OF_CORRECTION = .2

# Strength 1 without classifier-free guidance (distilled models): that sum as a share of RMS(clean estimate), by number of steps,
# straight lines between in log(steps). A choice of this project, not validated.
SHARE_OF_CLEAN = ((1, .1), (4, .2), (10, .4))


@dataclass(frozen=True)
class Gradient(Strategy):
    """Base: decides how far x_{t-1} of each image may move in a step; a subclass's `steer` decides where to.

    Papers give their step sizes in units of the gradient, which mean another thing for every model, loss and number of steps. Here all
    gradient strategies share one size: `strength * .2 * RMS(correction by classifier-free guidance)`, as displacement of x_{t-1},
    summed over the window. An image whose gradient is not finite is left alone in that step, and counted.

    `damping`: the curvature lambda of the reward, by which the size is divided as `1 + 2 * lambda * v_t` where v_t is the posterior
    variance of the clean estimate under a prior of standard deviation `spread` (arXiv:2606.02884, unverified; exact for quadratic
    rewards under a Gaussian posterior). 0 switches it off.
    """

    damping: float = 0.
    spread: float = 1.

    def __post_init__(self):
        super().__post_init__()
        if not (0 <= self.damping < math.inf and 0 < self.spread < math.inf):
            raise UserError(f"damping {self.damping:g} must be 0 or more and spread {self.spread:g} above 0.")

    def __call__(self, step: Step, carried: Tensor | None) -> Outcome:
        if step.index not in self.window(step.count):
            return Outcome()
        # The ledger is kept in displacement of x_{t-1}, which steps left out by `every` owe and the next guided step pays.
        due = step.responses[step.index] * self._size(step) * self._damped(step)
        due = due if carried is None else due + carried
        if step.index not in self.guided_steps(step.count):
            return Outcome(carried=due)
        outcome = self.steer(step, self.strength * due)
        return replace(outcome, carried=torch.zeros_like(due) if outcome.carried is None else outcome.carried / self.strength)

    @abstractmethod
    def steer(self, step: Step, due: Tensor) -> Outcome:
        """The answer to a guided step that moves x_{t-1} by `due` (n,) RMS; what it could not move it carries, for the next ones."""

    def _damped(self, step: Step) -> float:
        a, b = step.before
        s = self.spread
        return 1 / (1 + 2 * self.damping * (s * b) ** 2 / (b * b + (a * s) ** 2))

    def _size(self, step: Step) -> Tensor:
        """The move of each image at strength 1, in units of the clean estimate: (n,)."""
        correction = step.correction()
        window = self.window(step.count)
        share = share_of_clean(step.count) / sum(step.responses[i] for i in window) * rms(step.clean)
        if correction is None:
            return share.nan_to_num(0., 0., 0.)
        size = rms(correction)
        # Equal prompt and negative prompt: classifier-free guidance that guides nowhere is none.
        return torch.where(size > 1e-6 * rms(step.clean), SHARE_OF_CORRECTION * size, share).nan_to_num(0., 0., 0.)


def at_clean(step: Step, clean: Tensor | None = None, samples: int = 0, sigma: float = 0.) -> Ascent:
    """Down the loss at the clean estimate. With `samples`, down `-log mean exp(-loss)` over that many draws of `clean + sigma * noise`
    (LGD-MC, Song et al. 2023, eq. 10, as listed in the literature; unverified): the draws' gradients weighted by softmax(-loss)."""
    clean = step.clean if clean is None else clean
    if not samples:
        return step.ascent(clean)
    drawn = [step.ascent(clean + sigma * step.draw()) for _ in range(samples)]
    usable = torch.stack([ascent.usable for ascent in drawn])
    losses = torch.stack([ascent.loss.to(clean.dtype) for ascent in drawn])
    weights = (-torch.where(usable, losses.nan_to_num(), torch.inf)).softmax(0).nan_to_num()
    direction = sum(per_image(w, clean) * ascent.direction.nan_to_num(0., 0., 0.) for w, ascent in zip(weights, drawn, strict=True))
    return replace(drawn[0], direction=direction, usable=usable.any(0), loss=(weights * losses.nan_to_num()).sum(0))


def through_denoiser(step: Step, samples: int = 0, sigma: float = 0.) -> tuple[Ascent, Tensor]:
    """Down the loss by x_t: the gradient at the clean estimate taken back through the denoiser by one vector-Jacobian product, however
    many crops and probes it came from. Returns that ascent, with its direction in the space of x_t, and the one at the clean estimate."""
    with torch.enable_grad():
        x = step.x.detach().clone().requires_grad_()
        clean = step.clean_of(x)
        ascent = at_clean(step, clean.detach(), samples, sigma)
        (direction,) = torch.autograd.grad(clean, x, ascent.direction.nan_to_num(0., 0., 0.).to(clean.dtype))
    usable = ascent.usable & direction.isfinite().flatten(1).all(1)
    return replace(ascent, direction=direction.detach(), usable=usable), ascent.direction


def heading(ascent: Ascent) -> Tensor:
    """The direction of each image at RMS 1; 0 where it is not usable or has no length."""
    steepness = rms(ascent.direction)
    unit = ascent.direction / per_image(torch.where(steepness > 0, steepness, 1.), ascent.direction)
    return torch.where(per_image(ascent.usable, unit), unit, 0.)


def sized(due: Tensor, unit: Tensor) -> Tensor:
    """`unit` at a size (n,) of each image."""
    return per_image(due, unit) * unit


def told(step: Step, ascent: Ascent, moved: Tensor) -> dict[str, Any]:
    """What the trace says of a guided step. `moved`: the RMS displacement of x_{t-1} per image, (n,)."""
    correction, size = step.correction(), rms(step.clean)
    return {
        "loss": _mean(ascent.loss, ascent.usable), "losses": _numbers(ascent.loss),
        "terms": {name: _mean(values, ascent.usable) for name, values in ascent.terms.items()},
        "terms_per_image": {name: _numbers(values) for name, values in ascent.terms.items()},
        "gradient_norm": _numbers(rms(ascent.direction)), "norm_ratio": _numbers(moved / size),
        "correction_ratio": None if correction is None else _numbers(rms(correction) / size),
        "skipped": int((~ascent.usable).sum()),
    }


def share_of_clean(steps: int) -> float:
    """SHARE_OF_CLEAN for a run of `steps`."""
    for (low, share), (high, higher) in pairwise(SHARE_OF_CLEAN):
        if steps <= high:
            return share + (higher - share) * math.log(max(steps, low) / low) / math.log(high / low)
    return SHARE_OF_CLEAN[-1][1]


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _mean(values: Tensor, usable: Tensor) -> float | None:
    kept = values[usable & values.isfinite()]
    return float(kept.mean()) if len(kept) else None
