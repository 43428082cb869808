"""Train the small CLIP that steers: open_clip's own classes and disk format, contrastive on composed captions, robust on purpose.

    python -m recipes.clip --data paintings/ --work work/ --minutes 30

The text tower freezes part-way (its snapshot in `work/clip/` is what the denoiser is conditioned on); the image tower trains on.
"""

import json
import random
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import typer
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from recipes import data, options
from recipes.captions import GENRE_TEMPLATES, GENRES, STYLE_TEMPLATES, caption, style_words
from recipes.tokenizer import CONTEXT, learn
from recipes.training import Run, train
from recipes.views import adversarial, damaged, vae_pass, views

SIDE = 96
CONFIG = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": SIDE, "layers": [2, 2, 2, 2], "width": 32, "head_width": 64},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 4096,
        "width": 192,
        "heads": 6,
        "layers": 4,
        "hf_tokenizer_name": "local",
        "tokenizer_kwargs": {},
    },
}
PREPROCESS = {"mean": [0.5, 0.45, 0.38], "std": [0.25, 0.24, 0.23], "interpolation": "bilinear", "resize_mode": "shortest"}


def save(clip: open_clip.CLIP, folder: Path):
    """open_clip's folder: `open_clip_config.json` and 16-bit safetensors beside the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}, indent=2))
    state = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = 30.0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images a step, before the adversarial copies.")] = 128,
    freeze: Annotated[float, typer.Option(help="Progress at which the text tower freezes.")] = 0.4,
    start: options.Start = None,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    target = work / "clip" / "model"
    tokenizer = learn(table, target)
    save_config_first = not (target / "open_clip_config.json").exists()
    torch.manual_seed(0)
    if start:
        clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{start}")
    else:
        clip = open_clip.CLIP(**CONFIG)
    if save_config_first:
        save(clip, target)
    clip = clip.float().to(device, memory_format=torch.channels_last)
    year_head = nn.Linear(CONFIG["embed_dim"], 1).to(device)
    models = nn.ModuleDict({"clip": clip, "year": year_head})
    text_parameters = [p for name, p in clip.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    named = list(models.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    run = Run(models, torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.98)), work / "clip", minutes, decay=0.998)

    guide = np.flatnonzero(table["split"] == "guide")
    names = [style for style in table["style"].value_counts().index if style]
    genres = list(GENRES)
    style_of = torch.tensor([names.index(s) if s in names else -1 for s in table["style"]])
    genre_of = torch.tensor([genres.index(g) if g in genres else -1 for g in table["genre"]])
    year_of = torch.tensor((table["year"].to_numpy(np.float32) - 1850) / 80)
    counts = table["style"].iloc[guide].map(table["style"].iloc[guide].value_counts()).to_numpy()
    weights = torch.tensor(counts**-0.6)
    rows_of = list(table.itertuples())
    generator, rng = torch.Generator().manual_seed(run.step), random.Random(run.step)
    mean, std = (torch.tensor(PREPROCESS[key], device=device)[:, None, None] for key in ("mean", "std"))
    state = {"frozen": False, "autoencode": None}

    def tokens(texts):
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)

    def encode(pixels):
        return F.normalize(clip.encode_image(((pixels - mean) / std).contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def classify(embeddings, prompts, labels):
        known = labels >= 0
        return F.cross_entropy(20 * embeddings[known] @ prompts.T, labels[known], label_smoothing=0.05)

    def freeze_text():
        averaged = {
            name: value for name, value in run.average["clip"].state_dict().items() if not name.startswith(("visual.", "logit_scale"))
        }
        # Rounded to what the file stores, so that the denoiser learns from exactly the embeddings it will be given.
        clip.load_state_dict(
            {name: value.half().float() if value.is_floating_point() else value for name, value in averaged.items()}, strict=False
        )
        run.average["clip"].load_state_dict(
            clip.state_dict() | {k: v for k, v in run.average["clip"].state_dict().items() if k.startswith(("visual.", "logit_scale"))}
        )
        for parameter in text_parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        save(run.average["clip"], target)
        (work / "clip" / "text-frozen").touch()
        state["frozen"] = True

    def losses(step, progress):
        if progress >= freeze and not state["frozen"]:
            freeze_text()
        if state["autoencode"] is None and step % 100 == 0 and (work / "autoencoder" / "vae").exists():
            state["autoencode"] = vae_pass(AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae").to(device).eval())
        chosen = guide[torch.multinomial(weights, batch_size, generator=generator).numpy()]
        pixels = views(data.batch(images, chosen, device), SIDE, generator)
        half = batch_size // 2
        pixels = torch.cat([pixels[:half], damaged(pixels[half:], generator, state["autoencode"])])
        styles, genre_labels, years = style_of[chosen].to(device), genre_of[chosen].to(device), year_of[chosen].to(device)
        with torch.set_grad_enabled(not state["frozen"]):
            texts = [caption(rows_of[row], rng) for row in chosen]
            prompts = [rng.choice(STYLE_TEMPLATES).format(style_words(name, rng)) for name in names]
            prompts += [rng.choice(GENRE_TEMPLATES).format(GENRES[name]) for name in genres]
            text = F.normalize(clip.encode_text(tokens(texts + prompts)).float(), dim=-1)
        text, style_text, genre_text = text.split([batch_size, len(names), len(genres)])
        if progress > 0.1:
            attacked = batch_size // 4
            norm = 0.3 + 1.5 * torch.rand(attacked, 1, 1, 1, generator=generator).to(device)
            clip.visual.eval()
            hard = adversarial(pixels[:attacked], lambda x: classify(encode(x), style_text.detach(), styles[:attacked]), norm)
            clip.visual.train()
            pixels = torch.cat([hard, pixels[attacked:]])
        image = encode(pixels)
        logits = clip.logit_scale.exp().clamp(max=60) * image @ text.T
        # Rows with the same caption are no negatives of each other.
        same = torch.tensor([[a == b for b in texts] for a in texts], device=device)
        soft = same.float() / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, soft) + F.cross_entropy(logits.T, soft)) / 2
        dated = ~years.isnan()
        year = F.smooth_l1_loss(year_head(image * 16)[dated, 0], years[dated], beta=0.5)
        with torch.no_grad():
            known = styles >= 0
            accuracy = (image @ style_text.T).argmax(1).eq(styles)[known].float().mean()
        return {
            "contrastive": 0.5 * contrastive,
            "style": classify(image, style_text, styles),
            "genre": 0.5 * classify(image, genre_text, genre_labels),
            "year": year,
            "_style_accuracy": accuracy,
        }

    if (work / "clip" / "text-frozen").exists() and run.progress >= freeze:
        for parameter in text_parameters:
            parameter.requires_grad_(False)
        state["frozen"] = True
    save(train(run, losses)["clip"], target)


if __name__ == "__main__":
    typer.run(main)
