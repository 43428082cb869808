"""Weights that move between devices while a gradient needs them: refused where that breaks it, held where whole networks take turns."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from probes.errors import UserError


def refuse(module: Any) -> None:
    """UserError for sequential and group offloading, where a gradient would be wrong without a word."""
    for part in module.modules() if isinstance(module, nn.Module) else ():
        groups = getattr(getattr(part, "_diffusers_hook", None), "hooks", {})
        if any(getattr(hook, "offload", False) for hook in _hooks(part)) or any("group_offloading" in name for name in groups):
            raise UserError("Sequential or group offloading takes weights away between forward and backward pass, which makes gradients "
                            "wrong; use pipeline.enable_model_cpu_offload() instead.")


@contextmanager
def held(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, none of the modules sends another away when its turn comes (accelerate's CpuOffload): the denoiser's weights have to be where
    they were until its backward pass, after the decoder has run."""
    kept = [(hook, hook.prev_module_hook) for module in modules for hook in _hooks(module) if getattr(hook, "prev_module_hook", None)]
    for hook, _ in kept:
        hook.prev_module_hook = None
    try:
        yield
    finally:
        for hook, previous in kept:
            hook.prev_module_hook = previous


def _hooks(module: nn.Module) -> Sequence[Any]:
    hook = getattr(module, "_hf_hook", None)
    return getattr(hook, "hooks", (hook,))
