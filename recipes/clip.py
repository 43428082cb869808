"""Train the small CLIP that steers: open_clip's own classes and disk format, contrastive on composed captions, robust on purpose.

    python -m recipes.clip --data paintings/ --work work/ --minutes 30
    accelerate launch -m recipes.clip --data paintings/ --work work/ --preset gpu

The text tower freezes part-way (the denoiser may learn under its snapshot in `work/clip/` meanwhile); the image tower trains on.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import typer
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from probes.errors import UserError
from recipes import data, options
from recipes.captions import GENRE_TEMPLATES, GENRES, STYLE_TEMPLATES, caption, style_words
from recipes.estimates import estimate_pass
from recipes.tokenizer import CONTEXT, learn
from recipes.training import Run, known_mean, train
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
# Images stay at 96 pixels: what fits and reads the heads takes SIDE for granted.
LARGE = CONFIG | {
    "vision_cfg": CONFIG["vision_cfg"] | {"layers": [3, 4, 6, 3], "width": 40},
    "text_cfg": CONFIG["text_cfg"] | {"width": 256, "heads": 8, "layers": 6},
}
PRESETS = {
    "cpu": {"config": CONFIG, "minutes": 30.0, "batch_size": 128},  # image tower 6.9 M parameters, text tower 2.6 M
    "gpu": {"config": LARGE, "minutes": 60.0, "batch_size": 1024},  # 14.5 M and 5.9 M
}
PREPROCESS = {"mean": [0.5, 0.45, 0.38], "std": [0.25, 0.24, 0.23], "interpolation": "bilinear", "resize_mode": "shortest"}


def save(clip: open_clip.CLIP, folder: Path, config: dict = CONFIG):
    """open_clip's folder: `open_clip_config.json` and 16-bit safetensors beside the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2))
    state = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: options.Minutes = None,
    device: options.Device = "auto",
    batch_size: options.Batch = None,
    freeze: Annotated[float, typer.Option(help="Progress at which the text tower freezes.", min=0, max=1)] = 0.4,
    start: options.Start = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    preset: options.Preset = "cpu",
    robust: Annotated[float, typer.Option(help="Share of the usual damage and attacks; 0 to see what they cost.", min=0, max=1)] = 1.0,
):
    """The small CLIP, its tokenizer and configuration, in `work/clip/model`, or in `work/plain/model` where `robust` is 0."""
    sizes = options.chosen(PRESETS, preset, minutes=minutes, batch_size=batch_size)
    config, batch_size = sizes["config"], sizes["batch_size"]
    accelerator = options.accelerator(device, steps is not None)
    device, place = accelerator.device, work / ("clip" if robust else "plain")
    target = place / "model"
    if start:
        with options.warm(start):  # before any image is decoded
            config = json.loads((start / "open_clip_config.json").read_text())["model_cfg"]
    with accelerator.main_process_first():
        images, table = data.paintings(folder, work)
        # The text tower of a warm start knows its own tokens; another vocabulary would scramble them.
        # A vocabulary that is there is kept, by a run that goes on and by further processes.
        known = start or (target if (target / "tokenizer.json").exists() else None)
        with options.warm(start):
            tokenizer = CLIPTokenizer.from_pretrained(known) if known else learn(table, target)
    torch.manual_seed(seed)
    if start:
        with options.warm(start):
            clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{start}")
    else:
        clip = open_clip.CLIP(**config)
    if accelerator.is_main_process:
        tokenizer.save_pretrained(target)
        if not (target / "open_clip_config.json").exists():
            save(clip, target, config)
    images = data.near(images, device)
    clip = clip.float().to(device, memory_format=torch.channels_last)
    guide = np.flatnonzero(table["split"] == "guide")
    works = table["artist"].iloc[guide].value_counts()
    painters = [artist for artist in works.index[works >= 4] if artist]
    year_head = nn.Linear(config["embed_dim"], 1).to(device)
    artist_head = nn.Linear(config["embed_dim"], max(1, len(painters))).to(device)
    models = nn.ModuleDict({"clip": clip, "year": year_head, "artist": artist_head})
    text_parameters = [p for name, p in clip.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    named = list(models.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.98))
    budget = {"minutes": sizes["minutes"], "steps": steps, "seed": seed}
    run = Run(models, optimizer, place, decay=0.998, accelerator=accelerator, **budget)
    if run.state.setdefault("robust", robust) != robust:
        raise UserError(f"{run.checkpoint} is of --robust {run.state['robust']:g}, not {robust:g}: choose another --work or delete it.")
    options.tell_start(start, run)
    hurt, attacked = (round(batch_size // part * robust) for part in (2, 4))
    if robust and not (hurt >= 3 and attacked):
        raise UserError(f"Of a batch of {batch_size} images --robust {robust:g} leaves too few to damage: take a larger --batch-size.")
    generator, rng, marker = run.generator, run.rng, place / "text-frozen"
    coder, denoiser = work / "autoencoder" / "vae", work / "denoiser" / "unet"

    names = [style for style in table["style"].value_counts().index if style]
    genres = list(GENRES)
    style_of = torch.tensor(data.codes(table["style"], names))
    genre_of = torch.tensor(data.codes(table["genre"], genres))
    artist_of = torch.tensor(data.codes(table["artist"], painters))
    year_of = torch.tensor((table["year"].to_numpy(np.float32) - 1850) / 80)
    weights = torch.tensor(data.balance(table.iloc[guide], style=0.6, artist=0.35))
    rows_of = list(table.itertuples())
    mean, std = (torch.tensor(PREPROCESS[key], device=device)[:, None, None] for key in ("mean", "std"))
    loaded = {}

    def tokens(texts):
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)

    def encode(pixels):
        return F.normalize(clip.encode_image(((pixels - mean) / std).contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def classify(embeddings, prompts, labels):
        errors = F.cross_entropy(20 * embeddings @ prompts.T, labels.clamp_min(0), reduction="none", label_smoothing=0.05)
        return known_mean(errors, labels >= 0)

    def hold_text():
        for parameter in text_parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        run.state["frozen"] = True

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
        hold_text()
        if run.main:
            save(run.average["clip"], target, config)
            marker.touch()

    def look_for_autoencoder():
        """It, and the denoiser of its latents, may still be in training beside this. Not before a step's own draws: loading them draws from
        torch's stream too."""
        if robust and "vae" not in loaded and coder.exists():
            loaded["vae"] = AutoencoderTiny.from_pretrained(coder).to(device).eval()
            loaded["autoencode"] = vae_pass(loaded["vae"])
        if "vae" in loaded and "estimate" not in loaded and denoiser.exists():
            loaded["estimate"] = estimate_pass(loaded["vae"], UNet2DConditionModel.from_pretrained(denoiser).to(device).eval(), generator)

    def losses(step, progress):
        if progress >= freeze and not run.state.get("frozen"):
            freeze_text()
        chosen = guide[data.draw(weights, batch_size, generator).numpy()]
        pixels = views(data.batch(images, chosen, device), SIDE, generator)
        if hurt:
            pixels = torch.cat([pixels[:-hurt], damaged(pixels[-hurt:], generator, loaded.get("autoencode"), loaded.get("estimate"))])
        styles, genre_labels, years = style_of[chosen].to(device), genre_of[chosen].to(device), year_of[chosen].to(device)
        with torch.set_grad_enabled(not run.state.get("frozen")):
            texts = [caption(rows_of[row], rng) for row in chosen]
            prompts = [rng.choice(STYLE_TEMPLATES).format(style_words(name, rng)) for name in names]
            prompts += [rng.choice(GENRE_TEMPLATES).format(GENRES[name]) for name in genres]
            text = F.normalize(clip.encode_text(tokens(texts + prompts)).float(), dim=-1)
        text, style_text, genre_text = text.split([batch_size, len(names), len(genres)])
        if attacked and progress > 0.1:
            norm = 0.3 + 1.5 * torch.rand(attacked, 1, 1, 1, generator=generator).to(device)
            clip.visual.eval()
            hard = adversarial(pixels[:attacked], lambda x: classify(encode(x), style_text.detach(), styles[:attacked]), norm)
            clip.visual.train()
            pixels = torch.cat([hard, pixels[attacked:]])
        image = encode(pixels)
        logits = clip.logit_scale.exp().clamp(max=60) * image @ text.T
        # Rows with the same caption are no negatives of each other.
        first = {text: index for index, text in enumerate(texts)}
        codes = torch.tensor([first[text] for text in texts], device=device)
        same = codes[:, None] == codes
        soft = same.float() / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, soft) + F.cross_entropy(logits.T, soft)) / 2
        dated = ~years.isnan()
        year = known_mean(F.smooth_l1_loss(year_head(image * 16)[:, 0], years.nan_to_num(), beta=0.5, reduction="none"), dated)
        hands = artist_of[chosen].to(device)
        artist = known_mean(F.cross_entropy(artist_head(image * 16), hands.clamp_min(0), reduction="none"), hands >= 0)
        with torch.no_grad():
            accuracy = known_mean((image @ style_text.T).argmax(1).eq(styles).float(), styles >= 0)
        if step % 100 == 99:
            look_for_autoencoder()
        return {
            "contrastive": 0.5 * contrastive,
            "style": classify(image, style_text, styles),
            "genre": 0.5 * classify(image, genre_text, genre_labels),
            "year": year,
            "artist": 0.3 * artist,
            "_style_accuracy": accuracy,
            "_robust": torch.tensor(robust),  # for the card, as what follows
            "_autoencoded": torch.tensor(float("vae" in loaded)),
            "_estimates": torch.tensor(float("estimate" in loaded)),
        }

    # Once frozen, frozen for good: the denoiser may be learning from it. Checkpoints of earlier versions tell by the marker alone.
    if run.state.get("frozen") or ("frozen" not in run.state and run.step and marker.exists() and run.progress >= freeze):
        hold_text()
    look_for_autoencoder()
    # The fused kernel's backward pass takes a sixth of a step on CPUs, for the ten places that the image tower attends to.
    with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        average = train(run, losses)["clip"]
    if run.main:
        save(average, target, config)


if __name__ == "__main__":
    options.start(main)
