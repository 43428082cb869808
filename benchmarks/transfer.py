"""`guide transfer` beside colour statistics, moment matching and plain image to image: style in the verdict's eyes at equal distance.

    python -m benchmarks.transfer --out outputs/transfer --engines baselines,pixels --minutes 9     # 20 contents x 8 styles, in parts
    python -m benchmarks.transfer --out outputs/transfer --engines baselines,pixels,diffusion       # what a denoiser has a part in too

Contents are photographs inside scikit-image, or parts of them, at 128 pixels, for which the embedded pipeline was made. The baselines go
after the painting of the style whose colours are nearest to the photograph's, among six; ours chooses among the same six by its probe. Ours
is held to what a baseline's own picture has of two distances from the photograph, structure in the encoder's eyes and MS-SSIM, and compared
with that baseline: it may be no farther in either. Every cell is a picture and a JSON beside it, each written as it is done, so that a call
goes on where one stopped, and several may run beside each other (`--contents`, `--styles`). Writes cells.csv, results.json, sheet.png, and
prints Markdown tables of what is there.
"""

import json
import platform
import time
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor

from benchmarks.transfer_tables import MEASURED, at_equal_distance, means, sheet
from guide.brief import Brief
from guide.transfer import brushwork, colour, content, statistics, target
from guide.transfer.request import Request
from guide.transfer.run import Opened
from probes import encoders, image, judge
from probes.atomic import write_text
from probes.config import lookup

SIDE, STEPS = 128, 40
# File inside skimage.data and the square that is shown, in shares of its width and height from the left and the top.
CONTENTS = {
    "astronaut": ("astronaut.png", 0, 0, 1), "cat": ("chelsea.png", .17, 0, 1), "coffee": ("coffee.png", .15, 0, 1),
    "rocket": ("rocket.jpg", .2, 0, 1), "motorcycle": ("motorcycle_left.png", .15, 0, 1), "retina": ("retina.jpg", 0, 0, 1),
    "galaxies": ("hubble_deep_field.jpg", 0, 0, 1), "tissue": ("ihc.png", 0, 0, 1), "cameraman": ("camera.png", 0, 0, 1),
    "coins": ("coins.png", .1, 0, 1), "face": ("astronaut.png", .28, 0, .5), "helmet": ("astronaut.png", .4, .5, .5),
    "eye": ("chelsea.png", .1, .2, .6), "cup": ("coffee.png", .25, .2, .6), "tower": ("rocket.jpg", .35, .2, .6),
    "wheel": ("motorcycle_left.png", .02, .3, .6), "moon": ("moon.png", 0, 0, 1), "grass": ("grass.png", 0, 0, .7),
    "gravel": ("gravel.png", 0, 0, .7), "bricks": ("brick.png", 0, 0, .7),
}  # fmt: skip
STYLES = ("ukiyo-e", "pointillism", "cubism", "post-impressionism", "baroque", "rococo", "impressionism", "fauvism")
NOISE = .6  # share of the schedule that image to image runs
# A method that is held to a baseline's distances follows it; "ours" alone is the command as it is, structure at most .2.
ENGINES = {
    "baselines": ("photograph", "colour statistics", "moment matching"),
    "pixels": ("ours within colour statistics", "ours within moment matching"),
    "default": ("ours",),
    "diffusion": ("image to image", "ours within image to image", "diffusion within image to image"),
}


def contents(names) -> dict[str, Tensor]:
    """The photographs `(1, 3, 128, 128)` by name, of 8 bits."""
    from PIL import Image
    from skimage import data

    found, folder = {}, Path(data.__file__).parent
    for name in names:
        source, left, top, share = CONTENTS[name]
        picture = Image.open(folder / source).convert("RGB")
        edge = int(share * min(picture.size))
        x, y = (min(int(at * side), side - edge) for at, side in zip((left, top), picture.size, strict=True))
        square = image.resize(image.from_pil(picture.crop((x, y, x + edge, y + edge))), SIDE).clamp(0, 1)
        found[name] = (255 * square).round() / 255
    return found


def matched(encoder, photo: Tensor, wanted: target.Target, steps: int = STEPS, weight: float = 1.) -> Tensor:
    """Moments of the encoder's maps matched by descent on raw pixels, as AdaIN's loss has them (arXiv:1703.06868) without a decoder to be
    trained: the photograph's structure weighs, nothing is constrained, one size, no views."""
    names, kept = statistics.stages(encoder), content.structure(encoder, photo)
    goal, spread = wanted.at(SIDE)
    pixels = photo.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=.01)
    for _ in range(steps):
        loss = statistics.distance(statistics.measured(encoder, pixels.clamp(0, 1), list(names)), goal, spread, names)
        loss = loss + weight * kept(pixels.clamp(0, 1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pixels.detach().clamp(0, 1)


class Methods:
    """A method by name, a photograph and a style -> a picture; a pipeline is loaded where one is needed."""

    def __init__(self, encoder, out: Path, steps: int):
        self.encoder, self.out, self.steps = encoder, out, steps

    @cached_property
    def pipeline(self):
        from guide import pipelines
        return pipelines.load("embedded", str(self.encoder.device))

    def __call__(self, method: str, photo: Tensor, style: str, keep: tuple[tuple[str, float], ...]) -> Tensor:
        if method == "photograph":
            return photo
        if method == "colour statistics":
            return colour.mapped(photo, colour.palette(photo), self.target(photo, style).palette)
        if method == "moment matching":
            return matched(self.encoder, photo, self.target(photo, style), self.steps)
        if method == "image to image":
            return self.diffused(photo, style, (), 0.)
        if method.startswith("diffusion"):
            return self.diffused(photo, style, keep, None)
        from guide.transfer.pixels import Pixels
        request = Request(Brief(styles=((style, 1.),)), self.out, ("",), steps=self.steps, **({"keep": keep} if keep else {}))
        opened = Opened("", photo, "", None)
        return Pixels.of(request, self.encoder, [opened])(opened, 0, lambda row, current: None)[0]

    def target(self, photo: Tensor, style: str) -> target.Target:
        return target.of_styles(self.encoder, ((style, 1.),), photo)

    def diffused(self, photo: Tensor, style: str, keep: tuple[tuple[str, float], ...], guidance: float | None) -> Tensor:
        """Through the engine of the command; at a guidance of 0 it is plain image to image, bit for bit."""
        from guide.transfer.diffusion import Diffusion
        from guide.transfer.pixels import Pixels
        opened = Opened("", photo, "", None)
        request = Request(Brief(styles=((style, 1.),)), self.out, ("",), keep=keep, engine="diffusion", strength=NOISE, guidance=guidance)
        engine = Diffusion(request, Pixels.of(request, self.encoder, [opened]), self.pipeline, {})
        return engine(opened, 0, lambda row, current: None)[0]


@torch.no_grad()
def read(encoder, watcher: judge.Judge, photo: Tensor, picture: Tensor, style: str) -> dict[str, float]:
    """What a cell of the table is made of."""
    far = {name: float(one(picture)) for name, one in content.distances(encoder, photo, content.UNASKED).items()}
    opinion = watcher(torch.cat([photo, picture]))
    odds = watcher.log_odds(opinion, ((style, 1.),))
    names = statistics.stages(encoder)
    found = statistics.measured(encoder, picture, list(names))
    # To the nearest of the paintings that stand for the style: methods choose among them differently.
    brush = min(float(statistics.distance(found, *one.at(SIDE), names)) for one in brushwork.paintings(encoder, style))
    return far | {"gain": float(odds[1] - odds[0]), "kept": float(opinion.styles[1].argmax() == watcher.labels.index(style)),
                  "damage": float(opinion.severity[1] - opinion.severity[0]), "brushwork": brush}


def stem(out: Path, name: str, style: str, method: str) -> Path:
    return out / f"{name}-{style}" / method.replace(" ", "-")


def made(methods: Methods, out: Path, name: str, style: str, method: str, photo: Tensor, watcher: judge.Judge) -> None:
    """One cell: its picture and its JSON, read from the picture as it was saved."""
    path, keep = stem(out, name, style, method), ()
    if " within " in method:
        held = json.loads(stem(out, name, style, method.split(" within ")[1]).with_suffix(".json").read_text())
        keep = tuple((metric, held[metric]) for metric in MEASURED)
    start, own = time.perf_counter(), time.process_time()
    picture = methods(method, photo, style, keep)
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - own}
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_pil(picture).save(path.with_suffix(".png"))
    picture = image.load(path.with_suffix(".png"))
    told = {"photograph": name, "style": style, "method": method, "steps": methods.steps, **seconds}
    write_text(path.with_suffix(".json"), json.dumps(told | read(methods.encoder, watcher, photo, picture, style)))


def chosen(text: str, known) -> tuple[str, ...]:
    """The entries of a comma-separated list, each by a known name; all for an empty one."""
    return tuple(lookup({one: one for one in known}, part.strip(), "entry") for part in text.split(",") if part.strip()) or tuple(known)


def main(
    engines: Annotated[str, typer.Option(help=f"Of {', '.join(ENGINES)}; default: all.")] = "",
    names: Annotated[str, typer.Option("--contents", help="Photographs by name; default: all 20.")] = "",
    styles: Annotated[str, typer.Option(help="Styles by name; default: all 8.")] = "",
    minutes: Annotated[float, typer.Option(help="Stop after so many, and go on with the next call.")] = 1e9,
    steps: Annotated[int, typer.Option(help="Steps of descent, of ours and of moment matching.")] = STEPS,
    watcher: Annotated[str, typer.Option("--judge", help="verdict; the referee is for tuning.")] = "verdict",
    out: Annotated[Path, typer.Option(help="Folder for pictures and figures.")] = Path("outputs/transfer"),
):
    names, styles = chosen(names, CONTENTS), chosen(styles, STYLES)
    wanted = [method for engine in chosen(engines, ENGINES) for method in ENGINES[engine]]
    encoder, reader, began = encoders.load("embedded"), judge.load(watcher), time.perf_counter()
    photos, methods = contents(names), Methods(encoder, out, steps)
    # Another style for each content in turn, so that what is there after a part says something of all of them.
    pairs = [(name, styles[(k + at) % len(styles)]) for at in range(len(styles)) for k, name in enumerate(names)]
    jobs = [(*pair, method) for pair in pairs for method in wanted if not stem(out, *pair, method).with_suffix(".json").is_file()]
    left = list(jobs)
    for name, style, method in jobs:
        if time.perf_counter() - began > 60 * minutes:
            break
        made(methods, out, name, style, method, photos[name], reader)
        left.remove((name, style, method))
    cells = [json.loads(path.read_text()) for pair in pairs for method in wanted
             if (path := stem(out, *pair, method).with_suffix(".json")).is_file()]
    if cells:
        _told(out, cells, pairs, wanted, watcher, steps)
    if left:
        typer.echo(f"{len(cells)} of {len(cells) + len(left)} cells are there; the same command goes on.")
        raise typer.Exit(3)


def _told(out: Path, cells: list[dict], pairs: list[tuple[str, str]], wanted: list[str], watcher: str, steps: int) -> None:
    frame = pd.DataFrame(cells)
    write_text(out / "cells.csv", frame.to_csv(index=False))
    told = {"date": date.today().isoformat(), "hardware": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "judge": watcher, "steps": steps, "cells": frame.to_dict("records")}  # fmt: skip
    write_text(out / "results.json", json.dumps(told, indent=1))
    sheet(out, [pair for pair in pairs if all(stem(out, *pair, method).with_suffix(".png").is_file() for method in wanted)], wanted, stem)
    typer.echo("\n".join([*means(frame), "", *at_equal_distance(frame)]))


if __name__ == "__main__":
    typer.run(main)
