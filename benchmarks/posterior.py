"""Which strategy is biased how: every one against a posterior that is known exactly.

    python -m benchmarks.posterior --out outputs/posterior.json

The denoiser is exact for a prior of one Gaussian, or two, in the pixels of a 4 x 4 image, and the loss is the negative log-likelihood of a
noisy observation, so that the posterior has a closed form. Each strategy runs at the strength, found by bisection, at which its samples
have the posterior's mean along the observation; what is left is its bias: the spread along the observation and across it (1 is right;
a strategy that collapses is near 0), and for two modes the share of samples in the one that the observation favours.
"""
from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import torch
import typer
from diffusers import DDIMScheduler
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from guide.guided import guided
from guide.strategies import Strategy, load, presets
from probes.atomic import write_text

SHAPE = (3, 4, 4)
SPREAD = .15  # of each mode of the prior, in pixels that run from -1 to 1
NOISE = .3  # of the observation
OFFSET = .4  # of the two modes from the middle, along the first axis
STRONGEST = 128.


@dataclass(frozen=True)
class Prior:
    """A mixture of Gaussians `N(mode, SPREAD^2)` with equal weights; `modes` (m, 3, 4, 4)."""

    modes: Tensor

    def clean(self, x: Tensor, a: float, b: float) -> Tensor:
        """The exact clean estimate E[x0 | x] for x = a x0 + b noise."""
        variance = a * a * SPREAD**2 + b * b
        weights = (-(x[:, None] - a * self.modes).flatten(2).pow(2).sum(2) / (2 * variance)).softmax(1)
        each = self.modes + (a * SPREAD**2 / variance) * (x[:, None] - a * self.modes)
        return (weights[..., None, None, None] * each).sum(1)

    def posterior(self, observed: Tensor) -> tuple[Tensor, Tensor, float]:
        """Means (m, 3, 4, 4) and weights (m,) of the posterior's modes given the observation, and their common spread."""
        variance = 1 / (1 / SPREAD**2 + 1 / NOISE**2)
        means = variance * (self.modes / SPREAD**2 + observed / NOISE**2)
        distance = (observed - self.modes).flatten(1).pow(2).sum(1)
        return means, (-distance / (2 * (SPREAD**2 + NOISE**2))).softmax(0), math.sqrt(variance)


class Denoiser(nn.Module):
    """Predicts the noise that an exact clean estimate implies."""

    config = SimpleNamespace(in_channels=SHAPE[0], sample_size=SHAPE[1])

    def __init__(self, prior: Prior, alphas: Tensor):
        super().__init__()
        self.prior, self.alphas = prior, alphas

    def forward(self, x: Tensor, t, return_dict: bool = False) -> tuple[Tensor]:
        alpha = float(self.alphas[int(t)])
        a, b = math.sqrt(alpha), math.sqrt(1 - alpha)
        return ((x - a * self.prior.clean(x, a, b)) / b,)


class Pipeline:
    """The least that `guided` attaches to: an unconditional pipeline of pixels."""

    def __init__(self, prior: Prior, eta: float):
        self.scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", beta_schedule="squaredcos_cap_v2")
        self.unet, self.eta = Denoiser(prior, self.scheduler.alphas_cumprod), eta
        self.components = {"unet": self.unet, "scheduler": self.scheduler}

    def __call__(self, count: int, steps: int, seed: int = 0) -> Tensor:
        """Samples (count, 3, 4, 4), unclipped."""
        generator = torch.Generator().manual_seed(seed)
        self.scheduler.set_timesteps(steps)
        x = torch.randn(count, *SHAPE, generator=generator)
        for t in self.scheduler.timesteps:
            with torch.no_grad():
                predicted = self.unet(x, t)[0]
            x = self.scheduler.step(predicted, t, x, eta=self.eta, generator=generator).prev_sample
        return x


class Observation:
    """The negative log-likelihood of a noisy observation of the whole image, in pixels from -1 to 1."""

    def __init__(self, observed: Tensor):
        self.observed = observed

    def __call__(self, images: Tensor, generators) -> SimpleNamespace:
        loss = (images * 2 - 1 - self.observed).flatten(1).pow(2).sum(1) / (2 * NOISE**2)
        return SimpleNamespace(loss=loss, terms={"observation": loss})


def samples(prior: Prior, observed: Tensor, strategy: Strategy, eta: float, count: int, steps: int) -> Tensor:
    """Guided samples (count, 3, 4, 4)."""
    pipeline = Pipeline(prior, eta)
    with guided(pipeline, Observation(observed), strategy, seeds=range(count)):
        return pipeline(count, steps)


def judged(key: str, prior: Prior, observed: Tensor, count: int, steps: int) -> dict:
    """Mean, spreads and mode weight of a preset, relative to the posterior's, at the strength that brings the mean nearest."""
    eta = 1. if presets()[key].stochastic else 0.
    means, weights, spread = prior.posterior(observed)
    axis = observed / observed.norm()
    wanted = float((weights[:, None, None, None] * means).sum(0).mul(axis).sum())

    def mean(strength: float) -> tuple[float, Tensor]:
        found = samples(prior, observed, load(key, strength=strength), eta, count, steps)
        return float((found * axis).sum((1, 2, 3)).mean()), found

    low, high = 0., 0. if key == "unguided" else 1.
    while high and mean(high)[0] < wanted and high < STRONGEST:
        low, high = high, 2 * high
    for _ in range(7 if high else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle)[0] < wanted else (low, middle)
    reached, found = mean(high)
    along = (found * axis).sum((1, 2, 3))
    across = found - along.view(-1, 1, 1, 1) * axis
    side = (found * prior.modes[0]).sum((1, 2, 3)) > 0
    projected = (means * axis).sum((1, 2, 3))
    deviation = math.sqrt(spread**2 + float((weights * (projected - wanted).pow(2)).sum()))
    freedom = axis.numel() - (1 if len(weights) == 1 else 2)
    return {
        "strategy": key, "strength": round(high, 3), "mean": reached / wanted, "along": float(along.std()) / deviation,
        "across": float(across.pow(2).sum((1, 2, 3)).mean().div(freedom).sqrt()) / spread if len(weights) == 1 else None,
        "favoured mode": float(side.float().mean()) if len(weights) > 1 else None,
        "its posterior weight": float(weights[0]) if len(weights) > 1 else None,
    }


def problems() -> dict[str, tuple[Prior, Tensor]]:
    """One Gaussian observed off its middle, and two modes of which the observation favours one."""
    middle, first = torch.zeros(1, *SHAPE), torch.zeros(SHAPE)
    first[0, 0, 0] = 1.
    pattern = torch.linspace(-1, 1, first.numel()).view(SHAPE)
    modes = torch.stack([OFFSET * first, -OFFSET * first])
    return {"one Gaussian": (Prior(middle), .3 * pattern), "two modes": (Prior(modes), .1 * first)}


def main(count: Annotated[int, typer.Option(help="Samples a run.")] = 512, steps: Annotated[int, typer.Option(help="Steps a run.")] = 50,
         out: Annotated[Path | None, typer.Option(help="JSON of the rows.")] = None) -> None:
    rows = []
    for problem, (prior, observed) in problems().items():
        keys = ["unguided", *(key for key, preset in presets().items() if preset.gradient and not preset.loop)]
        rows += [{"problem": problem, **judged(key, prior, observed, count, steps)} for key in track(keys, description=problem)]
    table = Table("problem", "strategy", "strength", "mean", "spread along", "spread across", "favoured mode (posterior)")
    for row in rows:
        modes = "" if row["favoured mode"] is None else f"{row['favoured mode']:.2f} ({row['its posterior weight']:.2f})"
        across = "" if row["across"] is None else f"{row['across']:.2f}"
        reached = f"{row['mean']:.2f}" + ("" if abs(row["mean"] - 1) < .1 else " (not reached)")
        table.add_row(row["problem"], row["strategy"], f"{row['strength']:.2f}", reached, f"{row['along']:.2f}", across, modes)
    Console().print(table)
    if out:
        write_text(out, json.dumps({"count": count, "steps": steps, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
