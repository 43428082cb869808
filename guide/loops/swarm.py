"""A run of particles inside the pipeline: weighed, resampled and moved along with all that the scheduler holds of them."""
from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guide.loops.resampling import Population, effective_size, normalised
from guide.loops.sample import intercepted, whole_loss
from guide.strategies.strategy import Outcome, Step, Strategy

if TYPE_CHECKING:
    from guide.loops.particles import Particles


@dataclass(frozen=True, eq=False)
class Swarm(Strategy):
    """One run of a method over its particles, as `guided` takes it: the batch holds the first seed's particles, the second's, ..."""

    method: Particles | None = None
    objective: Any = None
    population: Population | None = None

    @property
    def owners(self) -> list[int]:
        return [seed for seed in self.population.seeds for _ in range(self.population.n)]

    def attached(self, pipeline):
        """For the length of a `with` block around `guided`, resampling moves what the pipeline and its scheduler hold of each image."""

        def reorder(call: inspect.BoundArguments) -> None:
            order, self.population.order = self.population.order, None
            if order is not None:
                shape = call.arguments["sample"].shape
                for name in ("model_output", "sample"):
                    call.arguments[name] = call.arguments[name][order.to(call.arguments[name].device)]
                for name, held in vars(pipeline.scheduler).items():
                    setattr(pipeline.scheduler, name, reordered(held, order, shape))

        return intercepted(pipeline.scheduler, reorder)

    def __call__(self, step: Step, carried: Any) -> Outcome:
        # A step that runs out of memory is taken again, and must not weigh the particles twice.
        held = self.population.held()
        try:
            return self._weighed(step)
        except (RuntimeError, MemoryError):
            self.population.restore(held)
            raise

    def _weighed(self, step: Step) -> Outcome:
        method, population = self.method, self.population
        # After the last step the images themselves are weighed.
        if step.index == step.count - 1 or step.index not in method.guided_steps(step.count):
            return Outcome()
        loss = whole_loss(self.objective, step.decode(step.clean.detach()), self.owners).view(-1, method.n).double().cpu()
        potential, population.statistic = method.potential(population, -loss, step.index / step.count)
        population.weigh(potential)
        sizes = effective_size(normalised(population.log_weights))
        ancestors = population.resample(method.ess)
        order = (ancestors + method.n * torch.arange(len(ancestors))[:, None]).flatten()
        moved = bool((order != torch.arange(len(order))).any())
        # Each place keeps its generator, so that clones draw noise of their own.
        population.order = order if moved else None
        outcome, ratio = method.propose(step, order.to(step.x.device))
        population.pending = ratio.double().cpu().view(-1, method.n)
        finite = loss[loss.isfinite()]
        row = {"guided": True, "loss": float(finite.mean()) if len(finite) else None, "losses": loss.flatten().tolist(),
               "ess": sizes.tolist(), "resampled": (sizes < method.ess * method.n).tolist(), "ancestors": ancestors.tolist(),
               "lineages": population.lineages(), "spread": spread(step.clean, method.n)}
        return replace(outcome, row=row | outcome.row)


def spread(clean: Tensor, n: int) -> list[float]:
    """Diversity of each group: the RMS deviation of its clean estimates from their mean, as a share of their RMS."""
    grouped = clean.unflatten(0, (-1, n)).flatten(2)
    return ((grouped - grouped.mean(1, keepdim=True)).pow(2).mean((1, 2)) / grouped.pow(2).mean((1, 2))).sqrt().tolist()


def reordered(held: Any, order: Tensor, shape: torch.Size) -> Any:
    """A scheduler's memory with its batch in another order: whatever has the shape of the latents, in lists too (multistep history)."""
    if isinstance(held, Tensor):
        return held[order.to(held.device)] if held.shape == shape else held
    return type(held)(reordered(item, order, shape) for item in held) if type(held) in (list, tuple) else held
