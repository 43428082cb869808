"""One batch of a pipeline as loops and `guide.run` call it, and what a whole-run method is."""
import functools
import inspect
import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guide.attaching import replaced_step
from guide.guided import guided
from guide.memory import free, ran_out
from guide.seeds import generators, view_generators
from guide.strategies.strategy import Outcome, Step, Strategy
from guide.strategies.unguided import Unguided
from guide.watch import Watch
from probes.errors import UserError
from probes.objective import Objective

Made = tuple[Tensor, list[dict[str, Any]], dict[str, float]]


@dataclass(frozen=True)
class Loop(Strategy):
    """Base of whole-run methods. `strength` 0 is the plain pipeline, bit for bit; what else it means each says.

    `batch`: pictures that go through the pipeline together, 0 for as many as there are seeds; a group of particles is never divided.
    """

    batch: int = 0
    counts: ClassVar[tuple[str, ...]] = ("batch",)

    def __post_init__(self):
        super().__post_init__()
        for name in self.counts:
            value, least = getattr(self, name), 0 if name == "batch" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} = {value} is not a whole number from {least} on.")

    @abstractmethod
    def sample(self, sampler: "Sampler", seeds: Sequence[int]) -> Made:
        """A picture per seed, which depends on that seed alone."""

    def __call__(self, step: Step, carried: Any) -> Outcome:
        raise UserError(f"{type(self).__name__} goes around whole runs and cannot guide one from inside; call guide.run.sample, or "
                        "guide.loops.sample.Sampler, with it.")


@dataclass(frozen=True)
class Sampler:
    """A pipeline and what it is called with: `sampler(seeds, strategy)` -> images (n, 3, h, w) in [0, 1] on the CPU, trace, costs.

    `arguments` are those of `pipeline(...)` for one picture, without generator and output type; text counts for every picture.
    """

    pipeline: Any
    arguments: Mapping[str, Any]
    objective: Any
    tiny: nn.Module | None = None
    on_step: Callable[[], None] = lambda: None
    watch: Sequence[Watch] = ()
    spare: Callable[[], nn.Module | None] | None = None

    def __call__(self, seeds: Sequence[int], strategy: Strategy) -> Made:
        if not isinstance(strategy, Loop):
            return self.divided(seeds, strategy)
        return strategy.sample(self, seeds) if strategy.strength else self.batch(seeds, Unguided())

    def divided(self, seeds: Sequence[int], strategy: Strategy) -> Made:
        """One run of the pipeline, or two of half as many pictures where memory does not suffice for the pipeline's own passes."""
        try:
            return self.batch(seeds, strategy)
        except (RuntimeError, MemoryError) as error:
            if len(seeds) == 1 or not ran_out(error):
                raise
        free()
        half = len(seeds) // 2
        parts = [self.divided(part, strategy) for part in (seeds[:half], seeds[half:])]
        line = f"Memory did not suffice for {len(seeds)} pictures at a time; they were made {half} at a time."
        parts[0][1][0].setdefault("notices", []).append(line)
        return joined(parts)

    def batch(self, seeds: Sequence[int], strategy: Strategy) -> Made:
        """One run of the pipeline, steered from inside by a strategy that is no loop."""
        # Notices stand in the trace too.
        with guided(self.pipeline, self.objective, strategy, seeds=seeds, tiny=self.tiny, watch=self.watch,
                    on_step=lambda row: self.on_step(), on_notice=lambda line: None, spare=self.spare, pinned=True) as run:
            images = self.pipeline(**self.call(seeds, output_type="pt")).images
        return images.float().clamp(0, 1).cpu(), run.trace, dict(run.calls)

    def call(self, seeds: Sequence[int], **more: Any) -> dict[str, Any]:
        """The pipeline's arguments for these seeds."""
        each = {name: [value] * len(seeds) if isinstance(value, str) else value for name, value in self.arguments.items()}
        return {**each, "generator": generators(seeds), **more}

    def counting(self, runs: int) -> "Sampler":
        """The same for a loop of so many runs, which are reported as the steps of one."""
        count = itertools.count(1)
        return replace(self, on_step=lambda: None if next(count) % runs else self.on_step())

    def loss(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """The guide's loss of whole images, lower is better: (n,) on the CPU."""
        return whole_loss(self.objective, images.to(self.pipeline.device), seeds).cpu()


@torch.no_grad()
def whole_loss(objective, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """The objective's loss (n,) of each whole image, without crops or noise. An objective of another class than `probes.objective`'s is
    given generators that depend on the seed alone, so that images of one seed are seen through the same views."""
    if isinstance(objective, Objective):
        objective = objective.of_wholes()
    return objective(images.detach().float(), view_generators(seeds)).loss.detach()


def best(losses: Tensor) -> Tensor:
    """The place of the lowest finite loss in each row of (g, n); the first where none is finite."""
    return torch.where(losses.isfinite(), losses, torch.inf).argmin(1)


def selection(losses: Tensor, kept: Tensor, count: int, **more: Any) -> dict[str, Any]:
    """The trace's last row: the guide's loss of each finished candidate (g, n) and which one is each seed's picture."""
    chosen = losses.gather(1, kept[:, None])[:, 0]
    finite = chosen[chosen.isfinite()]
    return {"step": count, "t": 0., "sigma": 0., "guided": True, "loss": float(finite.mean()) if len(finite) else None,
            "losses": chosen.tolist(), "candidates": losses.tolist(), "kept": kept.tolist(), "skipped": 0, "decodes": 0, **more}


def joined(parts: Sequence[Made]) -> Made:
    """Several batches as one."""
    images, traces, costs = zip(*parts, strict=True)
    return torch.cat(images), [row for trace in traces for row in trace], dict(sum(map(Counter, costs), Counter()))


@contextmanager
def intercepted(scheduler, change: Callable[[inspect.BoundArguments], None]) -> Iterator[None]:
    """Inside, `change` sees and may alter the arguments of each `scheduler.step`; its signature, which pipelines read, stays."""
    original = scheduler.step
    signature = inspect.signature(original)

    @functools.wraps(original)
    def step(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        change(call)
        return original(*call.args, **call.kwargs)

    with replaced_step(scheduler, step):
        yield
