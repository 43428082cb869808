"""Pictures of the pipeline for measuring, painted once: what several recipes ask for is kept in `work/samples` and shared.

A folder there belongs to one set of weights and one setting, so that new weights never meet old pictures.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from rich.progress import track

from guide import pipelines, run
from guide.brief import Brief
from guide.seeds import generators
from probes.atomic import replacing
from probes.judges import STYLES
from recipes.captions import GENRES

Most = Annotated[int, typer.Option(help="Test paintings of a style whose titles are painted, at most.", min=1)]
Fewest = Annotated[int, typer.Option(help="Pictures of a style, at least.", min=1)]
Steps = Annotated[int | None, typer.Option(help="Denoising steps. Default: the model's.", min=1)]
MOST, FEWEST = 83, 32  # a thousand pairs of a painting and a picture, and some more where a style has few paintings
BATCH = 32
FIRST_SEED = 1000  # of the pictures that figures are computed from


@dataclass(frozen=True)
class Wish:
    """One picture: its prompt and its seed; `style` and `row` (of the table) say what it stands for and change nothing."""

    prompt: str
    seed: int
    style: str = ""
    row: int = -1

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.seed} {self.prompt}".encode()).hexdigest()[:24]


class Studio:
    """The pipeline at its model's own settings (or other `steps`), and the pictures that it has painted so far."""

    def __init__(self, work: Path, model: str = "embedded", device: str = "cpu", steps: int | None = None):
        self.model, self.pipeline = pipelines.find(model), pipelines.load(model, device)
        self.steps = steps or self.model.steps
        self.weights = run.fingerprint(self.pipeline)
        way = f"{self.steps}-steps-guidance-{self.model.guidance_scale:g}-{self.model.guidance_rescale:g}"
        self.folder = work / "samples" / f"{self.weights[:12]}-{way}"

    def paint(self, wishes: Sequence[Wish]) -> np.ndarray:
        """Unguided pictures `(n, h, w, 3)` uint8 in the order of the wishes; those that are not there yet are painted, 32 at a time.

        An interrupted call keeps what it has finished.
        """
        have = self._kept()
        missing = list({wish.key: wish for wish in wishes if wish.key not in have}.values())
        for start in track(range(0, len(missing), BATCH), description="painting", disable=not missing):
            batch = missing[start : start + BATCH]
            images = self._batch(batch)
            names = np.array([wish.key for wish in batch])
            name = hashlib.sha256("".join(names).encode()).hexdigest()[:24]
            with replacing(self.folder / f"{name}.npz") as partial, partial.open("wb") as file:
                np.savez(file, keys=names, images=images)
            have |= dict(zip(names.tolist(), images, strict=True))
        return np.stack([have[wish.key] for wish in wishes])

    @torch.no_grad()
    def _batch(self, wishes: Sequence[Wish]) -> np.ndarray:
        images = self.pipeline(
            [wish.prompt for wish in wishes],
            num_inference_steps=self.steps,
            guidance_scale=self.model.guidance_scale,
            guidance_rescale=self.model.guidance_rescale,
            output_type="pt",
            generator=generators([wish.seed for wish in wishes]),
        ).images
        return (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def _kept(self) -> dict[str, np.ndarray]:
        found = {}
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as shard:
                found |= dict(zip(shard["keys"].tolist(), shard["images"], strict=True))
        return found


def asked(style: str, subject: str) -> str:
    """The prompt that `guide generate` makes of a style and a subject."""
    return Brief(prompt=subject, styles=((style, 1.0),)).text()


def of_titles(table: pd.DataFrame, most: int, fewest: int) -> list[Wish]:
    """For every style a picture to each of up to `most` test paintings: their titles, or their genre where they have none.

    A style with less than `fewest` test paintings gets further seeds of them, marked by `row` -1. Interleaved over the styles, so that a
    beginning of the list has all of them; each has a seed of its own, since pictures of one seed are alike whatever their prompts.
    """
    rng, wishes = np.random.default_rng(0), []
    for style in STYLES:
        rows = np.flatnonzero((table["split"] == "test") & (table["style"] == style))
        rows = rng.permutation(rows)[:most]
        for index in range(max(len(rows), fewest) if len(rows) else 0):
            row = int(rows[index % len(rows)])
            subject = table["title"].iloc[row] or GENRES.get(table["genre"].iloc[row], "")
            told = row if index < len(rows) else -1
            wishes.append((index, Wish(asked(style, subject), 0, style, told)))
    wishes.sort(key=lambda pair: pair[0])
    return [replace(wish, seed=FIRST_SEED + place) for place, (_, wish) in enumerate(wishes)]


def tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 `(n, h, w, 3)` to `(n, 3, h, w)` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)
