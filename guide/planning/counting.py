"""How often a strategy calls denoiser, decoder and encoder, found by running it: on a pipeline of a few numbers, with the same steps."""
from collections import Counter
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from guide.loops.sample import Sampler
from guide.strategies.strategy import Strategy


class _Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)
        self.rows = Counter()

    def forward(self, sample: Tensor, t=None) -> tuple[Tensor]:
        self.rows["denoiser with gradient" if torch.is_grad_enabled() and sample.requires_grad else "denoiser"] += len(sample)
        return (self.net(sample),)


class _Pipeline:
    """Diffusion of 8 x 8 pixels, with classifier-free guidance in one call where the model has it."""

    def __init__(self, guided: bool):
        torch.manual_seed(0)
        self.unet, self.vae, self.guided = _Denoiser().eval(), None, guided
        self.scheduler = DDIMScheduler(clip_sample=False)
        self.components = {"unet": self.unet}
        self.device, self.dtype, self.guidance_scale = "cpu", torch.float32, 4.

    @torch.no_grad()
    def __call__(self, generator, num_inference_steps: int, latents: Tensor | None = None, output_type: str = "pt"):
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.stack([torch.randn(3, 8, 8, generator=one) for one in generator]) if latents is None else latents
        for t in self.scheduler.timesteps:
            if self.guided:
                first, second = self.unet(torch.cat([x, x]), t)[0].chunk(2)
                output = first + self.guidance_scale * (second - first)
            else:
                output = self.unet(x, t)[0]
            # Some noise, for strategies that shape it.
            x = self.scheduler.step(output, t, x, eta=1., generator=generator).prev_sample
        return SimpleNamespace(images=x if output_type == "latent" else (x / 2 + .5).clamp(0, 1))


class _Objective:
    def __init__(self, rows: Counter):
        self.rows = rows

    def __call__(self, images: Tensor, generators) -> SimpleNamespace:
        self.rows["guided look" if images.requires_grad else "look"] += len(images)
        loss = images.square().mean((1, 2, 3))
        return SimpleNamespace(loss=loss, terms={"mean": loss.detach()})


def calls(strategy: Strategy, steps: int, images: int, guided: bool) -> Counter:
    """Rows through each network, of a run of `images` pictures: "denoiser", "denoiser with gradient", "guided look" (decoder and encoder,
    forward and backward) and "look" (forward alone)."""
    pipeline = _Pipeline(guided)
    sampler = Sampler(pipeline, {"num_inference_steps": steps}, _Objective(pipeline.unet.rows))
    sampler(tuple(range(images)), strategy)
    return pipeline.unet.rows
