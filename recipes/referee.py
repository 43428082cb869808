"""Train the judge `referee` on judge-split artists: cross-entropy on style and genre, regression of year and severity of damage.

python -m recipes.referee --data paintings/ --work work/ --minutes 15
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from probes.atomic import replacing, write_text
from probes.errors import UserError
from probes.judges import GENRES, STYLES, build
from recipes import data, options
from recipes.corruptions import corrupt
from recipes.training import Run, known_mean, train
from recipes.views import damaged, vae_pass, views

PRESETS = {"cpu": {"minutes": 15.0, "batch_size": 96}, "gpu": {"minutes": 20.0, "batch_size": 512}}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    start: options.Start = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
):
    """The referee, in `work/referee/model`. UserError where the table has none of the judges' styles."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    batch_size = sizes["batch_size"]
    accelerator = options.accelerator(device, steps is not None)
    device = accelerator.device
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work)
    rows = np.flatnonzero((table["split"] == "judge") & table["style"].isin(STYLES))
    if not len(rows):
        raise UserError(f"No image of split judge has a style that the judges know ({', '.join(STYLES)}): there is nothing to judge by.")
    images = data.near(images, device)
    torch.manual_seed(seed)
    model = build("referee").train()
    if start:
        with options.warm(start):
            model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(start / "model.safetensors").items()})
    model = model.to(device, memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.08},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 1.5e-3, betas=(0.9, 0.98))
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(nn.ModuleDict({"judge": model}), optimizer, work / "referee", decay=0.998, accelerator=accelerator, **budget)
    options.tell_start(start, run)
    generator = run.generator
    style_of = torch.tensor([STYLES.index(s) if s in STYLES else -1 for s in table["style"]])
    genre_of = torch.tensor([GENRES.index(g) if g in GENRES else -1 for g in table["genre"]])
    year_of = torch.tensor(table["year"].to_numpy(np.float32))
    weights = torch.tensor(table["style"].iloc[rows].map(table["style"].iloc[rows].value_counts()).to_numpy() ** -0.7)
    vae = work / "autoencoder" / "vae"
    autoencode = vae_pass(AutoencoderTiny.from_pretrained(vae).to(device).eval()) if vae.exists() else None

    def losses(step, progress):
        chosen = rows[data.draw(weights, batch_size, generator).numpy()]
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
        genre = F.cross_entropy(out["genre_logits"].float(), genres.clamp_min(0), reduction="none")
        year = F.smooth_l1_loss(out["year"].float() / 80, years.nan_to_num() / 80, beta=0.5, reduction="none")
        return {
            "style": F.cross_entropy(logits, styles, label_smoothing=0.05),
            "genre": 0.4 * known_mean(genre, genres >= 0),
            "year": known_mean(year, ~years.isnan()),
            "severity": 4 * F.mse_loss(out["severity"].float()[quarter:], known),
            "_accuracy": logits.argmax(1).eq(styles).float().mean(),
        }

    average = train(run, losses)["judge"].eval()
    if not run.main:
        return
    target = work / "referee" / "model"
    state = {k: v.half().contiguous() if v.is_floating_point() else v.clone() for k, v in average.state_dict().items()}
    told = {"minutes": round(run.seconds / 60, 1), "device": str(device), "steps": run.step, "batch_size": batch_size, "seed": seed}
    with replacing(target / "model.safetensors") as partial:
        save_file(state, partial)
    write_text(target / "training.json", json.dumps(told))


if __name__ == "__main__":
    options.start(main)
