"""The supervised baseline: the CLIP's own image tower with a linear layer, trained from scratch on the same images to name the style.

    python -m recipes.baseline --data paintings/ --work work/ --minutes 30

It says what language adds: same trunk, same split, same sampling of images, same views and damage, but labels in place of captions and no
adversarial examples. Its figures on unseen artists go into `work/baseline/figures.json`, its readings into `work/baseline/test.npz`.
"""

import json
from pathlib import Path

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from open_clip.modified_resnet import ModifiedResNet
from rich.progress import track
from torch import nn
from torch.nn import functional as F

from probes.atomic import replacing, write_text
from probes.errors import UserError
from probes.judges import STYLES
from recipes import data, options
from recipes.clip import PREPROCESS, SIDE
from recipes.clip import PRESETS as CLIP_PRESETS
from recipes.metrics import artist_halves, fit_temperature, softmax, style_figures
from recipes.training import Run, train
from recipes.views import damaged, vae_pass, views

PRESETS = {name: {key: preset[key] for key in ("config", "minutes", "batch_size")} for name, preset in CLIP_PRESETS.items()}


class Baseline(nn.Module):
    """open_clip's ModifiedResNet as a CLIP's configuration has it, and a linear layer: images `(n, 3, 96, 96)` to logits of STYLES."""

    def __init__(self, config: dict):
        super().__init__()
        tower = config["vision_cfg"]
        heads = tower["width"] * 32 // tower["head_width"]  # as open_clip counts them
        self.trunk = ModifiedResNet(tower["layers"], config["embed_dim"], heads, SIDE, tower["width"])
        self.style = nn.Linear(config["embed_dim"], len(STYLES))
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(PREPROCESS[key])[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.style(F.relu(self.trunk(pixels)))


@torch.no_grad()
def readings(model: Baseline, images: np.ndarray, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Logits `(n, 15)` of whole paintings, as the CLIP sees them."""
    out = []
    for index in track(range(0, len(rows), 192), description="reading"):
        pixels = data.batch(images, rows[index : index + 192], device)
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        out.append(model(pixels).float().cpu())
    return torch.cat(out).numpy()


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
):
    """The baseline and its figures, in `work/baseline`. UserError where the guide split has none of STYLES."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    batch_size = sizes["batch_size"]
    accelerator = options.accelerator(device, steps is not None)
    device = accelerator.device
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work)
    known = table["style"].isin(STYLES)
    rows, test = (np.flatnonzero((table["split"] == split) & known) for split in ("guide", "test"))
    if not len(rows) or not len(test):
        raise UserError(f"The splits guide and test need paintings in styles that the judges know ({', '.join(STYLES)}): there are none.")
    style_of = torch.tensor([STYLES.index(style) if style in STYLES else -1 for style in table["style"]])
    torch.manual_seed(seed)
    model = Baseline(sizes["config"]).to(device, memory_format=torch.channels_last).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.98))
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(nn.ModuleDict({"style": model}), optimizer, work / "baseline", decay=0.998, accelerator=accelerator, **budget)
    generator = run.generator
    weights = torch.tensor(data.balance(table.iloc[rows], style=0.6, artist=0.35))
    near, coder = data.near(images, device), work / "autoencoder" / "vae"
    autoencode = vae_pass(AutoencoderTiny.from_pretrained(coder).to(device).eval()) if coder.exists() else None

    def losses(step, progress):
        chosen = rows[data.draw(weights, batch_size, generator).numpy()]
        pixels = views(data.batch(near, chosen, device), SIDE, generator)
        half = batch_size // 2
        logits = model(torch.cat([pixels[:half], damaged(pixels[half:], generator, autoencode)])).float()
        styles = style_of[chosen].to(device)
        right = logits.argmax(1).eq(styles).float().mean()
        return {"style": F.cross_entropy(logits, styles, label_smoothing=0.05), "_accuracy": right.detach()}

    average = train(run, losses)["style"].eval()
    if not run.main:
        return
    logits = readings(average, images, test, device)
    # It was trained on more images of some styles than of others; the CLIP's head was fitted to balanced classes, and so is this reading.
    seen = np.bincount(style_of[rows].numpy(), weights.numpy(), minlength=len(STYLES))
    logits = logits - np.log(seen / seen.sum() + 1e-9)
    labels, artists = style_of[test].numpy(), table.iloc[test]["artist"]
    half = artist_halves(artists)
    probabilities = softmax(logits / fit_temperature(logits[half], labels[half]))
    figures = {
        "parameters": sum(p.numel() for p in average.parameters()),
        "steps": run.step,
        "seconds": round(run.seconds),
        "other half": style_figures(probabilities[~half], labels[~half], artists[~half], STYLES),
        "all": style_figures(probabilities, labels, artists, STYLES),
    }
    with replacing(work / "baseline" / "test.npz") as partial, partial.open("wb") as file:
        np.savez(file, rows=test, probabilities=probabilities)
    write_text(work / "baseline" / "figures.json", json.dumps(figures, indent=1))
    if figures["other half"]:
        typer.echo(f"balanced accuracy {figures['other half']['balanced_accuracy']:.3f} on half of the unseen artists")


if __name__ == "__main__":
    options.start(main)
