"""Fit the verdict on judge-split artists: kernel ridge regression on fixed statistics, in closed form.

    python -m recipes.verdict --data paintings/ --work work/

Bandwidth and ridge are chosen by the balanced accuracy over folds that keep an artist together.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from diffusers import AutoencoderTiny
from rich.progress import track
from safetensors.torch import save_file
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold

from probes.atomic import replacing, write_text
from probes.errors import UserError
from probes.judges import GENRES, STYLES, build
from probes.judges.readout import YEAR_CENTRE, YEAR_SPREAD
from recipes import data, options
from recipes.corruptions import corrupt
from recipes.metrics import hands
from recipes.training import write
from recipes.views import vae_pass

BANDWIDTHS, RIDGES = (0.7, 1.0, 1.4, 2.0), (0.01, 0.03, 0.1, 0.3, 1.0)
YEAR_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
BALANCE = 0.8  # 1: every style weighs the same, 0: every image


def ridge(kernel: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, strengths: Sequence[float]) -> list[torch.Tensor]:
    """Weighted least squares with an L2 penalty, a solution `(features, targets)` for each strength of it."""
    weighted = kernel * weights[:, None]
    gram, right = weighted.T @ kernel, weighted.T @ targets
    identity = torch.eye(len(gram), dtype=gram.dtype)
    return [torch.cholesky_solve(right, torch.linalg.cholesky(gram + strength * identity)) for strength in strengths]


@torch.no_grad()
def statistics(model, images: np.ndarray, rows: np.ndarray, change) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics `(n, d)` of the rows after `change(images) -> (images, severity)`, and the severities `(n,)`."""
    found, severities = [], []
    for index in track(range(0, len(rows), 64), description="statistics"):
        pixels, severity = change(data.centre_crop(data.batch(images, rows[index : index + 64]), 128))
        found.append(model.statistics(pixels))
        severities.append(severity)
    return torch.cat(found), torch.cat(severities)


def folds(artists: np.ndarray, count: int = 3) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places to fit to and places to try on, no artist in both; none where there is a single artist."""
    groups = len(set(artists))
    return GroupKFold(min(count, groups)).split(artists, groups=artists) if groups > 1 else iter(())


def main(folder: options.Data, work: options.Work = Path("work")):
    started = time.monotonic()
    images, table = data.paintings(folder, work)
    rows = np.flatnonzero(table["split"] == "judge")
    judged = table.iloc[rows]
    if not judged["style"].isin(STYLES).any():
        raise UserError(f"No image of split judge has a style that the judges know ({', '.join(STYLES)}): there is nothing to fit.")
    whose = hands(judged["artist"]).to_numpy()
    if len(set(whose[judged["style"].isin(STYLES)])) < 2:
        raise UserError("All images of split judge in those styles are by one artist: settings come from folds by artist.")
    options.needed(work / "autoencoder" / "vae", "autoencoder")
    model = build("verdict")
    generator = torch.Generator().manual_seed(0)
    through = vae_pass(AutoencoderTiny.from_pretrained(work / "autoencoder" / "vae").eval())
    # Softness of the autoencoder is no damage: every generated picture has it.
    store = work / "verdict" / "statistics.pt"
    if store.exists():
        versions = torch.load(store, weights_only=True)
    else:
        versions = [
            statistics(model, images, rows, lambda x: (x, torch.zeros(len(x)))),
            statistics(model, images, rows[::4], lambda x: (through(x), torch.zeros(len(x)))),
            statistics(model, images, rows[::2], lambda x: corrupt(x, generator)),
        ]
        with replacing(store) as partial:
            write(versions, partial)
    every = np.concatenate([np.arange(len(rows))[::step] for step in (1, 4, 2)])
    model.centre.copy_(versions[0][0].mean(0))
    model.spread.copy_(versions[0][0].std(0).clamp_min(1e-4))
    standard = torch.cat([((x - model.centre) / model.spread).clamp(-4, 4) for x, _ in versions])
    severity = torch.cat([s for _, s in versions])
    labels = judged["style"].map({name: i for i, name in enumerate(STYLES)}).fillna(-1).astype(int).to_numpy()[every]
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels).clamp_min(0), len(STYLES)).float() - 1 / len(STYLES)
    counts = np.bincount(labels[labels >= 0], minlength=len(STYLES))
    # Damaged pictures count less for their style.
    style_weights = torch.from_numpy(np.where(labels >= 0, (counts.mean() / counts.clip(1)[labels]) ** BALANCE, 0)).float() * (1 - severity)
    directions = model.directions.clone() / standard.shape[1] ** 0.5

    def mapped(bandwidth: float) -> torch.Tensor:
        model.directions.copy_(directions / bandwidth)
        return torch.cat([model.kernel(part) for part in standard.split(2048)])

    known = np.flatnonzero(labels[: len(rows)] >= 0)  # undamaged, of known style
    scores = {}
    for bandwidth in track(BANDWIDTHS, description="folds"):
        kernel = mapped(bandwidth)[known]
        guess = np.zeros((len(RIDGES), len(known)), int)
        for train, test in folds(whose[known]):
            solutions = ridge(kernel[train], targets[known][train], style_weights[known][train], RIDGES)
            guess[:, test] = torch.stack([(kernel[test] @ solution).argmax(1) for solution in solutions])
        for strength, guessed in zip(RIDGES, guess, strict=True):
            scores[bandwidth, strength] = balanced_accuracy_score(labels[known], guessed)
    bandwidth, strength = max(scores, key=scores.get)
    kernel = mapped(bandwidth)

    def fit(layer, target: torch.Tensor, weights: torch.Tensor, strength: float = strength):
        layer.weight.copy_(ridge(kernel, target, weights, [strength])[0].T)
        layer.bias.zero_()

    with torch.no_grad():
        fit(model.style, targets, style_weights)
        genres = pd.Categorical(judged["genre"].where(judged["genre"].isin(GENRES)), GENRES).codes[every]
        hot = torch.nn.functional.one_hot(torch.from_numpy(genres.astype(int)).clamp_min(0), len(GENRES)).float() - 1 / len(GENRES)
        counts = np.bincount(genres[genres >= 0], minlength=len(GENRES))
        even = np.where(genres >= 0, (counts.mean() / counts.clip(1)[genres]) ** 0.5, 0)
        fit(model.genre, hot, torch.from_numpy(even).float() * (1 - severity))
        years = torch.from_numpy(judged["year"].to_numpy(np.float32)[every])
        middle = float(years.nanmean()) if (~years.isnan()).any() else YEAR_CENTRE
        target, weights = ((years.nan_to_num(middle) - middle) / YEAR_SPREAD)[:, None], (~years.isnan()).float() * (1 - severity)
        # Years are noisier than styles: their own ridge, by the error on artists left out.
        dated = np.flatnonzero(weights[: len(rows)].numpy() > 0)
        errors = np.zeros(len(YEAR_RIDGES))
        for train, test in folds(whose[dated]):
            for index, solution in enumerate(ridge(kernel[dated[train]], target[dated[train]], weights[dated[train]], YEAR_RIDGES)):
                errors[index] += float((kernel[dated[test]] @ solution - target[dated[test]]).abs().sum())
        fit(model.year, target, weights, YEAR_RIDGES[int(errors.argmin())] if errors.any() else YEAR_RIDGES[-1])
        model.year.bias.fill_((middle - YEAR_CENTRE) / YEAR_SPREAD)
        fit(model.severity, (severity - severity.mean())[:, None], torch.ones(len(severity)))
        model.severity.bias.fill_(float(severity.mean()))
    out = work / "verdict" / "model"
    with replacing(out / "model.safetensors") as partial:
        save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, partial)
    told = {"bandwidth": bandwidth, "ridge": strength, "balanced accuracy in the folds": scores[bandwidth, strength],
            "seconds": round(time.monotonic() - started), "images": len(rows)}  # fmt: skip
    write_text(out / "training.json", json.dumps(told))
    write_text(work / "verdict" / "log.json", json.dumps([told]))
    typer.echo(json.dumps({f"{b} {r}": round(float(v), 4) for (b, r), v in scores.items()}))
    typer.echo(json.dumps(told))


if __name__ == "__main__":
    options.start(main)
