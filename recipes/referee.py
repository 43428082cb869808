"""Train a judge on judge-split artists: `referee` by cross-entropy, `verdict` by supervised contrast and cosine prototypes.

python -m recipes.judges referee --data paintings/ --work work/ --minutes 15
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from probes.judges import GENRES, STYLES, build
from recipes import data, options
from recipes.corruptions import corrupt
from recipes.training import Run, train
from recipes.views import damaged, vae_pass, views


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = 15.0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 96,
    start: options.Start = None,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    torch.manual_seed(0)
    model = build("referee").train()
    if start:
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(start / "model.safetensors").items()})
    model = model.to(device, memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.08},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    run = Run(
        nn.ModuleDict({"judge": model}),
        torch.optim.AdamW(groups, 1.5e-3, betas=(0.9, 0.98)),
        work / "referee",
        minutes,
        decay=0.998,
    )
    rows = np.flatnonzero((table["split"] == "judge") & table["style"].isin(STYLES))
    style_of = torch.tensor([STYLES.index(s) if s in STYLES else -1 for s in table["style"]])
    genre_of = torch.tensor([GENRES.index(g) if g in GENRES else -1 for g in table["genre"]])
    year_of = torch.tensor(table["year"].to_numpy(np.float32))
    weights = torch.tensor(table["style"].iloc[rows].map(table["style"].iloc[rows].value_counts()).to_numpy() ** -0.7)
    generator = torch.Generator().manual_seed(run.step)
    vae = work / "autoencoder" / "vae"
    autoencode = vae_pass(AutoencoderTiny.from_pretrained(vae).to(device).eval()) if vae.exists() else None

    def losses(step, progress):
        chosen = rows[torch.multinomial(weights, batch_size, generator=generator).numpy()]
        pixels = views(data.batch(images, chosen, device), model.side, generator, smallest=72)
        quarter = batch_size // 4
        soft = damaged(pixels[:quarter], generator)
        if autoencode is not None:  # the softness of the autoencoder is not damage: every generated image has it
            with torch.no_grad():
                pixels[quarter : quarter + 10] = autoencode(pixels[quarter : quarter + 10])
        broken, severity = corrupt(pixels[2 * quarter : 3 * quarter], generator)
        pixels = torch.cat([soft, pixels[quarter : 2 * quarter], broken, pixels[3 * quarter :]])
        known = torch.cat([torch.zeros(quarter), severity.cpu(), torch.zeros(batch_size - 3 * quarter)]).to(device)
        out = model(pixels)
        styles, genres, years = style_of[chosen].to(device), genre_of[chosen].to(device), year_of[chosen].to(device)
        logits = out["style_logits"].float()
        dated = ~years.isnan()
        terms = {
            "style": F.cross_entropy(logits, styles, label_smoothing=0.05),
            "genre": 0.4 * F.cross_entropy(out["genre_logits"].float(), genres, ignore_index=-1),
            "year": F.smooth_l1_loss(out["year"].float()[dated] / 80, years[dated] / 80, beta=0.5),
            "severity": 4 * F.mse_loss(out["severity"].float()[quarter:], known),
            "_accuracy": logits.argmax(1).eq(styles).float().mean(),
        }
        return terms

    average = train(run, losses)["judge"].eval()
    target = work / "referee" / "model"
    target.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.half().contiguous() if v.is_floating_point() else v.clone() for k, v in average.state_dict().items()},
        target / "model.safetensors",
    )
    (target / "training.json").write_text(
        json.dumps({"minutes": minutes, "device": str(device), "steps": run.step, "batch_size": batch_size})
    )


if __name__ == "__main__":
    typer.run(main)
