"""Sharpen the autoencoder's decoder against a small patch discriminator; the encoder, and so the latents, stay as they are.

    python -m recipes.decoder --data paintings/ --work work/ --minutes 25

Reconstruction alone returns the mean of all brushworks that a latent allows: blur. A hinge-loss patch discriminator (arXiv:1611.07004,
arXiv:1802.05957 for the spectral norm) asks for one of them; matching its features keeps the result near the painting. What is
saved lies between the decoder as it was and as it became (network interpolation, arXiv:1809.00219): as it became, hatching shows.
"""

import copy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from probes.errors import UserError
from recipes import data, options
from recipes.autoencoder import reconstruction, save
from recipes.training import Run, train

STRIDE = 8  # of the discriminator's last stage, in pixels
BLEND = 0.85  # sharper than the middle, with little of the hatching that shows at 1


class Discriminator(nn.Module):
    """Real or decoded, patch by patch (34 pixels wide)."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        inside, stages = 3, []
        for width in widths:
            stages.append(spectral_norm(nn.Conv2d(inside, width, 4, 2, 1)))
            inside = width
        self.stages, self.last = nn.ModuleList(stages), spectral_norm(nn.Conv2d(inside, 1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x, features = images * 2 - 1, []
        for stage in self.stages:
            x = F.leaky_relu(stage(x), 0.2)
            features.append(x)
        return self.last(x), features


@torch.no_grad()
def between(before: nn.Module, after: nn.Module, share: float):
    """Move the weights of `after` to `share` of the way from `before`."""
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        new.copy_(torch.lerp(old, new, share))


PRESETS = {"cpu": {"minutes": 25.0, "batch_size": 10}, "gpu": {"minutes": 30.0, "batch_size": 128}}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    adversarial: Annotated[float, typer.Option(help="Weight of the discriminator's opinion.", min=0, max=10)] = 0.02,
    blend: Annotated[float, typer.Option(help="How far to go from the autoencoder's decoder to the sharpened one.", min=0, max=1)] = BLEND,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
    side: options.Side = 128,
):
    """The autoencoder with a sharper decoder, in `work/decoder/vae`. A batch is of 64-pixel crops."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    accelerator = options.accelerator(device, steps is not None)
    device, source = accelerator.device, work / "autoencoder" / "vae"
    if not source.exists():
        raise UserError(f"{source} is not there: run recipes.autoencoder first, with the same --work.")
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work, data.stored(side))
    images = data.near(images, device)
    rows = np.flatnonzero(table["split"] != "test")
    torch.manual_seed(seed + 1)
    model = AutoencoderTiny.from_pretrained(source).to(device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)
    before = copy.deepcopy(model.decoder)
    critic = Discriminator().to(device, memory_format=torch.channels_last)
    players = [
        {"params": list(model.decoder.parameters()), "lr": 3e-4, "player": "decoder"},
        {"params": list(critic.parameters()), "lr": 4e-4, "player": "critic"},
    ]
    run = Run(
        nn.ModuleDict({"vae": model, "critic": critic}),
        torch.optim.AdamW(players, betas=(0.5, 0.99)),
        work / "decoder",
        sizes["minutes"],
        decay=0.998,
        steps=steps,
        seed=seed,
        accelerator=accelerator,
    )

    def losses(step, progress):
        chosen = rows[torch.randint(len(rows), (sizes["batch_size"],), generator=run.generator).numpy()]
        target = data.random_crop(data.batch(images, chosen, device), 64, run.generator).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = model.encode(target * 2 - 1).latents.float()
        out = model.decode(latents + 0.08 * torch.randn_like(latents)).sample.float() / 2 + 0.5
        # The critic's strides begin elsewhere every time: else its gradient, and soon the decoder, has their grid.
        top, left = torch.randint(STRIDE, (2,), generator=run.generator).tolist()
        seen, painted = (x[..., top : top + 64 - STRIDE, left : left + 64 - STRIDE] for x in (target, out))
        real, real_features = critic(seen)
        fake, _ = critic(painted.detach())
        # The decoder plays against the critic as it is: one backward pass then serves both players, each its own parameters.
        opinion, features = functional_call(critic, {name: value.detach() for name, value in critic.named_parameters()}, painted)
        ramp = min(1.0, progress / 0.15)  # the critic learns first
        matching = sum(F.l1_loss(a.float(), b.detach().float()) for a, b in zip(features, real_features, strict=True))
        return {
            "reconstruction": reconstruction(out, target),
            "adversarial": -ramp * adversarial * opinion.float().mean(),
            "matching": ramp * 0.3 * matching,
            "critic": (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()) / 2,
            "_psnr": -10 * (out.clamp(0, 1) - target).square().mean().log10(),
        }

    average = train(run, losses)
    if run.main:
        between(before, average["vae"].decoder, blend)
        save(average["vae"], work / "decoder" / "vae")


if __name__ == "__main__":
    options.start(main)
