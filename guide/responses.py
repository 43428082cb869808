"""How far x_{t-1} moves per unit by which the clean estimate moves through the model's output, at each step of a run."""
from collections.abc import Mapping
from typing import Any

import torch

from guide import noise, prediction

DETERMINISTIC = {"DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler", "EulerDiscreteScheduler", "EDMEulerScheduler",
                 "FlowMatchEulerDiscreteScheduler"}
MOVE = .5  # of the clean estimate: within what schedulers clip to


def responses(scheduler, first: int, arguments: Mapping[str, Any]) -> list[float]:
    """One for each of the scheduler's timesteps, in the state it is in before its step `first`.

    In closed form for deterministic first-order steps. Of all others, which draw noise or keep a history, it is measured: a twin goes
    through the run on a single number, and at each step another one is moved. In a multistep scheduler the next step takes a part of it
    back; what counts is x_{t-1}. `arguments`: those of `step` besides output, timestep and sample.
    """
    found = prediction.responses(scheduler)
    extra = {name: value for name, value in arguments.items() if name not in ("model_output", "timestep", "sample", "generator")}
    name = type(scheduler).__name__
    if hasattr(scheduler, "state_in_first_order") or len(set(scheduler.timesteps.tolist())) < len(found) or (
            name in DETERMINISTIC and not extra.get("eta") and not scheduler.config.get("stochastic_sampling")):
        return found
    twin, zero = noise.twin(scheduler), torch.zeros(1, 1, 1, 1)
    for place, t in list(enumerate(scheduler.timesteps))[first:]:
        if hasattr(twin, "scale_model_input"):
            twin.scale_model_input(zero, t)
        _, q = prediction.affine(twin, t, zero)
        moved = _stepped(noise.twin(twin), zero + MOVE / q, t, zero, extra)
        found[place] = max(abs(float(moved - _stepped(twin, zero, t, zero, extra))) / MOVE, 1e-3)
    return found


def _stepped(scheduler, output: torch.Tensor, t, sample: torch.Tensor, extra: Mapping[str, Any]) -> torch.Tensor:
    if str(scheduler.config.get("variance_type", "")).startswith("learned"):  # further channels hold it
        output = torch.cat([output, torch.zeros_like(output)], 1)
    with noise.shaped(scheduler, torch.zeros_like), noise.unnoticed(sample.device):
        answer = scheduler.step(output, t, sample, **extra)
    return answer[0] if isinstance(answer, tuple) else answer.prev_sample
