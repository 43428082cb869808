"""Families that no preset names, and variants: each is steered, or refused in a sentence that says why and what to do."""
from collections.abc import Callable
from dataclasses import dataclass, field

import diffusers
import pytest
import tiny_transformers as transformers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_pipelines import Warmth, autoencoder, flow_autoencoder, flux, ready, scheduler, sd, unet

from guide.guided import guided
from guide.seeds import generators
from guide.strategies import DPS, CleanImage
from probes.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SMALL, LARGE = {"height": 16, "width": 16}, {"height": 32, "width": 32}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def embedded(tokens: int, width: int) -> Callable:
    """Embeddings in place of prompts, of the image that each seed stands for."""
    whole = drawn(9, tokens, width)
    return lambda seeds: {"prompt_embeds": whole[list(seeds)], "negative_prompt_embeds": torch.zeros(len(seeds), tokens, width)}


@dataclass(frozen=True)
class Further:
    """`given(seeds)`: further arguments; `shown`: what makes images (n, 3, h, w) in [0, 1] of what comes out; `through`: whether a gradient
    can go through the denoiser."""

    build: Callable
    arguments: dict = field(default_factory=dict)
    given: Callable = lambda seeds: {"prompt": [f"a painting {'ab'[seed % 2]}" for seed in seeds]}
    shown: Callable = lambda images: images
    through: bool = True
    steps: int = 3

    def __call__(self, pipeline, seeds=(1, 2)) -> torch.Tensor:
        found = pipeline(num_inference_steps=self.steps, generator=generators(seeds), **{"output_type": "pt", **self.arguments},
                         **self.given(seeds))
        return self.shown(found[0] if isinstance(found, tuple) else next(iter(found.values())))


def pixart_alpha():
    base = transformers.pixart_sigma().components
    return ready(diffusers.PixArtAlphaPipeline(**base))


def chroma():
    torch.manual_seed(0)
    denoiser = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=[4, 4, 8], approximator_hidden_dim=32, approximator_layers=1, approximator_num_channels=16)
    return ready(diffusers.ChromaPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=transformers.t5(),
                                          tokenizer=transformers.letters(), transformer=denoiser, vae=flow_autoencoder()))


def bria():
    torch.manual_seed(0)
    denoiser = diffusers.BriaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=None, axes_dims_rope=[0, 4, 4])
    return ready(diffusers.BriaPipeline(transformer=denoiser, vae=autoencoder(), scheduler=FlowMatchEulerDiscreteScheduler(),
                                        text_encoder=transformers.t5(), tokenizer=transformers.letters()))


def cogview4():
    torch.manual_seed(0)
    denoiser = diffusers.CogView4Transformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=4, out_channels=4, text_embed_dim=16,
        time_embed_dim=8, condition_dim=4)
    return ready(diffusers.CogView4Pipeline(tokenizer=transformers.letters(), text_encoder=transformers.qwen3(), vae=autoencoder(),
                                            transformer=denoiser, scheduler=FlowMatchEulerDiscreteScheduler()))


def cogview3():
    torch.manual_seed(0)
    denoiser = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2, out_channels=4, text_embed_dim=32,
        time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8)
    return ready(diffusers.CogView3PlusPipeline(tokenizer=transformers.letters(), text_encoder=transformers.t5(), vae=autoencoder(),
                                                transformer=denoiser, scheduler=diffusers.CogVideoXDDIMScheduler()))


def hunyuan():
    torch.manual_seed(0)
    denoiser = diffusers.HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4, cross_attention_dim=32,
        cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24, activation_fn="gelu-approximate")
    return ready(diffusers.HunyuanDiTPipeline(
        transformer=denoiser, vae=autoencoder(), text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        scheduler=scheduler("DDPMScheduler", "v_prediction"), safety_checker=None, feature_extractor=None, requires_safety_checker=False))


def of_hunyuan(seeds) -> dict:
    found = {}
    for name, tokens in (("", 77), ("_2", 256)):
        for sign, values in embedded(tokens, 32)(seeds).items():
            found[sign + name] = values
            found[sign.replace("embeds", "attention_mask") + name] = torch.ones(len(seeds), tokens, dtype=torch.long)
    return found


def deepfloyd():
    """Pixels, a predicted variance that the scheduler takes, thresholding."""
    torch.manual_seed(0)
    denoiser = diffusers.UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8, in_channels=3, out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=32, encoder_hid_dim=32,
        attention_head_dim=8, addition_embed_type="text", addition_embed_type_num_heads=2, cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift", act_fn="gelu")
    schedule = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", thresholding=True, dynamic_thresholding_ratio=.95,
                                       variance_type="learned_range")
    return ready(diffusers.IFPipeline(tokenizer=None, text_encoder=None, unet=denoiser, scheduler=schedule, safety_checker=None,
                                      feature_extractor=None, watermarker=None, requires_safety_checker=False))


def dit():
    """Every image twice in the batch that the scheduler sees."""
    torch.manual_seed(0)
    denoiser = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=4, attention_head_dim=8, num_attention_heads=2, in_channels=4, out_channels=8)
    return ready(diffusers.DiTPipeline(transformer=denoiser, vae=autoencoder(), scheduler=diffusers.DDIMScheduler()))


def lcm():
    torch.manual_seed(0)
    denoiser = diffusers.UNet2DConditionModel.from_config(unet().config, time_cond_proj_dim=32)
    return ready(diffusers.LatentConsistencyModelPipeline(**sd().components | {"unet": denoiser, "scheduler": scheduler("LCMScheduler")},
                                                          requires_safety_checker=False))


def wan(frames: int = 1):
    torch.manual_seed(0)
    denoiser = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=32, freq_dim=256,
        ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32)
    vae = diffusers.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    return ready(diffusers.WanPipeline(transformer=denoiser, vae=vae, text_encoder=None, tokenizer=None,
                                       scheduler=FlowMatchEulerDiscreteScheduler()))


def img2img():
    return ready(diffusers.FluxImg2ImgPipeline(**flux().components))


def filled():
    base = flux().components
    torch.manual_seed(0)
    denoiser = diffusers.FluxTransformer2DModel.from_config(base["transformer"].config, in_channels=48, out_channels=16)
    return ready(diffusers.FluxFillPipeline(**{k: v for k, v in base.items() if "image_encoder" not in k and "feature" not in k}
                                            | {"transformer": denoiser}))


PICTURES = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pictured(seeds) -> dict:
    return {"prompt": ["a painting"] * len(seeds), "image": PICTURES[list(seeds)]}


def masked(seeds) -> dict:
    return pictured(seeds) | {"mask_image": torch.cat([torch.zeros(len(seeds), 1, 32, 16), torch.ones(len(seeds), 1, 32, 16)], -1)}


FURTHER = {
    "pixart alpha": Further(pixart_alpha, SMALL | {"use_resolution_binning": False, "clean_caption": False}),
    "chroma": Further(chroma, LARGE | {"negative_prompt": "x", "max_sequence_length": 32}),
    "bria": Further(bria, LARGE | {"max_sequence_length": 48}),
    "cogview4": Further(cogview4, SMALL, embedded(16, 16)),
    "cogview3 plus": Further(cogview3, SMALL, embedded(16, 32)),
    "hunyuan dit": Further(hunyuan, SMALL | {"use_resolution_binning": False}, of_hunyuan),
    "deepfloyd": Further(deepfloyd, SMALL, embedded(16, 32), lambda images: (images / 2 + .5).clamp(0, 1)),
    "dit": Further(dit, {"output_type": "np"}, lambda seeds: {"class_labels": list(seeds)},
                   lambda images: torch.from_numpy(images).permute(0, 3, 1, 2), through=False),
    "lcm": Further(lcm, SMALL),
    "wan, one frame": Further(wan, SMALL | {"num_frames": 1}, embedded(16, 32), lambda frames: frames[:, 0]),
    "flux img2img": Further(img2img, LARGE | {"strength": .7}, pictured, steps=4),
    "flux fill": Further(filled, LARGE, masked),
}


def steer(family: Further, pipeline, strategy, seeds=(1, 2)):
    with guided(pipeline, Warmth(), strategy, seeds=seeds, on_notice=lambda line: None) as run:
        return family(pipeline, seeds), run


def loss(images):
    return Warmth(noise=0.)(images.float(), generators(range(len(images)))).loss


@pytest.mark.parametrize("name", FURTHER)
def test_it_is_steered_or_left_alone(name):
    family = FURTHER[name]
    pipeline = family.build()
    plain = family(pipeline)
    assert torch.equal(steer(family, pipeline, CleanImage(strength=0.))[0], plain)
    images, run = steer(family, pipeline, CleanImage(strength=3.))
    assert (loss(images) < loss(plain)).all()
    assert run.notices == [], "what it decodes is what guidance decoded"
    assert (steer(family, pipeline, CleanImage(strength=3.), (2,))[0][0] - images[1]).abs().max() < 3e-4
    if family.through:
        images, run = steer(family, pipeline, DPS(strength=3.))
        assert (loss(images) < loss(plain)).all()
        assert max(row["residual"] for row in run.trace) < 1e-5
    else:
        with pytest.raises(UserError, match="clean-image space"):
            steer(family, pipeline, DPS())


def sprint():
    base = transformers.sana().components
    denoiser = diffusers.SanaTransformer2DModel.from_config(base["transformer"].config, qk_norm="rms_norm_across_heads",
                                                            guidance_embeds=True)
    return ready(diffusers.SanaSprintPipeline(**base | {"transformer": denoiser, "scheduler": diffusers.SCMScheduler()}))


def consistency():
    torch.manual_seed(0)
    denoiser = diffusers.UNet2DModel(sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8,
                                     down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    return ready(diffusers.ConsistencyModelPipeline(unet=denoiser, scheduler=diffusers.CMStochasticIterativeScheduler()))


@pytest.mark.parametrize(("family", "told"), [
    (Further(wan, SMALL | {"num_frames": 9}, embedded(16, 32)), "one image per latent"),
    (Further(sprint, LARGE | {"use_resolution_binning": False, "complex_human_instruction": None, "clean_caption": False}, steps=2),
     "does not know the scheduler SCMScheduler"),
    (Further(consistency, {}, lambda seeds: {"batch_size": len(seeds)}, steps=2), "does not know the scheduler CMStochastic"),
], ids=["video", "sana sprint", "consistency model"])
def test_what_cannot_be_steered_is_refused_and_runs_at_strength_0(family, told):
    pipeline = family.build()
    plain = family(pipeline)
    assert torch.equal(steer(family, pipeline, CleanImage(strength=0.))[0], plain)
    with pytest.raises(UserError, match=told):
        steer(family, pipeline, CleanImage())
