"""Every family of pipelines as the tests of guidance go through them: how it is built and called, and how it combines its predictions."""
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import tiny_transformers as transformers
import torch
from tiny_pipelines import call, flux, sd, sd3, sdxl


@dataclass(frozen=True)
class Family:
    """A way to build and call a pipeline; `weights` are those of classifier-free guidance, `conditional` the place of the prompt's own,
    `calls` the denoiser's per step. `listed`: arguments that want one value per image; `small`: a strength that float32 still resolves."""

    build: Callable
    arguments: dict = field(default_factory=dict)
    weights: tuple[float, ...] = (1.,)
    conditional: int | None = None
    calls: int = 1
    norm: str = ""
    listed: tuple[str, ...] = ()
    prompts: bool = True
    small: float = 1e-4

    def __call__(self, pipeline, seeds=(1, 2), **more) -> torch.Tensor:
        """Images (n, 3, h, w) of the seeds."""
        arguments = {name: [value] * len(seeds) if name in self.listed else value for name, value in self.arguments.items()} | more
        if not self.prompts:
            shown = torch.stack([torch.randn(32, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
            arguments |= {"image_embeds": shown, "negative_image_embeds": torch.zeros_like(shown)}
        images = call(pipeline, seeds, text=self.prompts, **arguments)
        return images if self.prompts else (images / 2 + .5).clamp(0, 1)  # Kandinsky leaves tensors in [-1, 1]


def turbo(build: Callable) -> Callable:
    """Distilled models: one step from the last timestep, no guidance."""
    return lambda: build(schedule="EulerAncestralDiscreteScheduler", timestep_spacing="trailing")


SINGLE = {"guidance_scale": 0., "steps": 1}
NAMED = {
    "sd": Family(sd, {}, (-6.5, 7.5), 1),
    "sd 2.1 (v)": Family(lambda: sd("v_prediction"), {}, (-6.5, 7.5), 1),
    "sd turbo": Family(turbo(sd), SINGLE),
    "sdxl": Family(sdxl, {}, (-4., 5.), 1),
    "sdxl turbo": Family(turbo(sdxl), SINGLE),
    "sd3": Family(sd3, {}, (-6., 7.), 1),
    "flux": Family(flux),
    "flux true cfg": Family(flux, {"true_cfg_scale": 4., "negative_prompt": "x"}, (4., -3.), 0, 2),
    "no cfg": Family(sd, {"guidance_scale": 1.}),
    "pixart-sigma": Family(transformers.pixart_sigma, {"use_resolution_binning": False, "guidance_scale": 4.5, "clean_caption": False},
                           (-3.5, 4.5), 1),
    "sana": Family(transformers.sana, {"use_resolution_binning": False, "complex_human_instruction": None, "height": 32, "width": 32,
                                       "negative_prompt": "x", "clean_caption": False}, (-3.5, 4.5), 1),
    "qwen-image": Family(transformers.qwen_image, {"negative_prompt": "x", "true_cfg_scale": 4., "width": 24}, (4., -3.), 0, 2,
                         "last dimension", small=5e-3),
    "z-image": Family(transformers.z_image, {"guidance_scale": 3., "negative_prompt": "x"}, (-4., 3.), 0, listed=("negative_prompt",)),
    "z-image turbo": Family(transformers.z_image, {"guidance_scale": 0.}, (-1.,)),
}
# None of these has a preset or a line of its own in what turns latents into images.
UNNAMED = {
    "lumina 2": Family(transformers.lumina2, {"height": 32, "width": 32}, (-4., 3.), 0, 2, "last dimension"),
    "auraflow": Family(transformers.aura_flow, {"guidance_scale": 3.5, "negative_prompt": "x"}, (-2.5, 3.5), 1,
                       listed=("negative_prompt",)),
    "flux.2 klein": Family(transformers.flux2, {"guidance_scale": 4., "text_encoder_out_layers": (1,), "width": 24}, (4., -3.), 0, 2,
                           small=1e-3),
    "kandinsky 2.2": Family(transformers.kandinsky, {}, (-3., 4.), 1, prompts=False),
}
FAMILIES = NAMED | UNNAMED


@cache
def built(name: str):
    """The family's pipeline, made once: guidance leaves it as it was."""
    return FAMILIES[name].build()


@cache
def plain(name: str) -> torch.Tensor:
    """What the family paints without guidance for the seeds 1 and 2."""
    return FAMILIES[name](built(name))
