"""Another sampler for strategies that cannot do without one: one that adds noise, or one whose steps may be taken again."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from guide import noise, prediction
from probes.errors import UserError


def described(pipeline: Any, sampler: str) -> str:
    """What the sampler of an arm is, in words: `DDIM`, `DDIM with eta 1`, `EulerAncestralDiscrete`."""
    with using(pipeline, sampler) as more:
        name = type(pipeline.scheduler).__name__.removesuffix("Scheduler")
        return name + (" with eta 1" if more.get("eta") else "")


def fitted(pipeline: Any, sampler: str) -> dict[str, Any]:
    """Gives the pipeline a scheduler of this kind; returns what the pipeline is to be called with besides.

    "": its own. "stochastic": its own with eta 1 where its step takes an eta (DDIM), itself with noise where it has a setting for it (Euler
    for flow matching), DDIM with eta 1 on a schedule that begins without any signal, else Euler ancestral, both on the same schedule.
    "single-step": its own where its steps may be repeated, else DDIM on the same schedule, or Euler for flow matching. UserError where
    there is none.
    """
    own = pipeline.scheduler
    family = prediction.family(own)
    if sampler == "stochastic" and not own.config.get("eta"):
        taken = inspect.signature(pipeline.__call__).parameters
        if "eta" in taken and "eta" in inspect.signature(own.step).parameters:
            return {"eta": 1.0}
        if "eta" in taken and own.config.get("rescale_betas_zero_snr"):  # Euler ancestral's first sigma stands for infinity there
            pipeline.scheduler = _ddim(own)
            return {"eta": 1.0}
        if "stochastic_sampling" in own.config:
            pipeline.scheduler = type(own).from_config(own.config, stochastic_sampling=True)
        elif "Ancestral" not in type(own).__name__ and "DDPM" not in type(own).__name__:
            if family in (None, prediction.FLOW, prediction.EDM):
                raise UserError(
                    f"There is no sampler with noise for {type(own).__name__} here; leave out the strategies that need one "
                    "(`guide strategies` names them)."
                )
            from diffusers import EulerAncestralDiscreteScheduler

            pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(own.config)
    elif sampler == "single-step" and not noise.single_step(own):
        if family in (None, prediction.EDM):
            raise UserError(f"There is no sampler of single steps for {type(own).__name__} here; leave out the strategies that need one.")
        from diffusers import FlowMatchEulerDiscreteScheduler

        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(own.config) if family == prediction.FLOW else _ddim(own)
    return {}


def _ddim(own: Any) -> Any:
    from diffusers import DDIMScheduler

    # Left to itself DDIM clips clean estimates to -1..1, as of pixels, where the configuration says nothing of it.
    return DDIMScheduler.from_config(own.config, clip_sample=own.config.get("clip_sample", False))


@contextmanager
def using(pipeline: Any, sampler: str) -> Iterator[dict[str, Any]]:
    """`fitted` for the length of a block."""
    own = pipeline.scheduler
    try:
        yield fitted(pipeline, sampler)
    finally:
        pipeline.scheduler = own
