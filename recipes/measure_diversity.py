"""Measure how the pipeline's pictures lie beside real paintings: KID and its floors, precision and recall, Vendi score, memorisation.

    python -m recipes.measure_diversity --data paintings/ --work work/

Everything is in the eyes of the verdict, whose features are fixed statistics of colour and texture: comparable within this project only.
Each picture was asked for by the title of a test painting of the same style, and that painting is its real counterpart. Figures go into
`work/diversity.json`, sixteen pictures with their nearest training paintings into `nearest.png`.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from torch.nn import functional as F

from guide import sheet
from probes import distributions, judge
from probes.atomic import replacing, write_text
from probes.judges import STYLES
from recipes import data, options, samples
from recipes.assemble import ROOT
from recipes.sample_grids import cell, save

SMALL = 32  # pixels a side when pictures are compared as they are
SHOWN = 16
BLUR = 2.0  # sigma in pixels


@torch.no_grad()
def features(verdict: judge.Judge, images: torch.Tensor) -> torch.Tensor:
    """The verdict's standardised statistics `(n, d)`: not normalised, since KID's kernel expects components of about unit size."""
    return torch.cat([verdict.network(part)["features"] for part in images.split(64)])


def blurred(images: torch.Tensor, sigma: float = BLUR) -> torch.Tensor:
    """Gaussian blur, edges reflected."""
    reach = round(3 * sigma)
    taps = torch.exp(-((torch.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    taps = (taps / taps.sum()).expand(3, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps[:, :, None], groups=3), taps[..., None], groups=3)


@torch.no_grad()
def coded(vae, images: torch.Tensor) -> torch.Tensor:
    """Through the autoencoder and back."""
    parts = [vae.decode(vae.encode(part * 2 - 1).latents).sample for part in images.split(32)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def floors(verdict: judge.Judge, vae, real: torch.Tensor, found: torch.Tensor, halves: np.ndarray) -> dict[str, dict]:
    """KID of one half of the real paintings, as they are, coded or blurred, to the other half."""
    one, other = torch.from_numpy(halves), torch.from_numpy(~halves)
    return {
        "real against real": distributions.kid(found[one], found[other]),
        "autoencoder alone": distributions.kid(features(verdict, coded(vae, real[one])), found[other]),
        f"blurred, sigma {BLUR:g}": distributions.kid(features(verdict, blurred(real[one])), found[other]),
    }


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """Pictures as vectors `(n, 3072)`: 32 pixels a side, each with mean 0 and length 1, so that brightness and contrast do not count."""
    small = F.adaptive_avg_pool2d(images, SMALL).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def training_thumbnails(images: np.ndarray, table, work: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Thumbnails of all paintings that the denoiser learned from, kept in `work/samples`, and their rows."""
    rows = np.flatnonzero(table["split"] != "test")
    store = work / "samples" / f"thumbnails-{len(rows)}.npy"
    if not store.exists():
        parts = track(np.array_split(rows, -(-len(rows) // 256)), description="thumbnails")
        made = torch.cat([thumbnails(data.centre_crop(data.batch(images, part), 128)).half() for part in parts])
        with replacing(store) as partial, partial.open("wb") as file:
            np.save(file, made.numpy())
    return torch.from_numpy(np.load(store)).float(), rows


def memorisation(images: np.ndarray, table, work: Path, made: torch.Tensor, real: torch.Tensor, out: Path) -> dict:
    """Distances to the nearest training painting (mirrored ones too), of pictures and of test paintings; a sheet of the first sixteen."""
    pool, rows = training_thumbnails(images, table, work)

    def closest(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (plain, there), (mirrored, elsewhere) = (distributions.nearest(thumbnails(x), pool) for x in (pictures, pictures.flip(-1)))
        return torch.minimum(plain, mirrored), torch.where(plain <= mirrored, there, elsewhere), mirrored < plain

    distance, place, mirrored = closest(made)
    reference, _, _ = closest(real)
    found = data.centre_crop(data.batch(images, rows[place[:SHOWN].numpy()]), 128)
    found = torch.where(mirrored[:SHOWN, None, None, None], found.flip(-1), found)
    pairs = list(zip(made[:SHOWN], found, distance[:SHOWN].tolist(), strict=True))
    blocks = []
    for part in (pairs[:8], pairs[8:]):
        if part:
            upper, lower = [cell(picture) for picture, _, _ in part], [cell(near, f"{far:.2f}") for _, near, far in part]
            blocks.append(sheet.Block("", (sheet.Row("generated", tuple(upper)), sheet.Row("nearest training", tuple(lower)))))
    save(out / "nearest.png", "Nearest training paintings of sixteen pictures, nothing chosen", blocks, 72)
    low = float(np.percentile(reference, 1))
    return {
        "pictures": len(made),
        "distance": {"min": float(distance.min()), "median": float(distance.median())},
        "of test paintings": {"pictures": len(real), "1 %": low, "median": float(reference.median())},
        "nearer than 1 % of test paintings are": float((distance < low).float().mean()),
        "shown": [round(far, 3) for _, _, far in pairs],
    }


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    most: samples.Most = samples.MOST,
    fewest: samples.Fewest = samples.FEWEST,
    steps: samples.Steps = None,
    out: Annotated[Path, typer.Option(help="Where nearest.png goes.")] = ROOT / "guide" / "embedded",
):
    images, table = data.paintings(folder, work)
    studio, verdict = samples.Studio(work, steps=steps), judge.load("verdict")
    wishes = samples.of_titles(table, most, fewest)
    painted = samples.tensor(studio.paint(wishes))
    paired = np.array([wish.row >= 0 for wish in wishes])
    made = painted[torch.from_numpy(paired)]
    rows, styles = (np.array([getattr(wish, name) for wish in wishes])[paired] for name in ("row", "style"))
    real = data.centre_crop(data.batch(images, rows), 128)
    of_made, of_real = features(verdict, made), features(verdict, real)
    halves = np.zeros(len(rows), bool)
    for style in STYLES:
        halves[np.flatnonzero(styles == style)[::2]] = True
    figures = {
        "weights": studio.weights,
        "pictures": len(made),
        "kid": distributions.kid(of_made, of_real),
        "floors": floors(verdict, studio.pipeline.vae, real, of_real, halves),
        **distributions.precision_recall(of_real, of_made),
        "of the halves": distributions.precision_recall(of_real[torch.from_numpy(halves)], of_real[torch.from_numpy(~halves)]),
        "vendi": {"generated": distributions.vendi(of_made), "real": distributions.vendi(of_real)},
        "vendi by style": {
            style: [round(distributions.vendi(x[torch.from_numpy(styles == style)]), 1) for x in (of_made, of_real)]
            for style in STYLES
            if (styles == style).any()
        },
        "memorisation": memorisation(images, table, work, made, real, out),
    }
    write_text(work / "diversity.json", json.dumps(figures, indent=1))
    typer.echo(json.dumps({name: figures[name] for name in ("kid", "floors", "precision", "recall", "vendi")}, indent=1))


if __name__ == "__main__":
    options.start(main)
