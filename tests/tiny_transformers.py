"""Tiny pipelines of the transformer families: PixArt-Sigma, Sana, Qwen-Image, Z-Image, and some that no preset names."""
import tempfile
from functools import cache

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    KandinskyV22Pipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    UNet2DConditionModel,
    VQModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tiny_pipelines import autoencoder, flow_autoencoder, ready, scheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@cache
def letters() -> PreTrainedTokenizerFast:
    """A fast tokenizer, one token per printable character, with a chat template."""
    words = ["<pad>", "<eos>", "<unk>", *[chr(code) for code in range(32, 127)]]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=CHAT,
                                   model_max_length=512)


def t5(size: int = 32) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(letters()), d_model=size, d_ff=37, num_layers=1, num_heads=4, d_kv=8,
                                   is_encoder_decoder=False))


def qwen3(cls=Qwen3Model):
    return cls(Qwen3Config(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                           head_dim=8, vocab_size=len(letters()), max_position_embeddings=512, pad_token_id=0))


def gemma(size: int = 8) -> Gemma2Model:
    return Gemma2Model(Gemma2Config(head_dim=8, hidden_size=size, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2,
                                    num_key_value_heads=2, vocab_size=len(letters()), attn_implementation="eager", pad_token_id=0))


def pixart_sigma() -> PixArtSigmaPipeline:
    """The transformer predicts a variance too, which the pipeline cuts off after guidance."""
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32, in_channels=4,
        cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6)
    return ready(PixArtSigmaPipeline(tokenizer=letters(), text_encoder=t5(), vae=autoencoder(), transformer=transformer,
                                     scheduler=scheduler("DPMSolverMultistepScheduler")))


def sana() -> SanaPipeline:
    """A deep-compression autoencoder and flow prediction under DPM-Solver, as the released models have it."""
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4, num_cross_attention_heads=2,
        cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8, sample_size=32)
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1], downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
        decoder_act_fns="silu", scaling_factor=.41407)
    schedule = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.)
    return ready(SanaPipeline(tokenizer=letters(), text_encoder=gemma(), vae=vae, transformer=transformer, scheduler=schedule))


def qwen_image() -> QwenImagePipeline:
    """Packed latents, an autoencoder of videos with latent statistics, true guidance renormalised per token."""
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=3, joint_attention_dim=16,
        guidance_embeds=False, axes_dims_rope=(8, 4, 4))
    vae = AutoencoderKLQwenImage(base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
                                 latents_mean=[.1, -.2, .3, 0.], latents_std=[1., 1.5, 2., .5])
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    config = Qwen2_5_VLConfig(
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
                     "rope_scaling": rope, "rope_theta": 1e6, "vocab_size": len(letters())},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16})
    return ready(QwenImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, tokenizer=letters(), transformer=transformer,
                                   text_encoder=Qwen2_5_VLForConditionalGeneration(config)))


def z_image() -> ZImagePipeline:
    """Latents and predictions in lists, the prediction negated, a scale that counts beyond the prompt's own."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        norm_eps=1e-5, qk_norm=True, cap_feat_dim=16, rope_theta=256., t_scale=1000., axes_dims=[8, 4, 4], axes_lens=[512, 32, 32])
    with torch.no_grad():
        transformer.x_pad_token.fill_(1.)
        transformer.cap_pad_token.fill_(1.)
    return ready(ZImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=flow_autoencoder(), text_encoder=qwen3(),
                                tokenizer=letters(), transformer=transformer))


def lumina2() -> Lumina2Pipeline:
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=3,
        num_kv_heads=1, multiple_of=16, norm_eps=1e-5, axes_dim_rope=[4, 2, 2], cap_feat_dim=8)
    return ready(Lumina2Pipeline(transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=flow_autoencoder(),
                                 text_encoder=gemma(), tokenizer=letters()))


def aura_flow() -> AuraFlowPipeline:
    torch.manual_seed(0)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32, out_channels=4, pos_embed_max_size=256)
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=len(letters()), d_model=32, d_ff=37, num_layers=1, num_heads=4, d_kv=8,
                                          is_encoder_decoder=False))
    return ready(AuraFlowPipeline(tokenizer=letters(), text_encoder=encoder, vae=autoencoder(), transformer=transformer,
                                  scheduler=FlowMatchEulerDiscreteScheduler()))


def flux2() -> Flux2KleinPipeline:
    """Tokens that are patches of latents, normalised by running statistics of the autoencoder."""
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, timestep_guidance_channels=16, axes_dims_rope=[4, 4, 4, 4], guidance_embeds=False)
    vae = AutoencoderKLFlux2(
        sample_size=32, in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8,
        use_quant_conv=False, use_post_quant_conv=False)
    vae.bn.running_mean.copy_(torch.linspace(-.5, .5, 16))
    vae.bn.running_var.copy_(torch.linspace(.5, 2., 16))
    return ready(Flux2KleinPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=qwen3(Qwen3ForCausalLM),
                                    tokenizer=letters(), transformer=transformer))


def kandinsky() -> KandinskyV22Pipeline:
    """Guided by image embeddings; a quantising autoencoder, and a predicted variance that is cut off after guidance."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=8, addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32), layers_per_block=1, encoder_hid_dim=32, encoder_hid_dim_type="image_proj", cross_attention_dim=32,
        attention_head_dim=4, resnet_time_scale_shift="scale_shift", class_embed_type=None, norm_num_groups=8)
    movq = VQModel(block_out_channels=[16, 32], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
                   in_channels=3, out_channels=3, latent_channels=4, layers_per_block=1, norm_num_groups=8, num_vq_embeddings=12,
                   vq_embed_dim=4)
    return ready(KandinskyV22Pipeline(unet=unet, movq=movq, scheduler=scheduler("DDIMScheduler")))


def saved(pipeline) -> str:
    """A folder that holds the pipeline as a user would have it on disk."""
    folder = tempfile.mkdtemp(prefix="tiny-pipeline-")
    pipeline.save_pretrained(folder)
    return folder
