"""Two classifiers of noisy latents to compare the CLIP with as a guide: a small network of its own, and a head on the denoiser's features.

Both name the style of `x_t` at its noise level (classifier guidance, arXiv:2105.05233), learn from the same guide-split paintings as the
CLIP, and are trained in minutes; an interrupted training goes on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from guide.strategies.gradient import Gradient, heading, sized, told
from guide.strategies.strategy import Ascent, Outcome, Step
from probes.atomic import replacing
from probes.judges import STYLES
from recipes import data
from recipes.denoiser import unprompted
from recipes.training import Run, train

SIDE = 128


def waves(times: Tensor, count: int = 32) -> Tensor:
    """Sines and cosines of timesteps 0-999: `(n,)` to `(n, 2 * count)`."""
    angles = times.float()[:, None] * torch.exp(-math.log(1000) * torch.arange(count, device=times.device) / count)
    return torch.cat([angles.sin(), angles.cos()], 1)


class LatentClassifier(nn.Module):
    """Convolutions on noisy latents `(n, c, h, w)`, scaled and shifted by the time: logits `(n, 15)`, 0.8 M parameters for 8 channels."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (64, 128, 192)):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, 128), nn.SiLU())
        self.entry = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks, self.films, inside = nn.ModuleList(), nn.ModuleList(), widths[0]
        for index, width in enumerate(widths):
            layers = nn.Conv2d(inside, width, 3, 2 if index else 1, 1), nn.GroupNorm(16, width)
            self.blocks.append(nn.ModuleList([*layers, nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(16, width)]))
            self.films.append(nn.Linear(128, 2 * width))
            inside = width
        self.style = nn.Linear(2 * inside, len(STYLES))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        embedded, h = self.time(waves(times)), self.entry(x)
        for (first, norm, second, last), film in zip(self.blocks, self.films, strict=True):
            h = F.silu(norm(first(h)))
            scale, shift = film(embedded)[..., None, None].chunk(2, 1)
            h = h + F.silu(last(second(h)) * (1 + scale) + shift)
        return self.style(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))


class _Reached(Exception):
    """The middle block's output."""


class FeatureHead(nn.Module):
    """A head of two layers on mean and spread of the denoiser's middle features, under no prompt: logits `(n, 15)`. The denoiser is frozen.

    `denoiser` must be a copy of the pipeline's: its calls would count as the pipeline's own.
    """

    def __init__(self, denoiser: nn.Module):
        super().__init__()
        self._denoiser = [denoiser.eval().requires_grad_(False)]  # in a list, so that no checkpoint repeats it
        self.width = denoiser.config.block_out_channels[-1]
        self.head = nn.Sequential(nn.Linear(2 * self.width + 64, 256), nn.SiLU(), nn.Dropout(0.1), nn.Linear(256, len(STYLES)))

    def features(self, x: Tensor, times: Tensor) -> Tensor:
        denoiser = self._denoiser[0]

        def reached(module, inputs, output):
            raise _Reached(output)  # what comes after the middle is not wanted, and costs more than what comes before

        hook = denoiser.mid_block.register_forward_hook(reached)
        try:
            denoiser(x, times, **unprompted(denoiser, x))
        except _Reached as stop:
            found = stop.args[0]
        finally:
            hook.remove()
        return torch.cat([found.mean((2, 3)), found.flatten(2).std(2)], 1)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        return self.head(torch.cat([self.features(x, times), waves(times)], 1))


@torch.no_grad()
def latents(vae, images: np.ndarray, rows: np.ndarray, store: Path, versions: int) -> Tensor:
    """Latents `(versions, n, c, h, w)` of random crops, mirrored half of the time, in half precision; kept in `store`."""
    if not store.exists():
        generator, made = torch.Generator().manual_seed(0), []
        for part in track(np.array_split(rows, -(-len(rows) // 64)), description="latents"):
            pixels = data.batch(images, part)
            crops = torch.cat([data.random_crop(pixels, SIDE, generator) for _ in range(versions)])
            made.append(vae.encode(crops * 2 - 1).latents.half().unflatten(0, (versions, len(part))))
        with replacing(store) as partial:
            torch.save(torch.cat(made, 1), partial)
    return torch.load(store, weights_only=True)


def noisy(clean: Tensor, times: Tensor, alphas: Tensor, generator: torch.Generator) -> Tensor:
    """`x_t` of clean latents at timesteps `(n,)`."""
    a, b = alphas[times].sqrt()[:, None, None, None], (1 - alphas[times]).sqrt()[:, None, None, None]
    return a * clean + b * torch.randn(clean.shape, generator=generator)


def fit(model: nn.Module, pool: Tensor, labels: Tensor, weights: Tensor, alphas: Tensor, folder: Path, steps: int) -> nn.Module:
    """The classifier after `steps` of 128 latents from `(versions, n, ...)` with labels and sampling weights `(n,)`."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    run = Run(nn.ModuleDict({"style": model.train()}), optimizer, folder, 0.0, steps=steps, decay=0.99)

    def losses(step, progress):
        chosen = torch.multinomial(weights, 128, generator=run.generator)
        times = torch.randint(len(alphas), (128,), generator=run.generator)
        version = int(torch.randint(len(pool), (1,), generator=run.generator))
        logits = model(noisy(pool[version, chosen].float(), times, alphas, run.generator), times).float()
        right = logits.argmax(1).eq(labels[chosen]).float().mean()
        return {"style": F.cross_entropy(logits, labels[chosen], label_smoothing=0.05), "_accuracy": right.detach()}

    average = train(run, losses)["style"]
    model.load_state_dict(average.state_dict())
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Classified(Gradient):
    """Moves along a noisy classifier's gradient at `x_t`, by the same sizes as `clean-image`: the guides differ in direction alone."""

    classifier: Callable[[Tensor, Tensor], Tensor] = None
    alphas: Tensor = None
    target: int = 0

    def steer(self, step: Step, due: Tensor) -> Outcome:
        x = step.x.detach().clone().requires_grad_()
        time = (self.alphas.sqrt() - step.before[0]).abs().argmin()
        logits = self.classifier(x, time.expand(len(x))).float()
        others = [index for index in range(len(STYLES)) if index != self.target]
        odds = logits[:, self.target] - logits[:, others].logsumexp(1)
        (direction,) = torch.autograd.grad(odds.sum(), x)
        ascent = Ascent(direction, direction.isfinite().flatten(1).all(1), -odds.detach(), {"style": odds.detach()}, None)
        move = due / step.responses[step.index]
        return Outcome(clean=sized(move, heading(ascent)), row=told(step, ascent, due * ascent.usable))
