"""From a pipeline's latents to images in [0, 1], with gradient: unpacking, scale and shift, decoders of every kind, tiny ones too."""
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from guide.replay import Call
from probes.errors import UserError

# Decoders that take the latents as the scheduler leaves them, whatever scale their configuration names, and their further arguments.
UNSCALED: dict[str, dict[str, Any]] = {"VQModel": {"force_not_quantize": True}}


class Decoder:
    """`decoder(latents) -> images` (n, 3, h, w) in [0, 1], as the pipeline itself would decode them; `count` is the number of decodes.

    `tiny`: a decoder of the same latent space (TAESD and its kin), much cheaper, used in place of the pipeline's own. It takes the latents
    as the scheduler holds them, unpacked. A pipeline without autoencoder diffuses pixels in [-1, 1]. `frugal`: one image at a time, and
    activations computed again in the backward pass instead of held.
    """

    def __init__(self, pipeline, tiny: nn.Module | None = None):
        self.pipeline, self.family = pipeline, type(pipeline).__name__
        self.own = next((part for part in (getattr(pipeline, name, None) for name in ("vae", "movq", "vqvae")) if part is not None), None)
        self.tiny, self.frugal, self.count, self.busy = tiny, False, 0, False
        self._float32: nn.Module | None = None

    @property
    def vae(self) -> nn.Module | None:
        return self.tiny if self.tiny is not None else self.own

    def __call__(self, latents: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """`latents` as the scheduler holds them; `grid`: rows and columns of patches where they are packed, square if not given."""
        self.count += 1
        if self.frugal and torch.is_grad_enabled() and self.vae is not None:
            rows = (latents[i:i + 1] for i in range(len(latents)))
            return torch.cat([checkpoint(self._decoded, row, grid, use_reentrant=False) for row in rows])
        if self.frugal:
            return torch.cat([self._decoded(latents[i:i + 1], grid) for i in range(len(latents))])
        return self._decoded(latents, grid)

    def _decoded(self, latents: Tensor, grid: tuple[int, int] | None) -> Tensor:
        if self.vae is None:
            return clamp(self.input(latents, grid) / 2 + .5)
        if not hasattr(self.vae, "decode"):
            raise UserError(f"Guidance cannot decode with {type(self.vae).__name__}; pass tiny=, a decoder of the same latents.")
        vae, self.busy = self._decoder(latents.device), True
        try:
            pixels = vae.decode(self.input(latents, grid).to(vae.dtype), return_dict=False, **UNSCALED.get(_named(vae), {}))[0]
        finally:
            self.busy = False
        pixels = pixels[:, :, 0] if pixels.ndim == 5 else pixels
        return clamp(pixels.to(torch.promote_types(latents.dtype, torch.float32)) / 2 + .5)

    def input(self, latents: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """What the autoencoder is given for these latents."""
        packed = latents.ndim == 3
        if packed:
            latents = unpack(self.pipeline, latents, grid)
        if latents.ndim not in (4, 5) or (latents.ndim == 5 and latents.shape[2] != 1):
            raise UserError(f"Guidance cannot turn the latents of {self.family} into images (shape {tuple(latents.shape)}); "
                            "it knows pipelines with one image per latent, such as Stable Diffusion, SDXL, SD3 and FLUX.1.")
        if self.tiny is not None:
            latents = latents.squeeze(2) if latents.ndim == 5 else latents
            latents = unpatched(latents) if hasattr(self.own, "bn") else latents
            return _unscaled(latents, self.tiny.config)
        if self.own is None or _named(self.own) in UNSCALED:
            return latents
        if hasattr(self.own, "bn"):
            # FLUX.2: patches of 2 x 2, normalised by running statistics.
            mean, variance = (part.to(latents).view(1, -1, 1, 1) for part in (self.own.bn.running_mean, self.own.bn.running_var))
            return unpatched(latents * (variance + self.own.config.batch_norm_eps).sqrt() + mean)
        return _unscaled(latents, self.own.config)

    def _decoder(self, device: torch.device) -> nn.Module:
        if self.tiny is not None:
            return self.tiny.to(device)
        half = self.own.dtype == torch.float16 and hasattr(self.pipeline, "upcast_vae")
        if not (half and getattr(self.own.config, "force_upcast", False)):
            return self.own
        if self._float32 is None:
            # A copy, because SDXL's pipeline casts its own decoder up and back at the end and counts on finding it in half precision.
            self._float32 = copy.deepcopy(self.own).to(device=device, dtype=torch.float32).requires_grad_(False)
            self._float32.__dict__.pop("decode", None)  # the listener belongs to the pipeline's
        return self._float32

    @contextmanager
    def compared(self, last: Callable[[], tuple[Tensor, tuple[int, int] | None] | None], tell: Callable[[str], None]) -> Iterator[None]:
        """Inside, what the pipeline itself decodes is compared with what this decoder would have given for the `last` latents, so that a
        family whose rule is not known is found out; `tell` gets one sentence."""
        vae = getattr(self.own, "_orig_mod", self.own)
        before = dict(getattr(vae, "__dict__", {})).get("decode")
        if not isinstance(vae, nn.Module) or not hasattr(vae, "decode"):
            yield
            return
        original = vae.decode

        @functools.wraps(original)
        def decode(z, *args, **kwargs):
            found = None if self.busy else last()
            if found is not None and isinstance(z, Tensor) and not self._agrees(z, *found):
                tell(f"{self.family} decodes its latents in another way than guidance does: what steered is not what was painted; "
                     "pass tiny=, a decoder of the latents as the scheduler holds them, or leave guidance off.")
            return original(z, *args, **kwargs)

        vae.decode = decode
        try:
            yield
        finally:
            if before is None:
                del vae.decode
            else:
                vae.decode = before

    def _agrees(self, z: Tensor, latents: Tensor, grid: tuple[int, int] | None) -> bool:
        tiny, self.tiny = self.tiny, None
        try:
            expected = self.input(latents, grid).float()
        except UserError:
            return True  # nothing was steered by an image
        finally:
            self.tiny = tiny
        if len(z) != len(expected):
            return True  # slice by slice
        return z.shape == expected.shape and float((z.float() - expected).norm()) <= 2e-2 * float(expected.norm())


def _named(vae: nn.Module) -> str:
    return type(getattr(vae, "_orig_mod", vae)).__name__


def _unscaled(latents: Tensor, config) -> Tensor:
    scaling = getattr(config, "scaling_factor", None) or 1.
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (latents.ndim - 2))
        mean, std = (torch.as_tensor(values, device=latents.device, dtype=latents.dtype).view(shape) for values in (mean, std))
        return latents * std / scaling + mean
    return latents / scaling + (getattr(config, "shift_factor", None) or 0.)


def unpack(pipeline, latents: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Packed latents (n, rows * columns, c) in the shape of an image's, by the pipeline's own rule (FLUX.1, Qwen-Image and their kin:
    patches of 2 x 2), or in rows where the tokens are the latents themselves (FLUX.2)."""
    n, tokens, channels = latents.shape
    rows, columns = grid or (round(tokens**.5), round(tokens**.5))
    if rows * columns != tokens:
        raise UserError(f"The {tokens} latent patches do not fill a grid of {rows} x {columns}; pass the grid of the image.")
    if hasattr(getattr(pipeline, "vae", None), "bn"):
        return latents.transpose(1, 2).reshape(n, channels, rows, columns)
    own, factor = getattr(pipeline, "_unpack_latents", None), getattr(pipeline, "vae_scale_factor", None)
    if own is None or not factor or list(inspect.signature(own).parameters) != ["latents", "height", "width", "vae_scale_factor"]:
        raise UserError(f"Guidance cannot unpack the latents of {type(pipeline).__name__} into images; it knows packed latents where the "
                        "pipeline has a rule of FLUX.1's form for them.")
    for patch in (2 * factor, factor):  # some count the patch in the factor (Bria)
        try:
            return own(latents, rows * patch, columns * patch, factor)
        except RuntimeError as error:
            refused = " ".join(str(error).split())
    raise UserError(f"The latents of {type(pipeline).__name__} cannot be unpacked for a grid of {rows} x {columns} ({refused}); pass "
                    "another size, or a pipeline of another family.")


def unpatched(latents: Tensor) -> Tensor:
    """(n, 4 c, rows, columns) -> (n, c, 2 rows, 2 columns)."""
    return nn.functional.pixel_shuffle(latents, 2)


def grid_of(calls: Sequence[Call]) -> tuple[int, int] | None:
    """Rows and columns of the patches of packed latents, from the shapes or places that the pipeline tells its transformer; those of a
    reference image count apart."""
    shapes = next((call.kwargs["img_shapes"] for call in calls if call.kwargs.get("img_shapes")), None)
    while isinstance(shapes, list):
        shapes = shapes[0]
    if shapes is not None:
        return int(shapes[-2]), int(shapes[-1])
    places = next((call.kwargs["img_ids"] for call in calls if isinstance(call.kwargs.get("img_ids"), Tensor)), None)
    if places is None:
        return None
    places = places.reshape(-1, places.shape[-1])
    places = places[places[:, 0] == 0]
    return int(places[:, 1].max()) + 1, int(places[:, 2].max()) + 1


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
