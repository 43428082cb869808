"""`guide transfer` beside colour statistics, moment matching and plain image to image: style in the verdict's eyes at equal distance.

    python -m benchmarks.transfer --out outputs/transfer                 # 20 contents x 8 styles
    python -m benchmarks.transfer --quick --minutes 9 --out outputs/transfer   # 3 x 3, in parts: call it until it says that all is there

Contents are photographs inside scikit-image, or parts of them, at 128 pixels, for which the embedded pipeline was made. All methods go
after the same painting of the style. A baseline has one distance from the photograph, its own; ours runs at several bounds, and is compared
at that distance, between the bounds by a straight line. Writes cells.csv, results.json, sheet.png, and prints a Markdown table.
"""

import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from torch import Tensor

from guide import pipelines, sheet
from guide.brief import Brief
from guide.seeds import generators
from guide.statistics import mean_difference
from guide.transfer import colour, content, statistics, target
from guide.transfer.pixels import Pixels
from guide.transfer.request import Request
from guide.transfer.run import Opened
from probes import encoders, image, judge
from probes.atomic import write_text

SIDE = 128
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
QUICK = ("astronaut", "cat", "motorcycle"), STYLES[:3]
BOUNDS = (.05, .1, .2)
STEPS = 60
BASELINES = ("colour statistics", "moment matching", "image to image .4", "image to image .6")
Method = Callable[[Tensor, str], Tensor]


def contents(names) -> dict[str, Tensor]:
    """The photographs `(1, 3, 128, 128)` by name."""
    from PIL import Image
    from skimage import data

    found, folder = {}, Path(data.__file__).parent
    for name in names:
        source, left, top, share = CONTENTS[name]
        picture = Image.open(folder / source).convert("RGB")
        edge = int(share * min(picture.size))
        x, y = (min(int(at * side), side - edge) for at, side in zip((left, top), picture.size, strict=True))
        found[name] = image.resize(image.from_pil(picture.crop((x, y, x + edge, y + edge))), SIDE).clamp(0, 1)
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


def methods(encoder, out: Path) -> dict[str, Method]:
    """By name: a photograph and a style to a picture."""
    from diffusers import AutoPipelineForImage2Image
    pipeline = AutoPipelineForImage2Image.from_pipe(pipelines.load("embedded"))
    pipeline.set_progress_bar_config(disable=True)
    settings = pipelines.find("embedded")

    def ours(bound: float) -> Method:
        def method(photo: Tensor, style: str) -> Tensor:
            request = Request(Brief(styles=((style, 1.),)), out, ("",), keep=(("structure", bound),), steps=STEPS)
            opened = Opened("", photo, "", None)
            return Pixels.of(request, encoder, [opened])(opened, 0, lambda row, current: None)[0]
        return method

    def painted(strength: float) -> Method:
        def method(photo: Tensor, style: str) -> Tensor:
            return pipeline(prompt=Brief(styles=((style, 1.),)).text(), image=photo, strength=strength, num_inference_steps=settings.steps,
                            guidance_scale=settings.guidance_scale, generator=generators([0]), output_type="pt").images.float().clamp(0, 1)
        return method

    def of(style: str, photo: Tensor) -> target.Target:
        return target.of_styles(encoder, ((style, 1.),), photo)
    return {
        "photograph": lambda photo, style: photo,
        "colour statistics": lambda photo, style: colour.mapped(photo, colour.palette(photo), of(style, photo).palette),
        "moment matching": lambda photo, style: matched(encoder, photo, of(style, photo)),
        "image to image .4": painted(.4), "image to image .6": painted(.6), **{f"ours {bound:g}": ours(bound) for bound in BOUNDS},
    }  # fmt: skip


@torch.no_grad()
def read(encoder, watcher: judge.Judge, photo: Tensor, picture: Tensor, style: str) -> dict[str, float]:
    """What a cell of the table is made of."""
    far = {name: float(one(picture)) for name, one in content.distances(encoder, photo, content.UNASKED).items()}
    opinion = watcher(torch.cat([photo, picture]))
    odds = watcher.log_odds(opinion, ((style, 1.),))
    names = statistics.stages(encoder)
    wanted, spread = target.of_styles(encoder, ((style, 1.),), photo).at(SIDE)
    brush = float(statistics.distance(statistics.measured(encoder, picture, list(names)), wanted, spread, names))
    return far | {"gain": float(odds[1] - odds[0]), "kept": float(opinion.styles[1].argmax() == watcher.labels.index(style)),
                  "damage": float(opinion.severity[1] - opinion.severity[0]), "brushwork": brush}


def at_equal_distance(cells: pd.DataFrame, baseline: str, metric: str = "structure") -> pd.DataFrame:
    """A row per content and style: the baseline's distance and gain, and ours at that distance.

    Ours runs along straight lines from the photograph (distance 0, gain 0) through its bounds; beyond the last it stays where it is.
    """
    rows = []
    for (name, style), group in cells.groupby(["photograph", "style"]):
        group = group.set_index("method")
        own = group[group.index.str.startswith("ours")].sort_values(metric)
        if baseline not in group.index or len(own) < len(BOUNDS):
            continue
        distance = group.loc[baseline, metric]
        gain = np.interp(distance, [0., *own[metric]], [0., *own["gain"]])
        rows.append({"photograph": name, "style": style, "distance": distance, "gain": group.loc[baseline, "gain"], "ours": gain})
    return pd.DataFrame(rows)


def table(cells: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Every method's means; and ours less each baseline at equal distance, with 95 % intervals over contents."""
    lines = ["| method | gain | kept | structure | ms-ssim | damage | ArtFID-like, embedded features | s/picture |", "|---" * 8 + "|"]
    for method, group in cells.groupby("method", sort=False):
        means = group.mean(numeric_only=True)
        product = ((1 + group.structure) * (1 + group.brushwork)).mean()
        lines.append(f"| {method} | {means.gain:+.2f} | {means.kept:.0%} | {means.structure:.3f} | {means['ms-ssim']:.3f} | "
                     f"{means.damage:+.3f} | {product:.3f} | {means.seconds:.1f} |")
    pairs = ["| baseline | pairs | at equal | distance | its gain | ours at that distance | difference |", "|---" * 7 + "|"]
    for baseline in BASELINES:
        for metric in ("structure", "ms-ssim"):
            found = at_equal_distance(cells, baseline, metric)
            if len(found):
                apart = mean_difference(found.ours - found.gain, found.photograph.tolist())
                pairs.append(f"| {baseline} | {len(found)} | {metric} | {found.distance.mean():.3f} | {found.gain.mean():+.2f} | "
                             f"{found.ours.mean():+.2f} | {apart} |")
    return lines, pairs


def main(
    quick: Annotated[bool, typer.Option("--quick", help="3 contents and 3 styles.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop after so many, and go on with the next call.")] = 1e9,
    watcher: Annotated[str, typer.Option("--judge", help="verdict; the referee is for tuning.")] = "verdict",
    out: Annotated[Path, typer.Option(help="Folder for pictures and figures.")] = Path("outputs/transfer"),
):
    names, styles = QUICK if quick else (tuple(CONTENTS), STYLES)
    encoder, reader, began = encoders.load("embedded"), judge.load(watcher), time.perf_counter()
    photos, made, store = contents(names), methods(encoder, out), out / "cells.csv"
    cells = pd.read_csv(store).to_dict("records") if store.is_file() else []
    done = {(cell["photograph"], cell["style"], cell["method"]) for cell in cells}
    jobs = [(name, style, method) for name in names for style in styles for method in made if (name, style, method) not in done]
    for name, style, method in jobs:
        if time.perf_counter() - began > 60 * minutes:
            typer.echo(f"{len(done)} of {len(done) + len(jobs)} cells are there; the same command goes on.")
            raise typer.Exit(3)
        start = time.perf_counter()
        picture = made[method](photos[name], style)
        seconds = time.perf_counter() - start
        path = out / f"{name}-{style}" / f"{method.replace(' ', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.to_pil(picture).save(path)
        told = {"photograph": name, "style": style, "method": method, "seconds": seconds}
        cells.append(told | read(encoder, reader, photos[name], picture, style))
        write_text(store, pd.DataFrame(cells).to_csv(index=False))
        done.add((name, style, method))
    frame = pd.DataFrame(cells)
    frame = frame[frame.photograph.isin(names) & frame["style"].isin(styles)]
    lines, pairs = table(frame)
    told = {"date": date.today().isoformat(), "hardware": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "judge": watcher, "cells": frame.to_dict("records")}  # fmt: skip
    write_text(out / "results.json", json.dumps(told, indent=1))
    _sheet(out, names, styles, list(made))
    typer.echo("\n".join([*lines, "", *pairs]))


def _sheet(out: Path, names, styles, made: list[str]) -> None:
    from PIL import Image
    rows = []
    for style in styles:
        for name in names[:1] if len(styles) > 4 else names:
            cells = [sheet.Cell(Image.open(out / f"{name}-{style}" / f"{method.replace(' ', '-')}.png"), (method,)) for method in made]
            rows.append(sheet.Row(style, tuple(cells), name))
    sheet.save(out / "sheet.png", "Transfer", [sheet.Block("", tuple(rows))], side=128)


if __name__ == "__main__":
    typer.run(main)
