"""Configurations of architectures that plans and benchmarks can do without a network: Stable Diffusion 1.5 and XL.

Written out from diffusers' own defaults and conversion scripts; checked in tests against the published size of the decoder (49,490,179
parameters, TAESD's README) and the operation counts in the literature (UNet of SD 1.5 at 512: .80 TFLOP, of SDXL at 1024: 6.76; KL decoder
at 512: 2.5).
"""
KL = {"in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32}
SD15 = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {"sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "cross_attention_dim": 2048,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280}

_SD = {"unet": ("diffusers", "UNet2DConditionModel", SD15), "vae": ("diffusers", "AutoencoderKL", KL | {"scaling_factor": .18215}),
       "text_encoder": ("transformers", "CLIPTextModel", CLIP_L)}
_XL = {"unet": ("diffusers", "UNet2DConditionModel", SDXL), "vae": ("diffusers", "AutoencoderKL", KL | {"scaling_factor": .13025}),
       "text_encoder": ("transformers", "CLIPTextModel", CLIP_L), "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", BIG_G)}
ARCHITECTURES: dict[str, dict[str, tuple[str, str, dict]]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD,
    "stabilityai/stable-diffusion-xl-base-1.0": _XL,
    "stabilityai/sdxl-turbo": _XL,
}
