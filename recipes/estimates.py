"""A denoiser's clean estimates of paintings: what a guided sampler will show the encoder, with the painting's own label."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch.nn import functional as F

from recipes.denoiser import SCHEDULE, unprompted

# Steps of 1,000 from which it looks: before them nothing is missing, after them little of the painting is left to deserve its label.
TIMES = 100, 700


def estimate_pass(vae: AutoencoderTiny, unet: UNet2DConditionModel, generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """What gives images `(n, 3, s, s)` in [0, 1] as the posterior mean of their noised latents (Tweedie's formula, as in arXiv:2209.14687),
    decoded: one call of the denoiser each, without words, at noise levels drawn evenly from TIMES."""
    side, device = 8 * unet.config.sample_size, unet.device
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)

    @torch.no_grad()
    def through(images: torch.Tensor) -> torch.Tensor:
        count, edge = len(images), images.shape[-1]
        latents = vae.encode(2 * F.interpolate(images, (side, side), mode="bilinear", antialias=True) - 1).latents
        times = torch.randint(*TIMES, (count,), generator=generator).to(device)
        a, b = alphas[times].sqrt()[:, None, None, None], (1 - alphas[times]).sqrt()[:, None, None, None]
        noisy = a * latents + b * torch.randn(latents.shape, generator=generator).to(device)
        velocity = unet(noisy, times, **unprompted(unet, noisy)).sample.float()
        seen = vae.decode(a * noisy - b * velocity).sample.float() / 2 + 0.5
        return F.interpolate(seen, (edge, edge), mode="bilinear", antialias=True).clamp(0, 1)

    return through
