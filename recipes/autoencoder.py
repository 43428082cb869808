"""Train the small autoencoder: 128 x 128 pixels <-> 8 x 16 x 16 latents, a diffusers `AutoencoderTiny`.

python -m recipes.autoencoder --data paintings/ --work work/ --minutes 20
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F

from recipes import data, options
from recipes.training import Run, train

CONFIG = {
    "encoder_block_out_channels": (32,) * 4,
    "decoder_block_out_channels": (40,) * 4,
    "latent_channels": 8,
    "num_encoder_blocks": (1, 2, 3, 3),
    "num_decoder_blocks": (3, 3, 2, 1),
}


def edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images.diff(dim=-1), images.diff(dim=-2)


def reconstruction(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 on pixels and on edges at three scales: plain L1 alone settles for blur."""
    loss = 0.0
    for _ in range(3):
        loss = loss + F.l1_loss(out, target) + sum(F.l1_loss(a, b) for a, b in zip(edges(out), edges(target), strict=True))
        out, target = F.avg_pool2d(out, 2), F.avg_pool2d(target, 2)
    return loss


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = 20.0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Crops of 64 pixels a step; the last fifth takes a third as many of 128.")] = 12,
    start: options.Start = None,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    rows = np.flatnonzero(table["split"] != "test")
    torch.manual_seed(0)
    model = AutoencoderTiny.from_pretrained(start) if start else AutoencoderTiny(**CONFIG)
    model = model.to(device, memory_format=torch.channels_last)
    models = nn.ModuleDict({"vae": model})
    run = Run(models, torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=1e-4), work / "autoencoder", minutes)
    generator = torch.Generator().manual_seed(run.step)

    def losses(step, progress):
        # Small crops first: at this size the number of steps, not of pixels, limits the autoencoder.
        count, side = (batch_size, 64) if progress < 0.8 else (max(1, batch_size // 3), 128)
        chosen = rows[torch.randint(len(rows), (count,), generator=generator).numpy()]
        target = data.random_crop(data.batch(images, chosen, device), side, generator).contiguous(memory_format=torch.channels_last)
        latents = model.encode(target * 2 - 1).latents.float()
        # Noise on the latents: the decoder will be fed a denoiser's output, never an encoder's.
        out = model.decode(latents + 0.08 * torch.randn_like(latents)).sample.float() / 2 + 0.5
        mean, spread = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
        return {
            "reconstruction": reconstruction(out, target),
            "unit": 0.01 * (mean.square() + spread.add(1e-6).log().square()).mean(),
            "_psnr": -10 * (out.clamp(0, 1) - target).square().mean().log10(),
        }

    average = train(run, losses)
    average["vae"].save_pretrained(work / "autoencoder" / "vae")


if __name__ == "__main__":
    typer.run(main)
