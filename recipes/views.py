"""What the encoders see in training: crops and colours as they come, and the damage that a guided sampler will show them."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recipes.data import random_crop


def views(images: torch.Tensor, side: int, generator: torch.Generator, smallest: int = 80) -> torch.Tensor:
    """Random crops of `smallest` to all pixels, resized to `side`, mirrored, mildly jittered in brightness, contrast and saturation."""
    pieces = []
    for group in images.split(max(1, len(images) // 4)):
        edge = int(torch.randint(smallest, images.shape[-1] + 1, (1,), generator=generator))
        crops = random_crop(group, edge, generator)
        pieces.append(
            F.interpolate(crops, size=(side, side), mode="bilinear", antialias=True, align_corners=False) if edge != side else crops
        )
    out = torch.cat(pieces)
    amount = (torch.rand(3, len(out), 1, 1, 1, generator=generator) * 0.4 + 0.8).to(out.device)
    out = out * amount[0]
    out = (out - out.mean((2, 3), keepdim=True)) * amount[1] + out.mean((2, 3), keepdim=True)
    return (out.mean(1, keepdim=True) + (out - out.mean(1, keepdim=True)) * amount[2]).clamp(0, 1)


def damaged(
    images: torch.Tensor, generator: torch.Generator, autoencode: Callable | None = None, estimate: Callable | None = None
) -> torch.Tensor:
    """A third noised (sigma to .3), a third blurred (1.5 to 4 times), every other one of the rest autoencoded and those between as a
    denoiser estimates them, where there is what does it."""
    n = len(images) // 3
    noised, blurred, coded = images[:n], images[n : 2 * n], images[2 * n :]
    sigma = (torch.rand(len(noised), 1, 1, 1, generator=generator) * 0.3).to(images.device)
    noise = torch.randn(noised.shape, generator=generator).to(images.device)
    factor = 1.5 + 2.5 * float(torch.rand(1, generator=generator))
    side = images.shape[-1]
    small = F.interpolate(blurred, scale_factor=1 / factor, mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(small, size=(side, side), mode="bicubic", align_corners=False)
    if autoencode is not None:
        with torch.no_grad():
            # Half of them: a pass costs as much as a training step of the encoder on the same image.
            coded = coded.clone()
            coded[::2] = autoencode(coded[::2])  # in place: the order is that of the labels
            if estimate is not None and len(coded) > 1:
                coded[1::2] = estimate(coded[1::2])
    return torch.cat([noised + sigma * noise, blurred, coded]).clamp(0, 1)


def adversarial(images: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], norm: torch.Tensor) -> torch.Tensor:
    """One L2 step of length `norm` per image up the loss (arXiv:1412.6572, in the L2 ball).

    Features that withstand it have gradients that look like the class, not like noise.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(images), images)
    gradient = gradient.float()
    return (images + norm * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]).clamp(0, 1).detach()


def vae_pass(vae: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images through the autoencoder and back, with a little noise on the latents, as a denoiser would leave it."""

    def through(images):
        latents = vae.encode(images * 2 - 1).latents
        return (vae.decode(latents + 0.1 * torch.randn_like(latents)).sample.float() / 2 + 0.5).clamp(0, 1)

    return through
