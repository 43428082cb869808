"""Train the small autoencoder: 128 x 128 pixels <-> 8 x 16 x 16 latents, a diffusers `AutoencoderTiny`.

python -m recipes.autoencoder --data paintings/ --work work/ --minutes 20
"""

import json
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
LARGE = CONFIG | {"encoder_block_out_channels": (64,) * 4, "decoder_block_out_channels": (64,) * 4}
COLOUR = 4.0  # weight of the colours of blocks
PRESETS = {
    "cpu": {"config": CONFIG, "minutes": 20.0, "batch_size": 12},  # 0.7 M parameters
    "gpu": {"config": LARGE, "minutes": 30.0, "batch_size": 192},  # 2.2 M
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


def colours(images: torch.Tensor) -> torch.Tensor:
    """Green against violet and red against blue of each 8 x 8 block, one place of the latents: `(n, 2, h / 8, w / 8)`."""
    red, green, blue = F.avg_pool2d(images, 8).unbind(1)
    return torch.stack([green - (red + blue) / 2, red - blue], 1)


def save(vae: AutoencoderTiny, folder: Path):
    """diffusers' folder. `block_out_channels` is left out: the class derives it, and diffusers warns at every load where it is stored."""
    vae.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("block_out_channels", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    rate: Annotated[float, typer.Option(help="Peak learning rate; a warm start wants less.", min=1e-9, max=1)] = 2e-3,
    start: options.Start = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
    side: options.Side = 128,
):
    """The autoencoder, in `work/autoencoder/vae`. A batch is of 64-pixel crops; the last fifth takes a third as many of `side` pixels."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    batch_size = sizes["batch_size"]
    accelerator = options.accelerator(device, steps is not None)
    device = accelerator.device
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work, data.stored(side))
    images = data.near(images, device)
    rows = np.flatnonzero(table["split"] != "test")
    torch.manual_seed(seed)
    with options.warm(start):
        model = options.whole(AutoencoderTiny.from_pretrained(start)) if start else AutoencoderTiny(**sizes["config"])
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=1e-4)
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(nn.ModuleDict({"vae": model}), optimizer, work / "autoencoder", accelerator=accelerator, **budget)
    options.tell_start(start, run)
    generator = run.generator

    def losses(step, progress):
        # Small crops first: at this size the number of steps, not of pixels, limits the autoencoder.
        count, edge = (batch_size, 64) if progress < 0.8 else (max(1, batch_size // 3), side)
        chosen = rows[torch.randint(len(rows), (count,), generator=generator).numpy()]
        target = data.random_crop(data.batch(images, chosen, device), edge, generator).contiguous(memory_format=torch.channels_last)
        latents = model.encode(target * 2 - 1).latents.float()
        # Noise on the latents: the decoder will be fed a denoiser's output, never an encoder's.
        out = model.decode(latents + 0.08 * torch.randn_like(latents)).sample.float() / 2 + 0.5
        mean, spread = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
        return {
            "reconstruction": reconstruction(out, target),
            # Light and dark differ so much more that the latents would leave green and violet out: meadows turn grey.
            "colour": COLOUR * F.l1_loss(colours(out), colours(target)),
            "unit": 0.01 * (mean.square() + spread.add(1e-6).log().square()).mean(),
            "_psnr": -10 * (out.clamp(0, 1) - target).square().mean().log10(),
        }

    average = train(run, losses)
    if run.main:
        save(average["vae"], work / "autoencoder" / "vae")


if __name__ == "__main__":
    options.start(main)
