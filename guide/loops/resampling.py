"""Sequential Monte Carlo's bookkeeping: log weights, effective sample size, systematic resampling within groups of particles."""
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guide.seeds import resampling_generators


def normalised(log_weights: Tensor) -> Tensor:
    """Weights (g, n) that sum to 1 in each group. NaN counts as a weight of 0, infinite ones share alike, and so do all of a group in
    which every weight is 0."""
    log_weights = torch.where(log_weights.isnan(), -torch.inf, log_weights).double()
    infinite = log_weights == torch.inf
    some = infinite.any(1, keepdim=True)
    log_weights = torch.where(some, torch.where(infinite, 0., -torch.inf), log_weights)
    none = (log_weights == -torch.inf).all(1, keepdim=True)
    return torch.where(none, 0., log_weights).softmax(1)


def effective_size(weights: Tensor) -> Tensor:
    """Kish's effective sample size `1 / sum(w^2)` of normalised weights (g, n): (g,), from 1 to n."""
    return 1 / weights.pow(2).sum(1)


def systematic(weights: Tensor, uniform: float) -> Tensor:
    """Systematic resampling of one group: n ancestors (n,) for weights (n,), by one uniform draw in [0, 1).

    Each particle has `n w` descendants, rounded up or down. Survivors keep their places, so that only clones move.
    """
    n = len(weights)
    edges = weights.double().cumsum(0)
    edges = edges / edges[-1]
    points = (torch.arange(n, dtype=torch.float64) + uniform) / n
    drawn = torch.searchsorted(edges, points, right=True).clamp(max=n - 1)
    counts = torch.bincount(drawn, minlength=n)
    ancestors = torch.where(counts > 0, torch.arange(n), -1)
    ancestors[ancestors < 0] = torch.arange(n).repeat_interleave((counts - 1).clamp(min=0))
    return ancestors


@dataclass
class Population:
    """Groups of n particles, one per seed, and what has happened to them; all tensors (g, n) in float64 on the CPU.

    `spent`: the log potential that a particle's path has been given so far; `statistic`: what a potential remembers of it; `pending`:
    the log ratio of the model's transition to the proposal's, not weighed yet; `lineage`: the starting particle that it descends from;
    `evidence`: the running estimate of log Z (g,); `order`: places of the batch that the next step of the scheduler takes, or None.
    """

    seeds: Sequence[int]
    n: int
    order: Tensor | None = None
    log_weights: Tensor = field(init=False)

    def __post_init__(self):
        shape = (len(self.seeds), self.n)
        self.log_weights, self.spent, self.pending, self.evidence = (torch.zeros(s, dtype=torch.float64) for s in (*[shape] * 3, shape[:1]))
        self.statistic = torch.full(shape, -math.inf, dtype=torch.float64)
        self.lineage = torch.arange(self.n).expand(shape).clone()
        self.uniforms = resampling_generators(self.seeds)

    def held(self) -> tuple[dict[str, Any], list[Tensor]]:
        """What `restore` brings back: no tensor is changed in place but weights and evidence."""
        kept = vars(self) | {"log_weights": self.log_weights.clone(), "evidence": self.evidence.clone()}
        return kept, [uniform.get_state() for uniform in self.uniforms]

    def restore(self, held: tuple[dict[str, Any], list[Tensor]]) -> None:
        vars(self).update(held[0])
        for uniform, state in zip(self.uniforms, held[1], strict=True):
            uniform.set_state(state)

    def weigh(self, potential: Tensor) -> None:
        """Multiplies the weights by a potential, given as its logarithm (g, n), and by what was pending."""
        self.log_weights = self.log_weights + potential + self.pending
        self.spent = self.spent + potential
        self.pending = torch.zeros_like(self.pending)

    def resample(self, threshold: float) -> Tensor:
        """Resamples the groups whose effective size fell below `threshold * n`; the ancestors of each place, (g, n)."""
        weights = normalised(self.log_weights)
        ancestors = torch.arange(self.n).repeat(len(self.seeds), 1)
        for group in torch.nonzero(effective_size(weights) < threshold * self.n)[:, 0].tolist():
            uniform = float(torch.rand((), generator=self.uniforms[group], dtype=torch.float64))
            ancestors[group] = systematic(weights[group], uniform)
            self.evidence[group] += self._log_mean(group)
            self.log_weights[group] = 0.
        self.spent, self.statistic, self.lineage = (x.gather(1, ancestors) for x in (self.spent, self.statistic, self.lineage))
        return ancestors

    def close(self, rewards: Tensor) -> Tensor:
        """The last weighing, by the log potential (g, n) of the finished images themselves: normalised weights (g, n)."""
        self.weigh(rewards - self.spent)
        self.evidence = self.evidence + torch.tensor([self._log_mean(group) for group in range(len(self.seeds))], dtype=torch.float64)
        return normalised(self.log_weights)

    def lineages(self) -> list[int]:
        """How many of the starting particles have descendants left, per group."""
        return [len(row.unique()) for row in self.lineage]

    def _log_mean(self, group: int) -> float:
        row = self.log_weights[group]
        return float(torch.where(row.isnan(), -torch.inf, row).logsumexp(0)) - math.log(self.n)
