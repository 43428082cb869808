"""What a `guided` block changes on a pipeline for its length: its scheduler's step, and whether weights take gradients."""
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from probes.errors import UserError


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """No weight takes a gradient inside."""
    held = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight in held:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in held:
            weight.requires_grad_(True)


@contextmanager
def standing_in(scheduler, step: Callable) -> Iterator[None]:
    original, own = scheduler.step, scheduler.__dict__.get("step")
    if getattr(original, "guided", False):
        raise UserError("This pipeline is being guided already; leave that block first, or combine the objectives into one.")

    # Pipelines read the signature of step to decide whether to pass eta and generator: `wraps` keeps it.
    @functools.wraps(original)
    def stand_in(*args, **kwargs):
        return step(original, *args, **kwargs)

    stand_in.guided = True
    scheduler.step = stand_in
    try:
        yield
    finally:
        if own is None:
            del scheduler.step
        else:
            scheduler.step = own
