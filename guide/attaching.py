"""What a `guided` block changes on a pipeline for its length: its scheduler's step, and whether weights take gradients."""
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from probes.errors import UserError


def weights(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All of the modules' parameters. Going through a network takes milliseconds, so that a step is given the list of its run."""
    return [weight for module in modules for weight in module.parameters()]


@contextmanager
def frozen(parts: Iterable[nn.Parameter]) -> Iterator[None]:
    """None of these weights takes a gradient inside: nothing that only theirs would need is held in memory."""
    held = [weight for weight in parts if weight.requires_grad]
    for weight in held:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in held:
            weight.requires_grad_(True)


@contextmanager
def standing_in(scheduler, step: Callable) -> Iterator[None]:
    original = scheduler.step
    if getattr(original, "guided", False):
        raise UserError("This pipeline is being guided already; leave that block first, or combine the objectives into one.")

    # Pipelines read the signature of step to decide whether to pass eta and generator: `wraps` keeps it.
    @functools.wraps(original)
    def stand_in(*args, **kwargs):
        return step(original, *args, **kwargs)

    stand_in.guided = True
    with replaced_step(scheduler, stand_in):
        yield


@contextmanager
def replaced_step(scheduler, step: Callable) -> Iterator[None]:
    """`scheduler.step` is `step` inside; what was there, of its own or of its class, comes back."""
    own = scheduler.__dict__.get("step")
    scheduler.step = step
    try:
        yield
    finally:
        if own is None:
            del scheduler.step
        else:
            scheduler.step = own
