"""Sharpen the autoencoder's decoder against a small patch discriminator; the encoder, and so the latents, stay as they are.

    python -m recipes.decoder --data paintings/ --work work/ --minutes 25

Reconstruction alone returns the mean of all brushworks that a latent allows: blur. A hinge-loss patch discriminator (arXiv:1611.07004,
arXiv:1802.05957 for the spectral norm) asks for one of them; matching its features keeps the result near the painting.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from recipes import data, options
from recipes.autoencoder import reconstruction
from recipes.training import Run, train


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


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = 25.0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Crops of 64 pixels a step.")] = 10,
    adversarial: Annotated[float, typer.Option(help="Weight of the discriminator's opinion.")] = 0.02,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    rows = np.flatnonzero(table["split"] != "test")
    torch.manual_seed(1)
    model = AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae").to(device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)
    critic = Discriminator().to(device, memory_format=torch.channels_last)
    run = Run(
        nn.ModuleDict({"vae": model, "critic": critic}),
        torch.optim.AdamW(model.decoder.parameters(), 3e-4, betas=(0.5, 0.99)),
        work / "decoder",
        minutes,
        decay=0.998,
    )
    critic_optimizer = torch.optim.AdamW(critic.parameters(), 4e-4, betas=(0.5, 0.99))
    generator = torch.Generator().manual_seed(run.step)

    def losses(step, progress):
        chosen = rows[torch.randint(len(rows), (batch_size,), generator=generator).numpy()]
        target = data.random_crop(data.batch(images, chosen, device), 64, generator).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = model.encode(target * 2 - 1).latents.float()
        out = model.decode(latents + 0.08 * torch.randn_like(latents)).sample.float() / 2 + 0.5
        real, real_features = critic(target)
        fake, _ = critic(out.detach())
        critic_loss = (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()) / 2
        critic_optimizer.zero_grad(set_to_none=True)
        critic_loss.backward()
        critic_optimizer.step()
        opinion, features = critic(out)
        ramp = min(1.0, progress / 0.15)  # the critic learns first
        matching = sum(F.l1_loss(a.float(), b.detach().float()) for a, b in zip(features, real_features, strict=True))
        return {
            "reconstruction": reconstruction(out, target),
            "adversarial": -ramp * adversarial * opinion.float().mean(),
            "matching": ramp * 0.3 * matching,
            "_critic": critic_loss,
            "_psnr": -10 * (out.clamp(0, 1) - target).square().mean().log10(),
        }

    train(run, losses)["vae"].save_pretrained(work / "decoder" / "vae")


if __name__ == "__main__":
    typer.run(main)
