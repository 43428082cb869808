"""A scheduler's step as guidance takes it: on a changed output or noise, with x_{t-1} moved, or once more to see the noise it adds."""
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from guide import noise
from guide.strategies.strategy import Outcome, Step


def applied(scheduler, original: Callable, call: inspect.BoundArguments, step: Step, outcome: Outcome, move: str) -> Any:
    """The scheduler's step on the changed output and noise, and the changes of x_{t-1} added to what it returns.

    `original` takes the step on the arguments of `call`; `move` is the strategy's: a change of the clean estimate goes through the model
    output, or, at "fixed noise", into x_{t-1}.
    """
    shift = outcome.mean
    with torch.inference_mode(False), torch.no_grad():
        if outcome.clean is not None and move == "fixed noise":
            shift = step.after[0] * outcome.clean + (0 if shift is None else shift)
        elif outcome.clean is not None:
            output = call.arguments["model_output"]
            moved = output.clone()
            channels = outcome.clean.shape[1]
            moved[:, :channels] = (step.output + outcome.clean / step.q).to(output.dtype)
            call.arguments["model_output"] = moved
    with noise.shaped(scheduler, outcome.noise) if outcome.noise else nullcontext():
        answer = original(*call.args, **call.kwargs)
    if shift is None:
        return answer
    if isinstance(answer, tuple):
        # LCM decodes the last step's clean estimate, which is its x_{t-1}.
        return tuple(part + shift.to(part.dtype) if part is answer[0] or torch.equal(part, answer[0]) else part for part in answer)
    answer.prev_sample = answer.prev_sample + shift.to(answer.prev_sample.dtype)
    return answer


def noise_scale(scheduler, call: inspect.BoundArguments, x: Tensor) -> float:
    """The standard deviation of the noise that a step from `x` adds; generators are afterwards as before."""

    def step(scheduler) -> Tensor:
        again = inspect.BoundArguments(call.signature, call.arguments | {"sample": x.to(call.arguments["sample"].dtype)})
        return previous(scheduler.step(*again.args, **again.kwargs))

    generators = _listed(call.arguments.get("generator"))
    states = [generator.get_state() for generator in generators]
    try:
        with noise.unnoticed(x.device):
            return noise.scale(scheduler, step)
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def previous(answer: Any) -> Tensor:
    """x_{t-1} of what a scheduler's step returned."""
    return answer[0] if isinstance(answer, tuple) else answer.prev_sample


def _listed(generators: Any) -> list[torch.Generator]:
    return [] if generators is None else list(generators) if isinstance(generators, list | tuple) else [generators]
