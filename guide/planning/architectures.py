"""Configurations of the models in configs/models, for plans and benchmarks without a network and without weights.

Where they were read: diffusers 0.42's own defaults (FLUX.1's, Qwen-Image's and Z-Image's transformer, Qwen-Image's autoencoder) and
conversion scripts (Stable Diffusion, SD3, PixArt-Sigma, Sana, its autoencoder); open_clip's ViT-H-14.json less its last layer (2.1's text);
T5 v1.1 XXL in torchtune's and T5's own settings; Gemma 2 2B in transformers' defaults; Qwen2.5-VL 7B and Qwen3 4B in listings of the loaded
networks on GitHub. Tests hold them to what is published: UNets .86 and 2.57 billion parameters, the decoder 49,490,179 (TAESD's README),
transformers of 12, 2.5, .6, 1.6, 20 and 6 billion (their cards), and the operations in the literature (UNet of SD 1.5 at 512: .80 TFLOP,
of SDXL at 1024: 6.76; KL decoder at 512: 2.5).
"""
KL = {"in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32}
KL16 = KL | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
DC = {"latent_channels": 32, "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
      "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3, "downsample_block_type": "conv",
      "upsample_block_type": "interpolate", "scaling_factor": .41407}
SD15 = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = SD15 | {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
SDXL = {"sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "cross_attention_dim": 2048,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}
SD35 = {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "caption_projection_dim": 1536, "pos_embed_max_size": 384,
        "dual_attention_layers": list(range(13)), "qk_norm": "rms_norm"}
PIXART = {"caption_channels": 4096, "interpolation_scale": 2, "use_additional_conditions": False}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23, "projection_dim": 1024}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280}
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
      "is_encoder_decoder": False}
QWEN_VL = {"text_config": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
                           "num_key_value_heads": 4, "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}},
           "vision_config": {"hidden_size": 1280}}
QWEN3 = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
         "tie_word_embeddings": True}

Part = tuple[str, str, dict]
_CLIP: Part = ("transformers", "CLIPTextModel", CLIP_L)
_T5: Part = ("transformers", "T5EncoderModel", T5)


def _vae(config: dict, scale: float) -> Part:
    return "diffusers", "AutoencoderKL", config | {"scaling_factor": scale}


_SD = {"unet": ("diffusers", "UNet2DConditionModel", SD15), "vae": _vae(KL, .18215), "text_encoder": _CLIP}
_SD2 = {"unet": ("diffusers", "UNet2DConditionModel", SD21), "vae": _vae(KL, .18215),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_H)}
_XL = {"unet": ("diffusers", "UNet2DConditionModel", SDXL), "vae": _vae(KL, .13025), "text_encoder": _CLIP,
       "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", BIG_G)}
_SD3 = {"transformer": ("diffusers", "SD3Transformer2DModel", SD35), "vae": _vae(KL16 | {"shift_factor": .0609}, 1.5305),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP_L),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", BIG_G), "text_encoder_3": _T5}


def _flux(guidance: bool) -> dict[str, Part]:
    return {"transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": guidance}), "vae": _vae(KL16, .3611),
            "text_encoder": _CLIP, "text_encoder_2": _T5}


ARCHITECTURES: dict[str, dict[str, Part]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD,
    "stabilityai/stable-diffusion-2-1": _SD2,
    "stabilityai/sd-turbo": _SD2,
    "stabilityai/stable-diffusion-xl-base-1.0": _XL,
    "stabilityai/sdxl-turbo": _XL,
    "stabilityai/stable-diffusion-3.5-medium": _SD3,
    "black-forest-labs/FLUX.1-dev": _flux(True),
    "black-forest-labs/FLUX.1-schnell": _flux(False),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": {
        "transformer": ("diffusers", "PixArtTransformer2DModel", PIXART), "vae": _vae(KL, .13025), "text_encoder": _T5},
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": {
        "transformer": ("diffusers", "SanaTransformer2DModel", {}), "vae": ("diffusers", "AutoencoderDC", DC),
        "text_encoder": ("transformers", "Gemma2Model", {})},
    "Qwen/Qwen-Image": {
        "transformer": ("diffusers", "QwenImageTransformer2DModel", {}), "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration", QWEN_VL)},
    "Tongyi-MAI/Z-Image-Turbo": {
        "transformer": ("diffusers", "ZImageTransformer2DModel", {}), "vae": _vae(KL16, .3611),
        "text_encoder": ("transformers", "Qwen3Model", QWEN3)},
}
