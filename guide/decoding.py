"""From a pipeline's latents to images in [0, 1], with gradient: unpacking, scale and shift, KL and tiny decoders."""
import copy

import torch
from torch import Tensor, nn

from probes.errors import UserError


class Decoder:
    """`decoder(latents) -> images` (n, 3, h, w) in [0, 1], as the pipeline itself would decode them; `count` is the number of decodes.

    `tiny`: an AutoencoderTiny of the same latent space (TAESD and its kin), much cheaper, used in place of the pipeline's own decoder.
    A pipeline without autoencoder diffuses pixels in [-1, 1].
    """

    def __init__(self, pipeline, tiny: nn.Module | None = None):
        self.family = type(pipeline).__name__
        self.vae = tiny if tiny is not None else getattr(pipeline, "vae", None)
        self.tiny = tiny is not None
        self.upcasts = not self.tiny and hasattr(pipeline, "upcast_vae")
        self.count = 0
        self._float32: nn.Module | None = None

    def __call__(self, latents: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """`latents` as the scheduler holds them; `grid`: rows and columns of patches where they are packed (FLUX), square if not given."""
        self.count += 1
        if latents.ndim == 3:
            latents = unpack(latents, grid, self.family)
        if latents.ndim != 4:
            raise UserError(f"Guidance cannot turn the latents of {self.family} into images (shape {tuple(latents.shape)}); "
                            "it knows pipelines with one image per latent, such as Stable Diffusion, SDXL, SD3 and FLUX.1.")
        if self.vae is None:
            return clamp(latents / 2 + .5)
        if not hasattr(self.vae, "decode"):
            raise UserError(f"Guidance cannot decode with {type(self.vae).__name__}; pass tiny=, a decoder of the same latents.")
        vae = self._decoder(latents.device)
        pixels = vae.decode(_unscaled(latents, vae.config).to(vae.dtype), return_dict=False)[0]
        return clamp(pixels.to(torch.promote_types(latents.dtype, torch.float32)) / 2 + .5)

    def _decoder(self, device: torch.device) -> nn.Module:
        if self.tiny:
            return self.vae.to(device)
        if not (self.upcasts and self.vae.dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False)):
            return self.vae
        if self._float32 is None:
            # A copy, because SDXL's pipeline casts its own decoder up and back at the end and counts on finding it in half precision.
            self._float32 = copy.deepcopy(self.vae).to(device=device, dtype=torch.float32).requires_grad_(False)
        return self._float32


def _unscaled(latents: Tensor, config) -> Tensor:
    scaling = getattr(config, "scaling_factor", None) or 1.
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        mean, std = (torch.as_tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1) for values in (mean, std))
        return latents * std / scaling + mean
    return latents / scaling + (getattr(config, "shift_factor", None) or 0.)


def unpack(latents: Tensor, grid: tuple[int, int] | None, family: str = "FluxPipeline") -> Tensor:
    """FLUX.1's packed latents (n, rows * columns, 4 c) -> (n, c, 2 rows, 2 columns)."""
    if not family.startswith("Flux") or family.startswith("Flux2"):
        raise UserError(f"Guidance cannot unpack the latents of {family} into images; of the packed kinds it knows FLUX.1 alone.")
    n, tokens, channels = latents.shape
    rows, columns = grid or (round(tokens**.5), round(tokens**.5))
    if rows * columns != tokens:
        raise UserError(f"The {tokens} latent patches do not fill a grid of {rows} x {columns}; pass the grid of the image.")
    patches = latents.view(n, rows, columns, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, channels // 4, 2 * rows, 2 * columns)


class _Clamp(torch.autograd.Function):
    """Clamps to [0, 1]; lets a gradient pass where it leads back into the range, so that a saturated pixel is not stuck."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        clamped = images.clamp(0, 1)
        ctx.save_for_backward(images - clamped)
        return clamped

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (excess,) = ctx.saved_tensors
        return gradient * (gradient * excess >= 0)


def clamp(images: Tensor) -> Tensor:
    """Into [0, 1]. Descent may still bring back what lies outside."""
    return _Clamp.apply(images)
