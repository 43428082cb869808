"""`guide transfer`: photographs repainted, each as it finishes, then what probes, distances and the verdict say of them."""
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from guide import png, record
from guide.context import Notice, Progress, begin
from guide.transfer import content, film
from guide.transfer.outcome import Result, outcome, picture
from guide.transfer.photographs import Opened, photographs
from guide.transfer.request import Request
from guide.transfer.sources import Sources
from probes import provenance
from probes.encoders import Encoder
from probes.errors import UserError


def transfer(request: Request, on_progress: Progress = lambda what, done, total: None, notice: Notice = lambda line: None) -> Result:
    """Repaint the inputs into the request's folder; a run that was interrupted goes on with what is missing.

    Writes a PNG for each input and seed as it finishes, trace.jsonl, record.json, report.csv, report.json and sheet.png; a film where
    one is asked for. Of several inputs, those that cannot be read are skipped and named.
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
    context = begin(request, "transfer", check, there, on_progress, notice)
    request = replace(request, seeds=context.seeds)
    now, encoder, device = context.record, context.encoder, context.device
    now.files = record.plain(sources.files)
    photos, skipped = photographs(sources, request, device)
    engine, weights = _engine(request, encoder, photos, device)
    context.weigh(**weights)
    now.sampler = engine.sampler
    now.costs = dict(context.before.costs) if context.before else {}
    context.tell(*skipped, *(f"{photo.path}: {line}" for photo in photos.values() for line in photo.notes), *engine.notes(),
                 *film.unfilmed(request.film, (picture(request.out, name, seed) for name in photos for seed in request.seeds)))
    jobs = list(_missing(request, photos))
    for name, seed in ((name, seed) for name in photos for seed in request.seeds if (name, seed) not in jobs):
        context.tell(*_mixed(request, name, seed, provenance.parameters(picture(request.out, name, seed)) or {}))
    context.write()
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
        context.tell(*_mixed(request, name, seed, said))
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
    result = outcome(request, photos, encoder, context.verdict, device, skipped)
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


def _said(request: Request, photo: Opened, seed: int, encoder: Encoder, engine) -> dict:
    """What a picture says of itself."""
    brief = request.brief
    return record.plain({
        "tool": "guide", "kind": "transfer", "prompt": brief.text() if brief.styles or brief.period else brief.prompt,
        "subject": brief.prompt, "styles": brief.styles, "avoid": brief.avoid, "period": brief.period, "seed": seed,
        "variant": "transferred", "strategy": request.engine, "strength": engine.strength, "steps": engine.steps, "sampler": engine.sampler,
        "model": request.model if request.engine == "diffusion" else "pixels", "encoder": request.encoder,
        "input": Path(photo.path).name, "input_sha256": photo.sha256,
        "references": [[Path(path).name, weight] for path, weight in request.references], "keep": request.keep,
        "preserve_color": request.preserve_color, "region": Path(request.region).name if request.region else "",
    })  # fmt: skip


def _mixed(request: Request, name: str, seed: int, said: dict) -> list[str]:
    """Where a bound took back much of a picture, a sentence; `said`: what the picture says of itself."""
    if (back := said.get("drawn_back") or 0.) <= .1:
        return []
    other = "more --steps" if request.engine == "pixels" else "a lower --guidance" if request.invert else "a lower --strength"
    return [f"{name}, seed {seed}: mixed with {back:.0%} of the photograph, or a bound would break; take {other}, or a wider --keep"]


def _missing(request: Request, photos: dict[str, Opened]) -> Iterator[tuple[str, int]]:
    for name in photos:
        for seed in request.seeds:
            if not picture(request.out, name, seed).is_file():
                yield name, seed
