"""Best of N: the baseline that guidance has to beat at equal cost."""
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from guide.loops.sample import Loop, Made, Sampler, best, joined, selection
from guide.seeds import members
from guide.strategies.strategy import Strategy
from guide.strategies.unguided import Unguided

PLAIN = Unguided()


@dataclass(frozen=True)
class BestOf(Loop):
    """Makes `n` candidates for each seed and keeps the one with the lowest loss of the guide on the whole image.

    The first candidate is the seed's own picture, so that the kept one is never worse in the guide's eyes. What a judge says of it is
    the report's business: the guide's score of a picture that the guide chose says little. `inner` makes the candidates.
    """

    n: int = 4
    inner: Strategy = PLAIN
    counts: ClassVar[tuple[str, ...]] = ("batch", "n")

    def sample(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        candidates = [member for seed in seeds for member in members(seed, self.n)]
        owners = [seed for seed in seeds for _ in range(self.n)]
        size = self.batch or len(seeds)
        parts = [candidates[i:i + size] for i in range(0, len(candidates), size)]
        sampler = sampler.counting(len(parts))
        made = []
        for part in parts:
            images, trace, costs = sampler.batch(part, self.inner)
            made.append((images, [row | {"candidate_seeds": part} for row in trace], costs))
        images, trace, costs = joined(made)
        began = time.perf_counter()
        losses = torch.cat([sampler.loss(images[i:i + size], owners[i:i + size]) for i in range(0, len(images), size)])
        losses = losses.view(len(seeds), self.n)
        kept = best(losses)
        seconds = time.perf_counter() - began
        trace.append(selection(losses, kept, 1 + max(row["step"] for row in trace), guidance_seconds=seconds, seconds=seconds))
        costs["encoder"] = costs.get("encoder", 0) + len(parts)
        costs["seconds"] += seconds
        return images.unflatten(0, losses.shape)[torch.arange(len(seeds)), kept], trace, costs
