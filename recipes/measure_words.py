"""Measure whether words matter: the same seeds with a word and without it, and whether the CLIP finds the word again in the picture.

    python -m recipes.measure_words --data paintings/ --work work/

The CLIP ranks six phrases for each picture; chance puts the right one first in a sixth. Where its text tower also conditions the denoiser
it is a lenient reader, and the figures say so; how it does on real paintings with the word in their title bounds what can be expected.
Figures go into `work/words.json`, the pictures into `words.png`.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from guide import sheet
from probes import encoders
from probes.atomic import write_text
from recipes import data, options, samples, text_tower
from recipes.assemble import ROOT
from recipes.sample_grids import cell, save

WORDS = {"river": "a river", "lemons": "lemons", "madonna": "the madonna", "horse": "a horse", "bridge": "a bridge", "snow": "snow"}
SHOWN, FIRST_SEED = 8, 0


def wishes(seeds: int) -> list[samples.Wish]:
    """The same seeds for `a painting` and for each word."""
    prompts = ("a painting", *(f"a painting of {phrase}" for phrase in WORDS.values()))
    return [samples.Wish(prompt, FIRST_SEED + seed) for prompt in prompts for seed in range(seeds)]


@torch.no_grad()
def cosines(encoder: encoders.Encoder, images: torch.Tensor) -> np.ndarray:
    """Similarity `(n, 6)` of pictures to the six phrases."""
    text = encoder.text([f"a painting of {phrase}" for phrase in WORDS.values()])
    return torch.cat([encoder(part) @ text.T for part in images.split(64)]).numpy()


def interval(hits: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of `hits (words, seeds)` over seeds drawn with replacement."""
    rng = np.random.default_rng(0)
    draws = [hits[:, rng.integers(hits.shape[1], size=hits.shape[1])].mean() for _ in range(1000)]
    return tuple(float(value) for value in np.percentile(draws, (2.5, 97.5)))


def on_real(encoder: encoders.Encoder, images: np.ndarray, table) -> dict[str, dict]:
    """The same ranking for test paintings whose title has exactly one of the words."""
    held = table["title"].str.split().map(lambda title: [word for word in WORDS if word in title])
    rows = np.flatnonzero((table["split"] == "test") & (held.map(len) == 1))
    if not len(rows):
        return {}
    first = cosines(encoder, data.centre_crop(data.batch(images, rows), 128)).argmax(1)
    truth = held.iloc[rows].map(lambda words: list(WORDS).index(words[0])).to_numpy()
    groups = {word: first[truth == index] == index for index, word in enumerate(WORDS)}
    return {word: {"paintings": len(hits), "first": float(hits.mean()) if len(hits) else None} for word, hits in groups.items()}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    seeds: Annotated[int, typer.Option(help="Pictures of each word.", min=1)] = 32,
    steps: samples.Steps = None,
    out: Annotated[Path, typer.Option(help="Where words.png goes.")] = ROOT / "guide" / "embedded",
):
    images, table = data.paintings(folder, work)
    encoder, studio = encoders.load("embedded"), samples.Studio(work, steps=steps)
    pictures = samples.tensor(studio.paint(wishes(seeds))).unflatten(0, (len(WORDS) + 1, seeds))
    plain, worded = pictures[0], pictures[1:]
    said = cosines(encoder, worded.flatten(0, 1)).reshape(len(WORDS), seeds, len(WORDS))
    before = cosines(encoder, plain)
    hits = said.argmax(2) == np.arange(len(WORDS))[:, None]
    gains = np.stack([said[index, :, index] - before[:, index] for index in range(len(WORDS))])
    moved = (worded - plain).square().mean((2, 3, 4)).sqrt()
    in_training = table["title"][table["split"] != "test"].str.split()
    figures = {
        "seeds": seeds,
        "chance": 1 / len(WORDS),
        "text tower shared": text_tower.shared(ROOT),
        "first": float(hits.mean()),
        "interval": interval(hits),
        "words": {
            word: {
                "first": float(hits[index].mean()),
                "without the word": float((before.argmax(1) == index).mean()),
                "cosine gain": float(gains[index].mean()),
                "pixels moved (RMS)": float(moved[index].mean()),
                "titles in training": int(in_training.map(lambda title, word=word: word in title).sum()),
            }
            for index, word in enumerate(WORDS)
        },
        "on real test paintings": on_real(encoder, images, table),
    }
    write_text(work / "words.json", json.dumps(figures, indent=1))
    rows = [sheet.Row(label, tuple(cell(p) for p in row[:SHOWN])) for label, row in zip(("no word", *WORDS), pictures, strict=True)]
    save(out / "words.png", "The same seeds without and with a word", [sheet.Block("", tuple(rows))], 72)
    typer.echo(f"the right word first of six: {figures['first']:.0%} (chance 17 %)")


if __name__ == "__main__":
    options.start(main)
