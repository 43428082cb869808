"""The noise of a step: what a stochastic scheduler draws, measured or shaped, and the noise that takes x_{t-1} back to x_t."""
import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from guide import prediction
from probes.errors import UserError

# A step of these depends on x_t and the prediction alone, so that it can be taken again.
SINGLE_STEP = {"DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "LCMScheduler", "TCDScheduler",
               "CogVideoXDDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "EDMEulerScheduler",
               "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"}
DRAW = "randn_tensor"  # diffusers' function that every scheduler with shapeable noise calls from its own module


def steadied(scheduler, eta: float) -> float:
    """The eta nearest to this one with which every step of DDIM stays a number.

    `1 - a'^2 - (eta sigma)^2`, of which diffusers takes the square root, is 0 in the first step of a schedule that begins without any
    signal, and rounding can bring it below (eta 1 at 25 steps of the embedded pipeline). UserError where eta is too large for any schedule.
    """
    if not eta or not hasattr(scheduler, "_get_variance") or prediction.family(scheduler) != prediction.ALPHAS:
        return eta
    back, lowest = scheduler.config.num_train_timesteps // len(scheduler.timesteps), 0.
    for t in scheduler.timesteps.tolist():
        kept = scheduler.alphas_cumprod[t - back] if t >= back else scheduler.final_alpha_cumprod
        lowest = min(lowest, float(1 - kept - (eta * scheduler._get_variance(t, t - back) ** .5) ** 2))
    if lowest < -1e-5:
        raise UserError(f"DDIM has no steps with an eta of {eta:g}, which asks for more noise than a step may hold; give one from 0 to 1.")
    return eta if lowest == 0 else eta * (1 - 1e-6)


def single_step(scheduler) -> bool:
    """Whether `scheduler.step` may be repeated: multistep schedulers keep a history that a repeated step would spoil."""
    return any(cls.__name__ in SINGLE_STEP for cls in type(scheduler).__mro__) or getattr(scheduler.config, "solver_order", 0) == 1


def twin(scheduler):
    """A copy in the same state, whose `step` is its class's own even where guidance stands in for the original's."""
    stand_in = scheduler.__dict__.pop("step", None)
    try:
        return copy.deepcopy(scheduler)
    finally:
        if stand_in is not None:
            scheduler.step = stand_in


@contextmanager
def shaped(scheduler, shape: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Inside, the unit noise that `scheduler.step` draws goes through `shape`; the list holds what was drawn, empty if nothing was."""
    names, drawn = type(scheduler).step.__globals__, []
    original = names.get(DRAW)

    def draw(*args: Any, **kwargs: Any) -> Tensor:
        drawn.append(original(*args, **kwargs))
        return shape(drawn[-1])

    if original is not None:
        names[DRAW] = draw
    try:
        yield drawn
    finally:
        if original is not None:
            names[DRAW] = original


def unnoticed(device: torch.device):
    """Inside, draws without a generator do not move torch's own random state, which a pipeline may count on."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def scale(scheduler, step: Callable[[Any], Tensor]) -> float:
    """How far a unit of the scheduler's noise moves x_{t-1} in this step: its sigma_t, 0 where it draws none.

    `step(scheduler)` takes the step on the scheduler it is given; it is called on two copies, with noise of 0 and of 1.
    """
    answers = []
    for value in (0., 1.):
        copied = twin(scheduler)
        with shaped(copied, lambda noise, value=value: torch.full_like(noise, value)) as drawn:
            answers.append(step(copied).double())
        if not drawn:
            return 0.
    return float((answers[1] - answers[0]).mean())


def renoised(previous: Tensor, before: tuple[float, float], after: tuple[float, float], noise: Tensor) -> Tensor:
    """x_t drawn from x_{t-1} by the forward process: `(a / a') x_{t-1} + sqrt(b^2 - (a b' / a')^2) noise` (time travel).

    `before` and `after`: (a, b) of `x = a * clean + b * noise` at t and t-1; `noise`: standard normal, in the shape of `previous`.
    """
    (a, b), (a_, b_) = before, after
    ratio = a / a_
    return ratio * previous + math.sqrt(max(0., b * b - (ratio * b_) ** 2)) * noise


def require_single_step(scheduler, what: str) -> None:
    """UserError where a step of this scheduler cannot be repeated."""
    if not single_step(scheduler):
        raise UserError(f"{what} repeats steps, which the history of {type(scheduler).__name__} does not allow; "
                        "use a single-step scheduler such as DDIM or Euler.")
    prediction.responses(scheduler)  # an unknown scheduler is refused here, before any work
