"""Whether `guide transfer` flickers on frames of one scene, and whether large pictures show where their tiles meet.

    python -m benchmarks.steadiness flicker --out outputs/flicker     # a crop of 128 pixels that moves over photographs
    python -m benchmarks.steadiness seams --size 2048 --steps 7       # time, memory, and jumps across tiles' borders

Flicker: frames are crops of scikit-image's astronaut and cat, moved by whole pixels, so that they can be laid over each other exactly.
What neighbouring frames differ by where they overlap, in RMS of pixels, stands beside how far the transfer moved them from the photograph:
0 is a picture that moves with its scene, 1.41 are changes that have nothing to do with each other. Beside it, the same with a seed of its
own for each frame, which is what steadiness is to be judged against.
"""

import resource
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from skimage import data
from torch import Tensor

from guide.brief import Brief
from guide.transfer import statistics
from guide.transfer.pixels import Pixels
from guide.transfer.request import Request
from guide.transfer.run import Opened
from probes import encoders, image

SIDE, FRAMES = 128, 3
PAINTINGS = 6  # of a style: seeds that far apart take the same one
SHIFTS = (1, 3, 8)  # pixels a frame: the encoder's own strides are 2 to 16
app = typer.Typer(help=__doc__)


def scene(name: str, side: int) -> Tensor:
    """A photograph with so many pixels on its shorter side."""
    whole = image.from_pil(Image.fromarray(getattr(data, name)()))
    height, width = whole.shape[-2:]
    share = side / min(height, width)
    return image.resize(whole, (round(height * share), round(width * share))).clamp(0, 1)


def painted(request: Request, encoder, frames: list[Tensor], seeds: list[int]) -> list[Tensor]:
    photos = [Opened("", frame, "", None) for frame in frames]
    engine = Pixels.of(request, encoder, photos)
    return [engine(photo, seed, lambda row, current: None)[0] for photo, seed in zip(photos, seeds, strict=True)]


def apart(frames: list[Tensor], shift: int) -> float:
    """RMS difference of neighbouring frames where they show the same of the scene, less a margin that sees beyond the frame's edge."""
    edge = 8
    found = [(a[..., edge:-edge, shift + edge:-edge] - b[..., edge:-edge, edge:-shift - edge]).square().mean()
             for a, b in pairwise(frames)]
    return float(torch.stack(found).mean().sqrt())


@app.command()
def flicker(
    steps: Annotated[int, typer.Option(help="Of descent.")] = 40,
    style: Annotated[str, typer.Option(help="A style that was learned.")] = "post-impressionism",
    out: Annotated[Path, typer.Option(help="Folder for the frames.")] = Path("outputs/flicker"),
):
    encoder = encoders.load("embedded")
    out.mkdir(parents=True, exist_ok=True)
    typer.echo("| scene | pixels a frame | change by the transfer | flicker, same seed | its share | share with a seed for each frame |")
    typer.echo("|---" * 6 + "|")
    for name in ("astronaut", "chelsea"):
        whole = scene(name, SIDE + 32)
        for shift in SHIFTS:
            frames = [whole[..., 4:SIDE + 4, k * shift:k * shift + SIDE] for k in range(FRAMES) if k * shift + SIDE <= whole.shape[-1]]
            request = Request(Brief(styles=((style, 1.),)), out, ("",), steps=steps, video=True)
            steady = painted(request, encoder, frames, [0] * len(frames))
            loose = painted(request, encoder, frames, [PAINTINGS * k for k in range(len(frames))])
            still, free = apart(steady, shift), apart(loose, shift)
            change, moved = (float((torch.cat(made) - torch.cat(frames)).square().mean().sqrt()) for made in (steady, loose))
            for k, frame in enumerate(steady):
                image.to_pil(frame).save(out / f"{name}-{shift}-{k}.png")
            typer.echo(f"| {name} | {shift} | {change:.3f} | {still:.3f} | {still / change:.2f} | "
                       f"{free / moved:.2f} |")


@app.command()
def seams(
    size: Annotated[int, typer.Option(help="Pixels of the longer side.")] = 2048,
    steps: Annotated[int, typer.Option(help="Of descent.")] = 7,
    style: Annotated[str, typer.Option(help="A style that was learned.")] = "pointillism",
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("outputs/large.png"),
):
    """What the transfer added, across the borders of tiles and everywhere: the mean jump between neighbouring columns and rows."""
    encoder = encoders.load("embedded")
    photo = scene("coffee", round(size * 2 / 3))[..., :size]
    request = Request(Brief(styles=((style, 1.),)), out.parent, ("",), steps=steps, size=size)
    began, own = time.perf_counter(), time.process_time()
    (made,) = painted(request, encoder, [photo], [0])
    seconds = time.perf_counter() - began, time.process_time() - own
    out.parent.mkdir(parents=True, exist_ok=True)
    image.to_pil(made).save(out)
    added, height, width = made - photo, *photo.shape[-2:]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20
    typer.echo(f"{width} x {height} pixels, {steps} steps: {seconds[0]:.0f} s, {seconds[1]:.0f} s of a processor, {memory:.1f} GiB at most")
    for what, dim, length in (("columns", -1, width), ("rows", -2, height)):
        jumps = added.diff(dim=dim).abs().mean([one for one in range(4) if one != dim % 4])
        borders = list(range(statistics.TILE - 1, length - 1, statistics.TILE))
        rank = torch.stack([(jumps < jumps[at]).float().mean() for at in borders])
        typer.echo(f"{what}: jump across {len(borders)} borders of tiles {jumps[borders].mean():.5f}, elsewhere {jumps.mean():.5f} "
                   f"(standard deviation {jumps.std():.5f}); quantiles of the borders {', '.join(f'{float(q):.2f}' for q in rank)}")


if __name__ == "__main__":
    app()
