"""Fit the style and period heads on the small CLIP's embeddings, and measure the CLIP on artists that no model here has seen.

    python -m recipes.heads --data paintings/ --work work/

Weights come from guide-split artists; temperatures and the year recalibration from one half of the test artists; every figure on the card
from the other half or, where nothing was fitted, from all of them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
import typer
from diffusers import AutoencoderTiny
from rich.progress import track
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from probes.calibration import monotone
from probes.judges import GENRES, STYLES
from recipes import data, options
from recipes.captions import ADJECTIVES, noun
from recipes.captions import GENRES as GENRE_WORDS
from recipes.clip import PREPROCESS, SIDE
from recipes.metrics import artist_halves, fit_temperature, style_figures, year_figures
from recipes.views import damaged, vae_pass, views

CENTRES = np.arange(1450.0, 1941.0, 35.0)  # of the year bins
TEMPLATES = ("a {} painting", "{} painting", "a painting in the {} style")


def words(style: str) -> list[str]:
    return list(dict.fromkeys((ADJECTIVES.get(style, noun(style)), noun(style))))


@torch.no_grad()
def embed(clip, images: np.ndarray, rows: np.ndarray, device, autoencode=None, augment: bool = False) -> np.ndarray:
    """Normalised embeddings of whole images, or of one augmented and half of the time damaged view each."""
    mean, std = (torch.tensor(PREPROCESS[key], device=device)[:, None, None] for key in ("mean", "std"))
    generator, out = torch.Generator().manual_seed(0), []
    for index in track(range(0, len(rows), 192), description="embedding"):
        pixels = data.batch(images, rows[index : index + 192], device)
        if augment:
            pixels = views(pixels, SIDE, generator)
            half = len(pixels) // 2
            pixels = torch.cat([pixels[:half], damaged(pixels[half:], generator, autoencode)])
        else:
            pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        with torch.autocast(device.type, torch.bfloat16):
            out.append(F.normalize(clip.encode_image((pixels - mean) / std).float(), dim=-1).cpu())
    return torch.cat(out).numpy()


@torch.no_grad()
def prompts(clip, tokenizer, groups: list[list[str]], device) -> np.ndarray:
    """One normalised text prototype per group of phrases, over the templates."""
    out = []
    for phrases in groups:
        text = F.normalize(clip.encode_text(tokenizer([t.format(p) for p in phrases for t in TEMPLATES]).to(device)).float(), dim=-1)
        out.append(F.normalize(text.mean(0), dim=0))
    return torch.stack(out).cpu().numpy()


def fit_period(features: np.ndarray, years: np.ndarray, steps: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Softmax over year bins with triangular soft labels: ordinal, since a neighbouring bin is half right."""
    x, target = torch.from_numpy(features), torch.from_numpy(years)
    soft = (1 - (target[:, None] - torch.from_numpy(CENTRES)[None]).abs() / 60).clamp_min(0).float()
    soft = soft / soft.sum(1, keepdim=True).clamp_min(1e-6)
    weight = (1 / (soft.sum(0) + 20)).sqrt()
    weight = soft @ weight / (soft @ weight).mean()
    head = torch.nn.Linear(x.shape[1], len(CENTRES))
    optimizer = torch.optim.AdamW(head.parameters(), 0.05, weight_decay=0.02)
    for _ in range(steps):
        loss = (-(soft * head(x).log_softmax(1)).sum(1) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.weight.detach().numpy(), head.bias.detach().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def main(folder: options.Data, work: options.Work = Path("work"), device: options.Device = "auto"):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    source = work / "clip" / "model"
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{source}")
    clip, tokenizer = clip.eval().to(device), open_clip.get_tokenizer(f"local-dir:{source}")
    vae = AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae").to(device).eval()
    guide, test = np.flatnonzero(table["split"] == "guide"), np.flatnonzero(table["split"] == "test")
    rows = np.concatenate([guide, guide])
    train = np.concatenate([embed(clip, images, guide, device), embed(clip, images, guide, device, vae_pass(vae), augment=True)])
    held = embed(clip, images, test, device)
    known = table.iloc[test]["style"].isin(STYLES).to_numpy()
    tested = table.iloc[test]
    half = artist_halves(tested["artist"])
    out = work / "heads"
    out.mkdir(parents=True, exist_ok=True)
    encoder = hashlib.sha256((source / "open_clip_model.safetensors").read_bytes()).hexdigest()

    text = prompts(clip, tokenizer, [words(style) for style in STYLES], device)
    labels = pd.Categorical(table["style"], STYLES).codes
    use = labels[rows] >= 0
    model = LogisticRegression(C=3.0, class_weight="balanced", max_iter=400).fit(train[use] * 4, labels[rows][use])
    # Balanced classes: the head says what an image looks like, not how often a style was painted.
    weight, bias = (model.coef_ * 4).astype(np.float32), model.intercept_.astype(np.float32)
    logits = held @ weight.T + bias
    temperature = fit_temperature(logits[known & half], labels[test][known & half])
    other = known & ~half
    figures = style_figures(softmax(logits / temperature)[other], labels[test][other], tested["artist"][other], STYLES)
    zero_shot = style_figures(softmax(held @ text.T * 20)[known], labels[test][known], tested["artist"][known], STYLES)
    save_file({"weight": torch.from_numpy(weight).contiguous(), "bias": torch.from_numpy(bias).contiguous()}, out / "style.safetensors")
    reliability = (
        f"{figures['balanced_accuracy']:.2f} balanced accuracy over {len(STYLES)} styles on {figures['images']} paintings "
        f"by {figures['artists']} unseen artists (95 % over artists {figures['interval'][0]:.2f}-{figures['interval'][1]:.2f}), "
        f"ECE {figures['ece']:.3f}"
    )
    (out / "style.json").write_text(
        json.dumps(
            {
                "encoder": encoder,
                "labels": list(STYLES),
                "temperature": temperature,
                "reliability": reliability,
                "metrics": {"linear": figures, "zero_shot": zero_shot},
            },
            indent=1,
        )
    )

    years = table["year"].to_numpy(np.float64)
    dated = ~np.isnan(years[rows])
    weight, bias = fit_period(train[dated] * 4, years[rows][dated])
    weight = weight * 4
    raw = softmax(held @ weight.T + bias) @ CENTRES
    years_test, dated_test = years[test], ~np.isnan(years[test])
    fit = dated_test & half
    x, y = monotone(raw[fit], years_test[fit])
    other = dated_test & ~half
    figures = year_figures(np.interp(raw[other], x, y), years_test[other], tested["artist"][other])
    figures["before recalibration"] = year_figures(raw[other], years_test[other], tested["artist"][other])
    save_file(
        {
            key: torch.from_numpy(np.asarray(value, np.float32)).contiguous()
            for key, value in {"weight": weight, "bias": bias, "centres": CENTRES, "recalibration_x": x, "recalibration_y": y}.items()
        },
        out / "period.safetensors",
    )
    reliability = (
        f"mean error {figures['mae']:.0f} years on {figures['images']} dated paintings by {figures['artists']} unseen artists "
        f"(95 % over artists {figures['interval'][0]:.0f}-{figures['interval'][1]:.0f}; guessing the median errs "
        f"{figures['mae_of_median']:.0f}), rank correlation {figures['spearman']:.2f}"
    )
    (out / "period.json").write_text(
        json.dumps({"encoder": encoder, "temperature": 1.0, "reliability": reliability, "metrics": figures}, indent=1)
    )

    genre_text = prompts(clip, tokenizer, [[GENRE_WORDS[genre]] for genre in GENRES], device)
    genre_labels = pd.Categorical(tested["genre"], GENRES).codes
    has = genre_labels >= 0
    titled = (tested["title"].str.split().str.len() >= 2).to_numpy()
    captions = [f"a painting of {title}" for title in tested["title"][titled]]
    with torch.no_grad():
        titles = torch.cat(
            [
                F.normalize(clip.encode_text(tokenizer(captions[i : i + 256]).to(device)).float(), dim=-1).cpu()
                for i in range(0, len(captions), 256)
            ]
        ).numpy()
    order = (-(held[titled] @ titles.T)).argsort(1)
    place = (order == np.arange(len(order))[:, None]).argmax(1)
    content = {
        "genre": style_figures(softmax(held @ genre_text.T * 20)[has], genre_labels[has], tested["artist"][has], GENRES),
        "retrieval": {
            "titles": len(order),
            "at 1": float((place < 1).mean()),
            "at 5": float((place < 5).mean()),
            "median rank": float(np.median(place) + 1),
        },
    }
    reliability = (
        f"zero-shot genre balanced accuracy {content['genre']['balanced_accuracy']:.2f} over {len(GENRES)} genres; of {len(order)} titles "
        f"the right one is among the first 5 for {content['retrieval']['at 5']:.1%} (chance {5 / len(order):.1%}): "
        "subjects in broad strokes, no details"
    )
    (out / "content.json").write_text(json.dumps({"reliability": reliability, "metrics": content}, indent=1))


if __name__ == "__main__":
    typer.run(main)
