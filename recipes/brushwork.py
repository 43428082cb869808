"""Brushwork: what the encoder's early maps and the colours of typical paintings of each style are like, for `guide transfer --style`.

    python -m recipes.brushwork --data paintings/ --work work/

A few paintings of each style stand for it, each as statistics, from which no painting can be made again: mean and deviation of the channels
of early stages at two sizes, mean and covariance of its colours. They are of the guide split; the paintings of which a discriminant over
these statistics is surest are taken, spread over their colours, so that a photograph finds one near its own. Written below `work/heads`,
from where `recipes.assemble` carries it. The card also says how far one painting is from another in the encoder's eyes, beside which
`guide transfer` sets how far its pictures are from their photographs.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from rich.progress import track
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf

from guide.transfer import content, statistics
from guide.transfer.brushwork import SIZES
from guide.transfer.colour import palette
from probes import encoders, image
from probes.atomic import replacing, write_text
from probes.encoders import Encoder
from probes.errors import UserError
from probes.judges import STYLES
from recipes import data, options

COUNT, TYPICAL, MOST = 6, 0.25, 100  # paintings kept of a style; the share of the surest to choose from; paintings read of each
STRANGERS, SIDE = 24, 128  # paintings that are compared with each other, and at how many pixels


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    device: options.Device = "auto",
    encoder: str = typer.Option("", help="embedded, or a folder in open_clip's format. Default: the one below --work."),
    seed: options.Seed = 0,
):
    """`work/heads/brushwork.safetensors` and its card."""
    images, table = data.paintings(folder, work)
    reader = encoders.load(encoder or str(work / "clip" / "model"), options.device(device))
    rows, labels = [], []
    rng = np.random.default_rng(seed)
    own_of = {style: np.flatnonzero((table["style"] == style) & (table["split"] == "guide")) for style in STYLES}
    styles = [style for style, own in own_of.items() if len(own)]
    if not styles:
        raise UserError(f"No painting of the guide split has a style that the judges know ({', '.join(STYLES)}).")
    for number, style in enumerate(styles):
        own = rng.permutation(own_of[style])[:MOST]
        rows += sorted(own.tolist())
        labels += [number] * len(own)
    labels, found = np.array(labels), [_read(reader, images[row]) for row in track(rows, description="reading brushwork")]
    flat = np.stack([np.concatenate([value.numpy().ravel() for value in one.values()]) for one in found])
    sure = surest((flat - flat.mean(0)) / (flat.std(0) + 1e-6), labels)
    colours = np.stack([torch.cat([one["palette mean"], one["palette covariance"].diagonal().sqrt()]).numpy() for one in found])
    kept, artists = [], []
    for number in range(len(styles)):
        own = np.flatnonzero(labels == number)
        typical = own[np.argsort(-sure[own])[: max(COUNT, round(TYPICAL * len(own)))]]
        kept += [spread(typical, colours, sure)]
        artists.append([str(table["artist"].iloc[rows[k]]) for k in kept[-1]])
    held = {name: torch.stack([torch.stack([found[k][name] for k in some]) for some in kept]).half() for name in found[0]}
    everything = {name: torch.stack([one[name] for one in found]) for name in found[0]}
    for name in [name for name in held if name.endswith(" mean") and not name.startswith("palette")]:
        stem = name.removesuffix(" mean")
        variance = everything[f"{stem} deviation"].square().mean(0) + everything[name].var(0)
        held[f"{stem} spread"] = variance.sqrt().half()
    stem = work / "heads" / "brushwork"
    with replacing(stem.with_suffix(".safetensors")) as temporary:
        save_file({name: value.contiguous() for name, value in held.items()}, temporary)
    card = {"encoder": reader.fingerprint, "labels": styles, "paintings": COUNT, "read": len(rows),
            "artists": dict(zip(styles, artists, strict=True)), "between paintings": strangers(reader, images, table, seed),
            "reliability": f"statistics of {COUNT} typical paintings of each of {len(styles)} styles; not validated"}  # fmt: skip
    write_text(stem.with_suffix(".json"), json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"{stem}.safetensors: {len(styles)} styles, {stem.with_suffix('.safetensors').stat().st_size / 1e6:.2f} MB")


@torch.no_grad()
def _read(reader, pixels: np.ndarray) -> dict[str, torch.Tensor]:
    picture = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float().to(reader.device) / 255
    colours, out = palette(picture), {}
    for size in SIZES:
        one = statistics.measured(reader, image.resize(picture, (size, size), "bilinear"), list(statistics.stages(reader)))
        for stage in one.mean:
            out |= {f"{size} {stage} mean": one.mean[stage].cpu(), f"{size} {stage} deviation": one.deviation[stage].cpu()}
    return out | {"palette mean": colours.mean.cpu(), "palette covariance": colours.covariance.cpu()}


@torch.no_grad()
def strangers(reader: Encoder, images: np.ndarray, table: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Medians over all ordered pairs of STRANGERS paintings of the test split, the guide split where it has not two, by distance."""
    rows = next(rows for name in ("test", "guide") if len(rows := np.flatnonzero(table["split"] == name)) > 1 or name == "guide")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:STRANGERS])
    pixels = data.centre_crop(data.batch(images, rows, reader.device), SIDE)
    found = {name: [] for name in content.UNASKED}
    for place in track(range(len(pixels) * (len(pixels) > 1)), description="comparing paintings"):
        others = torch.cat([pixels[:place], pixels[place + 1 :]])
        for name, apart in content.distances(reader, pixels[place : place + 1], content.UNASKED).items():
            found[name].append(apart(others))
    return {name: round(float(torch.cat(values).median()), 3) for name, values in found.items() if values}


def surest(features: np.ndarray, labels: np.ndarray, rank: int = 128) -> np.ndarray:
    """The log-odds of each row's own label under Gaussian discriminant analysis with one shrunk covariance, over principal components."""
    if not labels.any():
        return np.zeros(len(labels))
    _, _, axes = np.linalg.svd(features, full_matrices=False)
    low = features @ axes[:rank].T
    means = np.stack([low[labels == k].mean(0) for k in range(labels.max() + 1)])
    precision = LedoitWolf().fit(low - means[labels]).precision_
    apart = low[:, None] - means[None]
    scores = -0.5 * np.einsum("nki,ij,nkj->nk", apart, precision, apart)
    own = scores[np.arange(len(labels)), labels]
    others = np.where(np.arange(scores.shape[1])[None] == labels[:, None], -np.inf, scores)
    return own - np.logaddexp.reduce(others, axis=1)


def spread(rows: np.ndarray, colours: np.ndarray, sure: np.ndarray) -> list[int]:
    """COUNT of the rows, one of each cluster of colours: the surest of it. Where there are not so many, some stand twice."""
    if len(rows) <= COUNT:
        return [int(row) for row in np.resize(rows, COUNT)]
    clusters = KMeans(COUNT, n_init=4, random_state=0).fit_predict(colours[rows])
    return [int(rows[clusters == k][np.argmax(sure[rows[clusters == k]])]) for k in range(COUNT)]


if __name__ == "__main__":
    options.start(main)
