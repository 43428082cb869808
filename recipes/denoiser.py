"""Train the small latent denoiser: a diffusers `UNet2DConditionModel` under Stable Diffusion XL's conditioning, v-prediction.

    python -m recipes.denoiser --data paintings/ --work work/ --minutes 90

Needs `work/autoencoder/vae` and the frozen text tower in `work/clip/model`. SDXL's pipeline is used because it alone feeds the pooled
text embedding into the time embedding: a style word then modulates every block, which short training can learn.
"""

import random
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import typer
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from rich.progress import track
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from recipes import data, options
from recipes.captions import caption
from recipes.text_tower import condition, to_transformers
from recipes.training import Run, train

SIDE, LATENT = 128, 16
CONFIG = {
    "sample_size": LATENT,
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (64, 160, 256),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 192,
    "attention_head_dim": (2, 5, 8),
    "norm_num_groups": 16,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 256,
}
SCHEDULE = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
UNCONDITIONAL = 0.12  # share of captions replaced by zeros, for classifier-free guidance


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = 90.0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Latents a step.")] = 64,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 6e-4,
    start: options.Start = None,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    rows = np.flatnonzero(table["split"] != "test")
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{work / 'clip' / 'model'}")
    tokenizer = CLIPTokenizer.from_pretrained(work / "clip" / "model")
    tower = to_transformers(clip, tokenizer).to(device)
    vae = (
        AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae")
        .eval()
        .requires_grad_(False)
        .to(device, memory_format=torch.channels_last)
    )
    torch.manual_seed(0)
    unet = (
        UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32)
        if start
        else UNet2DConditionModel(**CONFIG)
    ).to(device)
    run = Run(
        nn.ModuleDict({"unet": unet}),
        torch.optim.AdamW(unet.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01),
        work / "denoiser",
        minutes,
        decay=0.9995,
    )
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    generator, rng = torch.Generator().manual_seed(run.step), random.Random(run.step)
    counts = table["style"].iloc[rows].map(table["style"].value_counts()).fillna(1000).to_numpy()
    weights = torch.tensor(counts**-0.35)
    records = list(table.iloc[rows].itertuples())

    @torch.no_grad()
    def encode(chosen):
        crops = data.random_crop(data.batch(images, rows[chosen], device), SIDE, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            return vae.encode(crops * 2 - 1).latents.half()

    store = work / "denoiser" / "latents.pt"
    if store.exists():
        pool = torch.load(store, weights_only=True).to(device)
    else:
        pool = torch.cat([encode(np.arange(i, min(i + 64, len(rows)))) for i in track(range(0, len(rows), 64), description="latents")])
        store.parent.mkdir(parents=True, exist_ok=True)
        torch.save(pool.cpu(), store)
    time_ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]], dtype=torch.float32, device=device)

    def losses(step, progress):
        fresh = torch.randint(len(rows), (max(1, batch_size // 8),), generator=generator)
        pool[fresh] = encode(fresh.numpy())  # other crops and mirrorings, a few at a time
        chosen = torch.multinomial(weights, batch_size, generator=generator)
        clean = pool[chosen].float()
        ids = tokenizer(
            [caption(records[row], rng) for row in chosen], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        tokens, pooled = condition(tower, ids.to(device))
        kept = (torch.rand(batch_size, 1, generator=generator) > UNCONDITIONAL).to(device)
        # Stratified over the batch: every step sees all noise levels.
        times = (
            ((torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size * 1000).long().clamp(max=999).to(device)
        )
        noise = torch.randn(clean.shape, generator=generator).to(device)
        a, b = alphas[times].sqrt()[:, None, None, None], (1 - alphas[times]).sqrt()[:, None, None, None]
        out = unet(
            a * clean + b * noise,
            times,
            tokens * kept[..., None],
            added_cond_kwargs={"text_embeds": pooled * kept, "time_ids": time_ids.expand(batch_size, -1)},
        ).sample.float()
        errors = F.mse_loss(out, a * noise - b * clean, reduction="none").mean((1, 2, 3))
        return {"v": errors.mean(), "_noisy": errors[batch_size * 3 // 4 :].mean()}

    average = train(run, losses)
    average["unet"].save_pretrained(work / "denoiser" / "unet")


if __name__ == "__main__":
    typer.run(main)
