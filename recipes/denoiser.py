"""Train the small latent denoiser: a diffusers `UNet2DConditionModel` under Stable Diffusion XL's conditioning, v-prediction.

    python -m recipes.denoiser --data paintings/ --work work/ --minutes 90
    accelerate launch -m recipes.denoiser --data paintings/ --work work/ --preset gpu

Needs `work/autoencoder/vae` and the frozen text tower in `work/clip/model`, of which it keeps a copy; a warm start brings its own text
tower, and its own autoencoder where there is none in `work`. SDXL's pipeline is used because it alone feeds the pooled text embedding into
the time embedding: a style word then modulates every block, which short training can learn.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from rich.progress import track
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from probes.atomic import replacing, write_text
from probes.errors import UserError
from recipes import autoencoder, data, options, text_tower
from recipes.captions import caption
from recipes.convolution import quicken
from recipes.growth import grown
from recipes.training import Run, train, write

SIDE, LATENT = 128, 16
CONFIG = {
    "sample_size": LATENT,
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (128, 160, 256),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 192,
    "attention_head_dim": (4, 5, 8),
    "transformer_layers_per_block": (1, 2, 1),
    "time_embedding_dim": 256,
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
# Noise levels u in 0..1 are drawn as SHIFT u / (1 + (SHIFT - 1) u): layout, which short training learns last, is decided in noise.
SHIFT = 2.0


LARGE = {
    "block_out_channels": (128, 256, 384),
    "attention_head_dim": (4, 8, 12),
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "time_embedding_dim": 512,
    "norm_num_groups": 32,
}
PRESETS = {
    "cpu": {"config": {}, "minutes": 90.0, "batch_size": 64, "rate": 6e-4},  # 17 M parameters
    "gpu": {"config": LARGE, "minutes": 120.0, "batch_size": 1024, "rate": 4e-4},  # 49 M
}


def config(width: int, dim: int, side: int = SIDE, **sizes) -> dict:
    """The network's configuration under a text tower of this width and embedding dimension, for images of `side` pixels."""
    inside = {"cross_attention_dim": width, "projection_class_embeddings_input_dim": 6 * CONFIG["addition_time_embed_dim"] + dim}
    return CONFIG | inside | {"sample_size": side // 8} | sizes


def unprompted(network: UNet2DConditionModel, latents: torch.Tensor) -> dict:
    """The network's arguments beside `latents (n, c, s, s)` and timesteps, under no prompt. Its tokens are all alike, and attention to one
    is attention to any number of them."""
    count, side, config = len(latents), 8 * latents.shape[-1], network.config
    dim = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "encoder_hidden_states": latents.new_zeros(count, 1, config.cross_attention_dim),
        "added_cond_kwargs": {
            "text_embeds": latents.new_zeros(count, dim),
            "time_ids": latents.new_tensor([[side, side, 0, 0, side, side]]).expand(count, -1),
        },
    }


def words(work: Path, start: Path | None) -> tuple[CLIPTextModelWithProjection, CLIPTokenizer]:
    """The text tower to learn under: a run that goes on keeps its own, a warm start that of its pipeline, whose words the network knows;
    a new run takes the CLIP's."""
    if (work / "denoiser" / "checkpoint.pt").exists():
        return text_tower.of_denoiser(work)
    if start and text_tower.has_words(start):
        with options.warm(start):
            return text_tower.of_pipeline(start)
    return text_tower.of_clip(work / "clip" / "model")


def coder(work: Path, start: Path | None):
    """See to `work/autoencoder/vae`: where no autoencoder was trained there, a warm start brings that whose latents its network knows."""
    place = work / "autoencoder" / "vae"
    if start and not place.exists() and (start / "vae").is_dir():
        with options.warm(start):
            autoencoder.save(options.whole(AutoencoderTiny.from_pretrained(start / "vae", torch_dtype=torch.float32)), place)
        write_text(place.parent / "log.json", json.dumps([{"taken": options.place(start / "vae")}]))
        typer.echo(f"{place} was not there: it is that of --start now, whose latents the network knows.")
    options.needed(place, "autoencoder")


def _other_latents(start: Path, vae: AutoencoderTiny) -> bool:
    """Whether the network of the pipeline in `start` learned another autoencoder's latents. The encoder counts; a decoder may be
    sharpened afterwards."""
    coder = start / "vae"
    return coder.exists() and not options.alike(vae.encoder, AutoencoderTiny.from_pretrained(coder).encoder)


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    rate: Annotated[float | None, typer.Option(help="Peak learning rate. Default: the preset's.", min=1e-9, max=1)] = None,
    start: options.Start = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
    side: options.Side = SIDE,
):
    """The denoiser, in `work/denoiser/unet`."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size, rate=rate)
    batch_size = sizes["batch_size"]
    accelerator = options.accelerator(device, steps is not None)
    device = accelerator.device
    if start:
        with options.warm(start):
            if not (start / "unet" / "config.json").is_file():  # told before all else
                raise ValueError("a pipeline's folder is meant, and there is no unet in it")
    tower, tokenizer = words(work, start)
    with accelerator.main_process_first():
        coder(work, start)
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work, data.stored(side))
    images = data.near(images, device)
    rows = np.flatnonzero(table["split"] != "test")
    tower = tower.to(device)
    vae = AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae").eval().requires_grad_(False)
    vae = vae.to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed)
    wanted = config(tower.config.hidden_size, tower.config.projection_dim, side, **sizes["config"])
    if start:
        with options.warm(start):
            unet = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32)
            unet = grown(options.whole(unet), wanted)
    else:
        unet = UNet2DConditionModel(**wanted)
    unet = unet.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is so slow there that a step takes a third longer
        quicken(unet)
    optimizer = torch.optim.AdamW(unet.parameters(), sizes["rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(nn.ModuleDict({"unet": unet}), optimizer, work / "denoiser", decay=0.9995, accelerator=accelerator, **budget)
    options.tell_start(start, run)
    if start and run.kept is None and run.main:
        with options.warm(start):
            other = _other_latents(start, vae)
        if other:
            typer.echo(f"--start was trained with another autoencoder than {work / 'autoencoder'} has: what latents mean is learned anew.")
    if run.main and (run.kept is None or not text_tower.has_words(work / "denoiser")):
        text_tower.keep(tower, tokenizer, work / "denoiser")
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    generator, rng = run.generator, run.rng
    weights = torch.tensor(data.balance(table, style=0.5)[rows])
    records = list(table.iloc[rows].itertuples())

    @torch.no_grad()
    def encode(chosen):
        crops = data.random_crop(data.batch(images, rows[chosen], device), side, run.common).contiguous(memory_format=torch.channels_last)
        with accelerator.autocast():
            return vae.encode(crops * 2 - 1).latents.half()

    # Every process holds all latents and renews the same ones, so that the main process's checkpoint speaks for all.
    store = work / "denoiser" / "latents.pt"
    with accelerator.main_process_first():
        if "latents" in run.state:
            pool = run.state["latents"]
        elif store.exists():
            pool = torch.load(store, weights_only=True).to(device)
        else:
            starts = track(range(0, len(rows), 64), description="latents")
            pool = torch.cat([encode(np.arange(start, min(start + 64, len(rows)))) for start in starts])
            with replacing(store) as partial:
                write(pool.cpu(), partial)
    if len(pool) != len(rows) or pool.shape[-1] != side // 8:
        raise UserError(f"{store.parent} holds latents of other images: choose another --work or delete that folder.")
    run.state["latents"] = pool
    time_ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device)

    def losses(step, progress):
        fresh = torch.randint(len(rows), (max(1, batch_size // 8),), generator=run.common)
        pool[fresh] = encode(fresh.numpy())  # other crops and mirrorings, a few at a time
        chosen = data.draw(weights, batch_size, generator)
        clean = pool[chosen].float()
        ids = tokenizer(
            [caption(records[row], rng) for row in chosen], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        tokens, pooled = text_tower.condition(tower, ids.to(device))
        kept = (torch.rand(batch_size, 1, generator=generator) > UNCONDITIONAL).to(device)
        # Stratified over the batch: every step sees all noise levels.
        levels = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
        times = (SHIFT * levels / (1 + (SHIFT - 1) * levels) * 1000).long().clamp(max=999).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        a, b = alphas[times].sqrt()[:, None, None, None], (1 - alphas[times]).sqrt()[:, None, None, None]
        out = unet(
            (a * clean + b * noise).contiguous(memory_format=torch.channels_last),
            times,
            tokens * kept[..., None],
            added_cond_kwargs={"text_embeds": pooled * kept, "time_ids": time_ids.expand(batch_size, -1)},
        ).sample.float()
        errors = F.mse_loss(out, a * noise - b * clean, reduction="none").mean((1, 2, 3))
        return {"v": errors.mean(), "_noisy": errors[batch_size * 3 // 4 :].mean()}

    average = train(run, losses)
    if run.main:
        average["unet"].save_pretrained(work / "denoiser" / "unet")


if __name__ == "__main__":
    options.start(main)
