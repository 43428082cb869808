"""Sample sheets beside the card of the pipeline: every style at the same fixed seeds, none chosen.

    python -m recipes.sample_grids --work work/

Subjects are each style's own in `configs/styles`, in turn. Needs no paintings: anyone can make the same sheet from the weights that ship.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image

from guide import png, sheet
from probes.config import styles
from probes.judges import STYLES
from recipes import options, samples
from recipes.assemble import ROOT

SEEDS = 8
COLOURS = 256  # of the palette: a sheet is to stay small enough for a repository


def cell(image: torch.Tensor, *caption: str) -> sheet.Cell:
    """A picture `(3, h, w)` in [0, 1] of a sheet."""
    return sheet.Cell(Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()), caption)


def save(path: Path, title: str, blocks: Sequence[sheet.Block], side: int, subtitle: str = ""):
    """The sheet as a PNG with a palette, marked as a contact sheet."""
    drawn = sheet.draw(title, blocks, subtitle, side)
    palette = drawn.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3)
    # Dithered: without it skies turn into flat patches, and greens, which are rare, into browns.
    png.save(drawn.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG), path, {"kind": "contact sheet", "prompt": title})


def wishes(seeds: int = SEEDS) -> list[samples.Wish]:
    """Seeds 0, 1, ... of every style, seed k with the style's subject k in turn."""
    told = styles()
    return [
        samples.Wish(samples.asked(name, told[name].prompts[seed % len(told[name].prompts)]), seed, name)
        for name in STYLES
        for seed in range(seeds)
    ]


def main(
    work: options.Work = Path("work"),
    seeds: Annotated[int, typer.Option(help="Seeds of every style, from 0.", min=1, max=16)] = SEEDS,
    steps: samples.Steps = None,
    out: Annotated[Path, typer.Option(help="Where samples.png goes.")] = ROOT / "guide" / "embedded",
):
    studio = samples.Studio(work, steps=steps)
    asked = wishes(seeds)
    pictures = samples.tensor(studio.paint(asked))
    rows = []
    for name in STYLES:
        own = [cell(picture) for wish, picture in zip(asked, pictures, strict=True) if wish.style == name]
        rows.append(sheet.Row(name, tuple(own)))
    about = f"seeds 0 to {seeds - 1}, unguided, {studio.steps} steps, classifier-free guidance {studio.model.guidance_scale:g}; none chosen"
    save(out / "samples.png", "Every style that the embedded pipeline learned", [sheet.Block("", tuple(rows))], pictures.shape[-1], about)


if __name__ == "__main__":
    options.start(main)
