"""Distil the preview decoder: the same latents to the same pixels at a seventh of the cost, for guidance to look through at every step.

    python -m recipes.preview --data paintings/ --work work/ --minutes 6

What TAESD is to a large autoencoder. It learns from the decoder that ships, on latents of paintings as an autoencoder and as a denoiser
make them: noised, averaged with their neighbours (an early clean estimate is the mean of many paintings) and overdriven (classifier-free
guidance). Only its decoder is ever called; AutoencoderTiny's encoder is there because its class has one.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F

from probes.errors import UserError
from recipes import data, options
from recipes.autoencoder import reconstruction, save
from recipes.training import Run, train

WIDTH = 24
CONFIG = {
    "decoder_block_out_channels": (WIDTH,) * 4,
    "num_decoder_blocks": (3, 2, 0, 0),  # cheap where there are few pixels, nothing but upsampling where there are many
    "encoder_block_out_channels": (4,),
    "num_encoder_blocks": (1,),
}
PRESETS = {"cpu": {"minutes": 6.0, "batch_size": 16}, "gpu": {"minutes": 6.0, "batch_size": 256}}
CROP = 64


def estimated(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Latents `(n, c, h, w)` as a denoiser's clean estimates: each averaged with its neighbours by another share, overdriven, noised."""
    share, gain = torch.rand(2, len(latents), 1, 1, 1, generator=generator).to(latents)
    share = (2 * share - 1).clamp_min(0)  # half of them stay sharp
    mean = F.avg_pool2d(F.pad(latents, (2,) * 4, mode="replicate"), 5, 1)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return torch.lerp(latents, mean, share) * (0.9 + 0.5 * gain) + 0.08 * noise


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
    side: options.Side = 128,
):
    """The preview decoder, in `work/preview/vae`. A batch is of 64-pixel crops."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    accelerator = options.accelerator(device, steps is not None)
    device = accelerator.device
    source = next((path for path in (work / "decoder" / "vae", work / "autoencoder" / "vae") if path.exists()), None)
    if source is None:
        raise UserError(f"{work / 'autoencoder' / 'vae'} is not there: run recipes.autoencoder first, with the same --work.")
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work, data.stored(side))
    images = data.near(images, device)
    rows = np.flatnonzero(table["split"] != "test")
    teacher = AutoencoderTiny.from_pretrained(source).to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    torch.manual_seed(seed)
    model = AutoencoderTiny(**CONFIG, latent_channels=teacher.config.latent_channels).to(device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(nn.ModuleDict({"vae": model}), optimizer, work / "preview", decay=0.99, accelerator=accelerator, **budget)

    def losses(step, progress):
        chosen = rows[torch.randint(len(rows), (sizes["batch_size"],), generator=run.generator).numpy()]
        crops = data.random_crop(data.batch(images, chosen, device), CROP, run.generator).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = estimated(teacher.encode(crops * 2 - 1).latents.float(), run.generator)
            target = (teacher.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)
        out = model.decode(latents).sample.float() / 2 + 0.5
        return {"reconstruction": reconstruction(out, target), "_psnr": -10 * (out.clamp(0, 1) - target).square().mean().log10()}

    average = train(run, losses)
    if run.main:
        save(average["vae"], work / "preview" / "vae")


if __name__ == "__main__":
    options.start(main)
