"""Tiny pipelines of random weights, one builder per family, and a small real objective: what the tests of guidance run on."""
import inspect
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDPMPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel

SIDE = 16
BETAS = {"beta_start": .00085, "beta_end": .012, "beta_schedule": "scaled_linear"}


@cache
def tokenizer() -> CLIPTokenizer:
    """One token per printable character."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-tokenizer-"))
    letters = [chr(code) for code in range(33, 127)]
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def text_encoder(projection: bool = False):
    size = len(tokenizer())
    config = CLIPTextConfig(vocab_size=size, hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
                            bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1, projection_dim=32)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def autoencoder(**options) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=[16, 32], in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 2,
                         up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, norm_num_groups=8, **options)


def tiny_autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
                           num_decoder_blocks=(1, 1), latent_channels=4, upsampling_scaling_factor=2).eval()


def scheduler(name: str = "DDIMScheduler", prediction: str = "epsilon", **options):
    """A scheduler as Stable Diffusion configures it; those of flow matching and EDM have their own."""
    cls = getattr(diffusers, name)
    if name.startswith("FlowMatch"):
        return cls(**options)
    if name.startswith("EDM"):
        return cls(prediction_type=prediction, **options)
    known = {"clip_sample": False, "steps_offset": 1, "skip_prk_steps": True, "set_alpha_to_one": False}
    accepted = inspect.signature(cls).parameters
    known = {key: value for key, value in known.items() if key in accepted}
    return cls(prediction_type=prediction, **BETAS, **{**known, **options})


def unet(channels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=channels, out_channels=4, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32)


def sd(prediction: str = "epsilon", schedule: str = "DDIMScheduler", **options) -> StableDiffusionPipeline:
    denoiser = unet()
    return ready(StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=text_encoder(), tokenizer=tokenizer(), unet=denoiser, safety_checker=None, feature_extractor=None,
        scheduler=scheduler(schedule, prediction, **options), requires_safety_checker=False))


def sdxl(schedule: str = "EulerDiscreteScheduler", **options) -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    denoiser = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80, cross_attention_dim=64)
    return ready(StableDiffusionXLPipeline(
        vae=autoencoder(), text_encoder=text_encoder(), text_encoder_2=text_encoder(True), tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=denoiser, scheduler=scheduler(schedule, **options), add_watermarker=False))


def sd3() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32,
        joint_attention_dim=64, pooled_projection_dim=64, out_channels=4)
    return ready(StableDiffusion3Pipeline(
        transformer=transformer, vae=flow_autoencoder(), text_encoder=text_encoder(True), text_encoder_2=text_encoder(True),
        text_encoder_3=None, tokenizer=tokenizer(), tokenizer_2=tokenizer(), tokenizer_3=None, scheduler=FlowMatchEulerDiscreteScheduler()))


def flux() -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=True)
    t5 = T5Config(vocab_size=len(tokenizer()), d_model=32, d_ff=37, num_layers=1, num_heads=4, d_kv=8, is_encoder_decoder=False)
    return ready(FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=text_encoder(), tokenizer=tokenizer(), text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=tokenizer(), transformer=transformer, vae=flow_autoencoder()))


def flow_autoencoder() -> AutoencoderKL:
    return autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=.0609, scaling_factor=1.5)


def pixels() -> DDPMPipeline:
    """Diffusion of pixels, without text, autoencoder and classifier-free guidance."""
    torch.manual_seed(0)
    denoiser = UNet2DModel(block_out_channels=(8, 16), layers_per_block=1, sample_size=16, norm_num_groups=8,
                           down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))
    return ready(DDPMPipeline(unet=denoiser, scheduler=scheduler("DDPMScheduler")))


def ready(pipeline):
    """In evaluation mode, as models built from a configuration are not; quiet."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@dataclass(frozen=True)
class Values:
    loss: Tensor
    terms: dict[str, Tensor]


class Warmth:
    """A real objective: far from a red checkerboard, seen through a noisy view per image."""

    def __init__(self, noise: float = .02):
        self.noise, self.calls = noise, 0

    def __call__(self, images: Tensor, generators: list[torch.Generator]) -> Values:
        self.calls += 1
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        noise = torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in generators])
        seen = images + self.noise * noise.to(images.device)
        colour = (seen.mean((2, 3)) - torch.tensor([.9, .2, .1], device=images.device)).pow(2).sum(1)
        texture = torch.tanh(4 * (seen[..., ::2, ::2] - seen[..., 1::2, 1::2])).mean((1, 2, 3))
        return Values(colour + texture, {"colour": colour, "texture": texture})


def call(pipeline, seeds=(1, 2), steps: int = 3, prompts=None, text: bool = True, **arguments) -> Tensor:
    """Images (n, 3, h, w) of the seeds, one prompt each."""
    words = {"prompt": prompts or [f"a painting, {'ab'[seed % 2] * 3}" for seed in seeds]} if text else {}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    size = {} if "image" in arguments else {"height": SIDE, "width": SIDE}
    return pipeline(**words, num_inference_steps=steps, generator=generators, output_type="pt", **{**size, **arguments}).images
