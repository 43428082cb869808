"""Sequential Monte Carlo over the batch: the particles of one seed compete, and the pipeline goes on from those that promise more."""
import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guide.loops.resampling import Population, effective_size
from guide.loops.sample import Loop, Made, Sampler, best, joined, selection
from guide.loops.swarm import Swarm
from guide.seeds import members
from guide.strategies.gradient import through_denoiser
from guide.strategies.strategy import Outcome, Step, per_image, rms
from probes.errors import UserError


@dataclass(frozen=True)
class Particles(Loop):
    """Base: `n` particles for each seed sample the pipeline's own distribution times `exp(-strength * loss)`, by the guide's loss of
    whole images. All particles of a seed go through the pipeline together, since they wait for each other.

    Each `every`-th step of the window weighs them by the loss of their clean estimates and, where the effective sample size is below
    `ess * n`, resamples. `keep`: "best" gives the particle with the lowest loss, as the papers' code does, "draw" one drawn by its
    final weight, which alone follows the distribution above, the better the more particles there are.
    """

    n: int = 4
    ess: float = .5
    keep: Literal["best", "draw"] = "best"
    counts: ClassVar[tuple[str, ...]] = ("batch", "n")

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.ess <= 1:
            raise UserError(f"ess = {self.ess:g} must be a share of the particles, from 0 (never resample) to 1.")
        if self.keep not in ("best", "draw"):
            raise UserError(f"keep = {self.keep!r} is not known; choose 'best' or 'draw'.")

    def sample(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        size = max(1, (self.batch or len(seeds)) // self.n)
        groups = [seeds[i:i + size] for i in range(0, len(seeds), size)]
        sampler = sampler.counting(len(groups))
        return joined([self._group(sampler, group) for group in groups])

    def _group(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        swarm = Swarm(method=self, objective=sampler.objective, population=Population(seeds, self.n))
        with swarm.attached(sampler.pipeline):
            images, trace, costs = sampler.batch([member for seed in seeds for member in members(seed, self.n)], swarm)
        began = time.perf_counter()
        losses = sampler.loss(images, swarm.owners).view(-1, self.n)
        weights = swarm.population.close(-self.strength * losses.double())
        kept = best(losses) if self.keep == "best" else torch.stack(
            [row.multinomial(1, generator=uniform)[0] for row, uniform in zip(weights, swarm.population.uniforms, strict=True)])
        seconds = time.perf_counter() - began
        trace.append(selection(losses, kept, 1 + trace[-1]["step"], guidance_seconds=seconds, seconds=seconds, group=list(seeds),
                               weights=weights.tolist(), ess=effective_size(weights).tolist(), lineages=swarm.population.lineages(),
                               log_evidence=swarm.population.evidence.tolist()))
        costs["encoder"] += 1 + sum("ess" in row for row in trace[:-1])
        costs["seconds"] += seconds
        return images.unflatten(0, losses.shape)[torch.arange(len(seeds)), kept], trace, costs

    @abstractmethod
    def potential(self, population: Population, reward: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The log potential (g, n) of this weighing and what to remember of it. `reward`: -loss; `progress`: 0 at the first step, 1 at
        the finished image."""

    @abstractmethod
    def propose(self, step: Step, order: Tensor) -> tuple[Outcome, Tensor]:
        """What to do with the particles in their new order, and the log ratio (g * n,) of the model's transition to this one.
        `order` holds for each place of the batch the place that it was in."""


@dataclass(frozen=True)
class FK(Particles):
    """Feynman-Kac steering (Singhal et al., arXiv:2501.06848), without gradients. `strength` is its lambda; the authors' is 10.

    `potential`s: "difference" `exp(lambda (r_t - r_before))`, "max" and "sum" of the rewards so far; the last weighing corrects for those
    before it, so that all three aim at the same distribution. Departs from the authors' code in that resampling is systematic, and that
    weights last until the next resampling. A deterministic scheduler would leave clones identical for ever: there a clone's step is
    taken as an ancestral one (DDIM's with eta 1).
    """

    every: int = 5
    kind: Literal["difference", "max", "sum"] = "difference"

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("difference", "max", "sum"):
            raise UserError(f"kind = {self.kind!r} is no potential; choose 'difference', 'max' or 'sum'.")

    def potential(self, population: Population, reward: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        if self.kind == "difference":
            return self.strength * reward - population.spent, reward
        before = population.statistic
        remembered = torch.maximum(reward, before) if self.kind == "max" else reward + torch.where(before.isinf(), 0., before)
        return self.strength * remembered, remembered

    def propose(self, step: Step, order: Tensor) -> tuple[Outcome, Tensor]:
        ratio = torch.zeros(len(order), device=order.device)
        clones = order != torch.arange(len(order), device=order.device)
        if not clones.any() or step.noise_scale():
            return Outcome(), ratio
        shift, _ = ancestral(step, order, step.draw())
        return Outcome(mean=torch.where(per_image(clones, shift), shift, 0.)), ratio


@dataclass(frozen=True)
class DAS(Particles):
    """DAS (Kim, Kim and Park, arXiv:2501.05803): tempered particles whose step leans along the gradient through the denoiser, the lean
    being weighed out again. `strength` is its 1 / alpha; the authors' alpha of .005 to .01 belongs to rewards of their scale.

    At a hundredth part k of the run the tempered target is `exp(-lambda_k * strength * loss)` with `lambda_k = (1 + gamma)^k - 1`, 1 at
    most. The authors count steps, of 100; parts of the run make gamma mean the same in shorter ones. The noise is the scheduler's where it
    adds some, else that of an ancestral step times `eta`.
    """

    gamma: float = .008
    eta: float = 1.

    def __post_init__(self):
        super().__post_init__()
        if not (0 < self.gamma < math.inf and 0 < self.eta <= 1):
            raise UserError(f"gamma {self.gamma:g} must be above 0, and eta {self.eta:g} above 0 and 1 at most.")

    def tempering(self, progress: float) -> float:
        """lambda, from 0 to 1."""
        return min(1., (1 + self.gamma) ** (100 * progress) - 1)

    def potential(self, population: Population, reward: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        return self.tempering(progress) * self.strength * reward - population.spent, reward

    def propose(self, step: Step, order: Tensor) -> tuple[Outcome, Tensor]:
        ascent, _ = through_denoiser(step)
        drawn, sigma = step.draw(), step.noise_scale()
        shift, own = (None, sigma) if sigma else ancestral(step, order, drawn, self.eta)
        usable = per_image(ascent.usable, ascent.direction)
        push = torch.where(usable, ascent.direction, 0.)[order]
        push = own**2 * self.tempering((step.index + 1) / step.count) * self.strength * push
        # log of N(x; mean, sigma^2) / N(x; mean + push, sigma^2) at x = mean + push + sigma * drawn.
        ratio = -((push * drawn).flatten(1).sum(1) / own + push.flatten(1).pow(2).sum(1) / (2 * own**2)) if own else torch.zeros(len(order))
        row = {"skipped": int((~ascent.usable).sum()), "norm_ratio": (rms(push) / rms(step.clean)).tolist()}
        if shift is None:
            return Outcome(mean=push, noise=lambda unit: drawn.to(unit), row=row), ratio
        return Outcome(mean=push + shift, row=row), ratio


def ancestral(step: Step, order: Tensor, drawn: Tensor, eta: float = 1.) -> tuple[Tensor, float]:
    """What makes a deterministic step an ancestral one, as a shift of x_{t-1}, and its sigma: part of the implied noise is exchanged for
    `drawn` (DDIM, arXiv:2010.02502, eq. 16, for any a and b). Exact for first-order schedulers."""
    (a, b), (a_, b_) = step.before, step.after
    sigma = eta * b_ * math.sqrt(max(0., 1 - (a * b_ / (a_ * b)) ** 2))
    implied = (step.x[order] - a * step.clean[order]) / b
    return (math.sqrt(b_ * b_ - sigma * sigma) - b_) * implied + sigma * drawn, sigma
