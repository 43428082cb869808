"""Optimisation of the starting noise of models that take a few steps."""
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guide.attaching import frozen, weights
from guide.decoding import Decoder
from guide.guided import guided
from guide.loops.sample import Loop, Made, Sampler, intercepted, joined, selection
from guide.memory import Ladder, free, ran_out
from guide.seeds import view_generators
from guide.strategies.strategy import per_image
from guide.strategies.unguided import Unguided
from probes.errors import UserError


@dataclass(frozen=True)
class ReNO(Loop):
    """ReNO (Eyring et al., arXiv:2406.04312): gradient descent on the starting noise z, through the whole run of the pipeline.

    SGD with Nesterov momentum on `strength * loss + regulariser * (|z|^2 / 2 - (d - 1) log |z|)`, the gradient of each image clipped to
    norm `clip`; the best z by the guide's loss of the whole image is kept, which may be the first one. `most` is the number of steps
    that it agrees to differentiate through: memory grows with each, and gradients through many are of little use. Departs from the
    authors' code in that images have their own clipping and choice, so that a batch does not matter.
    """

    iterations: int = 50
    rate: float = 5.
    momentum: float = .9
    clip: float = .1
    regulariser: float = .01
    most: int = 4
    counts: ClassVar[tuple[str, ...]] = ("batch", "iterations", "most")

    def __post_init__(self):
        super().__post_init__()
        if not (self.rate > 0 and self.clip > 0 and 0 < self.momentum < 1 and self.regulariser >= 0):
            raise UserError(f"rate {self.rate:g} and clip {self.clip:g} must be above 0, momentum {self.momentum:g} between 0 and 1, "
                            f"regulariser {self.regulariser:g} 0 or more.")

    def sample(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        size = self.batch or len(seeds)
        parts = [seeds[i:i + size] for i in range(0, len(seeds), size)]
        sampler = sampler.counting(len(parts) * (self.iterations + 2))
        return joined([self._fitted(sampler, part) for part in parts])

    def _fitted(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        """The pictures of these seeds, half of them at a time where memory suffices no other way: images do not know of each other."""
        try:
            return self._optimised(sampler, seeds)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if len(seeds) == 1:
                raise UserError("Memory does not suffice to optimise the noise of one picture, however little is done at once; take fewer "
                                "steps or a smaller size, or pass a tiny decoder.") from None
        free()
        half = len(seeds) // 2
        made = joined([self._fitted(sampler, part) for part in (seeds[:half], seeds[half:])])
        made[1][0].setdefault("notices", []).append(f"Memory did not suffice for the noise of {len(seeds)} pictures at a time; it was "
                                                    f"optimised {half} at a time.")
        return made

    def _optimised(self, sampler: Sampler, seeds: Sequence[int]) -> Made:
        run = Differentiable(sampler, seeds, self.most)
        images, trace, costs = run.plain()
        began, losses, z = time.perf_counter(), [sampler.loss(images, seeds)], run.start.float().requires_grad_()
        plain, best, lowest = images, run.start.float(), torch.full((len(seeds),), torch.inf)
        optimizer = torch.optim.SGD([z], lr=self.rate, momentum=self.momentum, nesterov=True)
        views, told = view_generators(seeds), []
        # Dividing the batch changes nothing, a tiny decoder does: it comes last, for a picture alone.
        memory = Ladder(run.decoder, sampler.objective, sampler.spare if len(seeds) == 1 else None, told.append)
        with torch.inference_mode(False), torch.enable_grad(), memory.settled(), run.plainly() as calls:
            for _ in range(self.iterations):
                images, found, slope = run.slope(z, memory, views)
                gradient = self.strength * slope + self.regulariser * torch.autograd.grad(gaussianity(z).sum(), z)[0]
                seen = sampler.loss(images, seeds)
                better = seen < lowest
                best = torch.where(per_image(better.to(z.device), z), z.detach(), best)
                lowest = torch.where(better, seen, lowest)
                norm = gradient.flatten(1).norm(dim=1)
                usable = norm.isfinite()
                clipped = gradient * per_image((self.clip / norm).clamp(max=1.), z)
                z.grad = torch.where(per_image(usable, z), clipped, 0.)
                optimizer.step()
                costs["encoder"] += 2
                costs["skipped"] += int((~usable).sum())
                losses.append(seen)
                trace.append({"iteration": len(losses) - 1, "step": len(trace), "guided": True, "loss": float(found.mean()),
                              "losses": found.tolist(), "whole_losses": seen.tolist(), "gradient_norm": norm.tolist(), "decodes": 1,
                              "norm": z.detach().flatten(1).norm(dim=1).tolist(), "skipped": int((~usable).sum()),
                              **({"notices": list(told)} if told else {})})
                told.clear()
        costs["denoiser"] += calls.calls["denoiser"]
        costs["decodes"] += self.iterations
        # Made anew by the pipeline itself: a tiny decoder may have judged otherwise, and then the plain picture may be the better one.
        final, last = run.rendered(best)
        costs["denoiser"] += last["denoiser"]
        candidates = torch.stack([losses[0], sampler.loss(final, seeds)], 1)
        kept = (candidates[:, 1] < candidates[:, 0]).long()
        costs["encoder"] += 2
        seconds = time.perf_counter() - began
        costs["seconds"] += seconds
        trace.append(selection(candidates, kept, len(trace), guidance_seconds=seconds, seconds=seconds))
        return torch.where(per_image(kept.bool(), final), final, plain), trace, costs


def gaussianity(z: Tensor) -> Tensor:
    """`|z|^2 / 2 - (d - 1) log |z|` of each image (n, ...), in float32 as half precision overflows: the negative log density of the norm
    of d standard normal numbers, lowest at `sqrt(d - 1)`."""
    norm = z.float().flatten(1).norm(dim=1)
    return norm.pow(2) / 2 - (z[0].numel() - 1) * norm.log()


class Differentiable:
    """A few-step pipeline as a function of its starting noise: `run(z)` -> images (n, 3, h, w) with gradient, after `run.plain()`."""

    def __init__(self, sampler: Sampler, seeds: Sequence[int], most: int):
        self.sampler, self.seeds, self.pipeline = sampler, seeds, sampler.pipeline
        steps = sampler.arguments.get("num_inference_steps")
        if steps is None or steps > most:
            raise UserError(f"Noise optimisation differentiates through the whole run, and {steps or 'the default number of'} steps are "
                            f"too many (at most {most}); use a model made for one to four steps, or fewer --steps.")
        if getattr(self.pipeline, "_all_hooks", None):
            raise UserError("Noise optimisation needs the weights where they are until the backward pass; leave offloading off.")
        self.decoder = Decoder(self.pipeline, sampler.tiny)
        self.forward = getattr(type(self.pipeline).__call__, "__wrapped__", None)  # diffusers puts torch.no_grad around it
        if self.forward is None:
            raise UserError(f"{type(self.pipeline).__name__} is no diffusers pipeline whose run can be differentiated.")

    def plain(self) -> Made:
        """The pipeline's own pictures; notes the starting noise, and where the generators stand when it has been drawn."""
        states = []

        def note(call) -> None:
            if not states:
                self.start = call.arguments["sample"].detach().clone() / self.scale()
                states.extend(generator.get_state() for generator in arguments["generator"])

        arguments = self.sampler.call(self.seeds, output_type="pt")
        with intercepted(self.pipeline.scheduler, note), self.plainly() as run:
            images = self.pipeline(**arguments).images
        self.states = states
        return images.float().clamp(0, 1).cpu(), run.trace, dict(run.calls)

    def plainly(self):
        """A block in which the pipeline's runs are counted; a scheduler that gets no generator adds the same noise in each of them."""
        return guided(self.pipeline, None, Unguided(), seeds=self.seeds, on_step=lambda row: self.sampler.on_step(), pinned=True)

    def weights(self) -> list[nn.Parameter]:
        return weights(part for part in (*self.pipeline.components.values(), self.decoder.vae) if isinstance(part, nn.Module))

    def slope(self, z: Tensor, memory: Ladder, views: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Images (n, 3, h, w), the objective's loss (n,) of their views, and its gradient to the noise z; with less at once for as long as
        memory runs out. The error comes back where nothing is left to be done about it."""
        states = [view.get_state() for view in views]
        while True:
            try:
                # Frozen until the backward pass is done, in which a frugal decoder computes anew.
                with frozen(self.weights()):
                    images = self(z)
                    values, down = memory.slopes(self.sampler.objective, images.detach().float(), views)
                    return images.detach(), values.loss.detach(), torch.autograd.grad(images, z, down.to(images.dtype))[0]
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                failed = str(error)
            images = values = down = None  # they hold what did not fit
            free()
            for view, state in zip(views, states, strict=True):
                view.set_state(state)
            if not memory.climb(len(z), through_denoiser=False):
                raise torch.OutOfMemoryError(failed)

    def scale(self) -> float:
        """By what the pipeline multiplies the noise that it is given."""
        return float(getattr(self.pipeline.scheduler, "init_noise_sigma", 1.))

    def __call__(self, z: Tensor) -> Tensor:
        with frozen(self.weights()):
            latents = self.forward(self.pipeline, **self._arguments(z, "latent")).images
            if not latents.requires_grad:
                raise UserError(f"{type(self.pipeline).__name__} keeps no gradient to its starting noise, so that it cannot be optimised.")
            return self.decoder(latents, grid=self._grid(latents))

    def rendered(self, z: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The pipeline's own pictures (n, 3, h, w) of other noise, on the CPU, and the costs."""
        with self.plainly() as run:
            images = self.pipeline(**self._arguments(z, "pt")).images
        return images.float().clamp(0, 1).cpu(), dict(run.calls)

    def _arguments(self, z: Tensor, kind: str) -> dict[str, Any]:
        arguments = self.sampler.call(self.seeds, output_type=kind, latents=z.to(self.start.dtype))
        # Schedulers that add noise add the same in each iteration, as in the plain run.
        for generator, state in zip(arguments["generator"], self.states, strict=True):
            generator.set_state(state)
        return arguments

    def _grid(self, latents: Tensor) -> tuple[int, int] | None:
        height, width = (self.sampler.arguments.get(name) for name in ("height", "width"))
        if latents.ndim != 3 or not (height and width):
            return None
        rows = round(math.sqrt(latents.shape[1] * height / width))
        return rows, latents.shape[1] // rows
