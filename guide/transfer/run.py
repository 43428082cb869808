"""`guide transfer`: photographs repainted, each as it finishes, then what probes, distances and the verdict say of them."""
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from guide import pipelines, png, record
from guide.context import Notice, Progress, begin
from guide.transfer import content, film
from guide.transfer.outcome import Result, outcome, picture
from guide.transfer.request import SIDE, Request
from guide.transfer.sources import Sources
from probes import image
from probes.encoders import Encoder
from probes.errors import UserError


@dataclass(frozen=True, eq=False)
class Opened:
    """A photograph as it is repainted: `pixels` `(1, 3, h, w)` at the size asked for, and the region's `mask` `(1, 1, h, w)`."""

    path: str
    pixels: Tensor
    sha256: str
    mask: Tensor | None
    notes: tuple[str, ...] = ()


def transfer(request: Request, on_progress: Progress = lambda what, done, total: None, notice: Notice = lambda line: None) -> Result:
    """Repaint the inputs into the request's folder; a run that was interrupted goes on with what is missing.

    Writes a PNG for each input and seed as it finishes, trace.jsonl, record.json, report.csv, report.json and sheet.png; a film where
    one is asked for.
    """
    if not request.inputs:
        raise UserError("No picture is named; write guide transfer photo.jpg --style ukiyo-e.")
    sources = Sources.of(request.out, request.inputs, [path for path, _ in request.references], request.region)
    names = sources.inputs

    def check() -> None:
        sources.check()
        film.check(request.film)
        content.check(name for name, _ in request.keep)

    def there(seed: int) -> bool:
        return any(picture(request.out, name, seed).is_file() for name in names)
    context = begin(request, "transfer", check, there, on_progress)
    request = replace(request, seeds=context.seeds)
    now, encoder, device = context.record, context.encoder, context.device
    now.files = record.plain(sources.files)
    photos = {name: opened(path, request, device, sources.sha256(name)) for name, path in names.items()}
    engine, weights = _engine(request, encoder, photos, device)
    context.weigh(**weights)
    now.costs = dict(context.before.costs) if context.before else {}
    for line in now.notes:
        notice(line)
    for line in [*(f"{photo.path}: {line}" for photo in photos.values() for line in photo.notes), *engine.notes(),
                 *film.unfilmed(request.film, (picture(request.out, name, seed) for name in photos for seed in request.seeds))]:
        now.notes.append(line)
        notice(line)
    context.write()
    jobs = list(_missing(request, names))
    total, done = len(jobs) * engine.steps, 0
    for name, seed in jobs:
        frames = film.Frames(request.film, engine.steps)

        def stepped(row: dict, current: Callable[[], Tensor] | None, name=name, seed=seed, frames=frames) -> None:
            nonlocal done
            done += 1
            on_progress(f"{name}, seed {seed}", done, total)
            frames.see(row["step"], current)

        photo = photos[name]
        painted, trace, made = engine(photo, seed, stepped)
        said = _said(request, photo, seed, encoder, engine) | made
        if (back := made.get("drawn_back", 0.)) > .1:
            now.notes.append(f"{name}, seed {seed}: mixed with {back:.0%} of the photograph, or a bound would break; take "
                             + ("a lower --strength" if request.engine == "diffusion" else "more --steps") + ", or a wider --keep")
            notice(now.notes[-1])
        path = picture(request.out, name, seed)
        if not path.is_file():
            png.save(painted[0], path, said | {"size": f"{painted.shape[3]}x{painted.shape[2]}"})
        frames.write(path, photo.pixels, painted)
        with (request.out / "trace.jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record.plain({"input": name, "seed": seed, **row})) + "\n" for row in trace)
        seconds = sum(row.get("seconds", 0.) for row in trace)
        now.costs["seconds"] = now.costs.get("seconds", 0.) + seconds
        now.costs["steps"] = now.costs.get("steps", 0) + len(trace)
        context.write()
    on_progress("reading the pictures", total, total)
    result = outcome(request, photos, encoder, context.verdict, device)
    context.finish(result.report.rows.to_dict("records"))
    return result


def _engine(request: Request, encoder: Encoder, photos: dict[str, Opened], device: str):
    """The engine that repaints, and the weights it has beside the encoder's."""
    if request.engine == "diffusion":
        from guide.transfer.diffusion import Diffusion
        engine = Diffusion.of(request, encoder, list(photos.values()), device)
        return engine, engine.weights
    from guide.transfer.pixels import Pixels
    return Pixels.of(request, encoder, list(photos.values())), {}


def opened(path: str, request: Request, device: str, digest: str) -> Opened:
    """The photograph at the size asked for, with notes on what that changed. UserError where it is none, or too small to be read."""
    pixels, notes = image.load(path), []
    height, width = pixels.shape[-2:]
    longer = request.size or min(max(height, width), _made_for(request))
    if longer != max(height, width):
        share = longer / max(height, width)
        size = max(round(height * share), 1), max(round(width * share), 1)
        pixels = image.resize(pixels, size).clamp(0, 1)
        how = "enlarged" if share > 1 else "shrunk"
        notes.append(f"{how} from {width} x {height} to {size[1]} x {size[0]} pixels" + ("" if request.size else "; --size keeps more"))
    if min(pixels.shape[-2:]) < 32:
        raise UserError(f"{path} is repainted at {pixels.shape[3]} x {pixels.shape[2]} pixels, too few to be read; 32 a side is the least: "
                        f"--size {-(-32 * max(height, width) // min(height, width))} enlarges it.")
    mask = _mask(request.region, tuple(pixels.shape[-2:]), notes) if request.region else None
    return Opened(path, pixels.to(device), digest, None if mask is None else mask.to(device),
                  tuple(notes))


def _made_for(request: Request) -> int:
    """Pixels of the longer side where none are asked for: those a diffusion model was made for."""
    return (pipelines.find(request.model).size or SIDE) if request.engine == "diffusion" else SIDE


def _mask(path: str, size: tuple[int, int], notes: list[str]) -> Tensor:
    """White is repainted, black and transparent are left alone, grey is in between: `(1, 1, h, w)`. UserError where nothing is white."""
    mask = image.load(path).mean(1, keepdim=True)
    with Image.open(path) as file:
        if file.has_transparency_data:  # which `load` lays over white
            alpha = ImageOps.exif_transpose(file).convert("RGBA").getchannel("A")
            mask = (mask - 1 + image.from_pil(alpha)[:, :1]).clamp(0, 1)
    if mask.shape[-2:] != torch.Size(size):
        notes.append(f"the region of {mask.shape[3]} x {mask.shape[2]} pixels was stretched to {size[1]} x {size[0]}")
        mask = image.resize(mask.expand(-1, 3, -1, -1), size, "bilinear")[:, :1].clamp(0, 1)
    if not bool((mask > .5).any()):
        raise UserError(f"the region in {path} is empty: it holds nothing brighter than middle grey; paint white what is to be repainted.")
    return mask


def _said(request: Request, photo: Opened, seed: int, encoder: Encoder, engine) -> dict:
    """What a picture says of itself."""
    brief = request.brief
    return record.plain({
        "tool": "guide", "kind": "transfer", "prompt": brief.text() if brief.styles or brief.period else brief.prompt,
        "subject": brief.prompt, "styles": brief.styles, "avoid": brief.avoid, "period": brief.period, "seed": seed,
        "variant": "transferred", "strategy": request.engine, "strength": engine.strength, "steps": engine.steps,
        "model": request.model if request.engine == "diffusion" else "pixels", "encoder": request.encoder,
        "input": Path(photo.path).name, "input_sha256": photo.sha256,
        "references": [[Path(path).name, weight] for path, weight in request.references], "keep": request.keep,
        "preserve_color": request.preserve_color, "region": Path(request.region).name if request.region else "",
    })  # fmt: skip


def _missing(request: Request, names: dict[str, str]) -> Iterator[tuple[str, int]]:
    for name in names:
        for seed in request.seeds:
            if not picture(request.out, name, seed).is_file():
                yield name, seed
