"""What every file goes through and no painter did: resizing, JPEG, an autoencoder. None of it is damage, so a reading must not see it."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderTiny
from torch import Generator, Tensor

from probes import image
from recipes.corruptions import jpeg

Trip = Callable[[Tensor, Generator], Tensor]


def resized(images: Tensor, generator: Generator) -> Tensor:
    """To 70 to 150 % of the size and back, bilinear or bicubic."""
    edge = int(images.shape[-1] * (0.7 + 0.8 * float(torch.rand(1, generator=generator))))
    mode = ("bilinear", "bicubic")[int(torch.randint(2, (1,), generator=generator))]
    return image.resize(image.resize(images, edge, mode), tuple(images.shape[-2:]), mode).clamp(0, 1)


def compressed(images: Tensor, generator: Generator) -> Tensor:
    """JPEG of quality 60 to 95."""
    return jpeg(images, 60 + int(torch.randint(36, (1,), generator=generator)))


def autoencoded(vae: AutoencoderTiny) -> Trip:
    """Encoded and decoded, as every picture of a latent diffusion model has been."""

    @torch.no_grad()
    def through(images: Tensor, _generator: Generator) -> Tensor:
        return (vae.decode(vae.encode(images * 2 - 1).latents).sample.float() / 2 + 0.5).clamp(0, 1)

    return through


def trips(vae: AutoencoderTiny | None) -> dict[str, Trip]:
    """The round trips by name; the autoencoder's where there is one."""
    return {"resize": resized, "jpeg": compressed} | ({"autoencoder": autoencoded(vae)} if vae is not None else {})
