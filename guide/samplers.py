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
    for flow matching), else Euler ancestral on the same schedule. "single-step": its own where its steps may be repeated, else DDIM on the
    same schedule, or Euler for flow matching. UserError where there is none.
    """
    own = pipeline.scheduler
    family = prediction.family(own)
    if sampler == "stochastic" and not own.config.get("eta"):
        if {"eta"} <= inspect.signature(own.step).parameters.keys() & inspect.signature(pipeline.__call__).parameters.keys():
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
        import diffusers

        kind = "FlowMatchEulerDiscreteScheduler" if family == prediction.FLOW else "DDIMScheduler"
        if family in (None, prediction.EDM):
            raise UserError(f"There is no sampler of single steps for {type(own).__name__} here; leave out the strategies that need one.")
        pipeline.scheduler = getattr(diffusers, kind).from_config(own.config)
    return {}


@contextmanager
def using(pipeline: Any, sampler: str) -> Iterator[dict[str, Any]]:
    """`fitted` for the length of a block."""
    own = pipeline.scheduler
    try:
        yield fitted(pipeline, sampler)
    finally:
        pipeline.scheduler = own
