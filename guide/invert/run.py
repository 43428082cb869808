"""`guide invert`: pictures climbed from noise to what a probe looks for; of given pictures, the smallest change that flips a reading."""
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from guide import png, record, sheet
from guide.brief import Brief
from guide.context import Context, Notice, Progress, begin
from guide.invert import aims
from guide.invert.flip import Flip, flip
from guide.loops.pixels import Aim, Pace, paint
from guide.outcome import said as shown
from guide.seeds import view_generators
from guide.transfer import canvas, film
from guide.transfer.photographs import readable
from guide.transfer.sources import Sources
from probes import image, overview
from probes.audit import audit
from probes.auditing.report import Report
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card

SIDE, STEPS, SMALLEST = 192, 160, 32
SEEDS = (0, 1, 2, 3)
VARIATION = 3.  # beside a log-odd: dots that please the head one by one cost more than shapes
PACE = partial(Pace, rate=.1, coarsest=24)  # from 24 pixels on: light and colour before edges


@dataclass(frozen=True)
class Request:
    """`inputs`: pictures whose reading is to be flipped; none: a picture is climbed from noise. `seeds`: of the noise, SEEDS where none
    are given; a flip has none but 0. `size`: pixels of the longer side."""

    brief: Brief
    out: Path
    inputs: tuple[str, ...] = ()
    probe: str = ""
    label: str = ""
    neuron: str = ""
    head_files: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    size: int | None = None
    steps: int | None = None
    film: str = ""
    encoder: str = "embedded"
    judge: str = "verdict"
    device: str = "auto"
    command: str = ""

    def __post_init__(self):
        if self.inputs and (self.film or self.seeds not in ((), (0,))):
            raise UserError(f"{'--film' if self.film else '--seeds'} belongs to pictures from noise, and a flip of given pictures has none;"
                            " leave it out, or name no picture.")
        object.__setattr__(self, "seeds", self.seeds or ((0,) if self.inputs else SEEDS))
        if self.steps is not None and not 1 <= self.steps <= 5000:
            raise UserError(f"{self.steps} steps cannot be taken; choose from 1 to 5000.")
        if self.size is not None and not SMALLEST <= self.size <= 2048:
            raise UserError(f"A side of {self.size} pixels cannot be made; choose from {SMALLEST} to 2048.")
        if self.film not in ("", "gif", "mp4"):
            raise UserError(f"There is no film {self.film!r}; choose gif or mp4.")


@dataclass(frozen=True)
class Result:
    """`lines` for a terminal; `rows` of report.csv."""

    folder: Path
    sheet: Path
    rows: pd.DataFrame
    lines: tuple[str, ...]


def invert(request: Request, on_progress: Progress = lambda what, done, total: None, notice: Notice = lambda line: None) -> Result:
    """Make what the request asks for into its folder: PNGs, trace.jsonl, record.json, report.csv, report.json and sheet.png."""
    sources = Sources.of(request.out, request.inputs, ending="-before")

    def check() -> None:
        film.check(request.film)
        sources.check(anew=True)
    context = begin(request, "invert", check, lambda seed: not request.inputs and _path(request, seed).is_file(),
                    on_progress, notice)
    request = replace(request, seeds=context.seeds)
    if not request.inputs:
        context.tell(*film.unfilmed(request.film, (_path(request, seed) for seed in request.seeds)))
    context.weigh()
    context.record.files = record.plain(sources.files)
    make = partial(_flipped, inputs=sources.inputs) if request.inputs else _climbed
    result = make(request, context, on_progress=on_progress)
    context.finish(result.rows.to_dict("records"))
    return result


def _path(request: Request, seed: int) -> Path:
    return request.out / f"seed-{seed:04d}-inverted.png"


def _climbed(request: Request, context: Context, on_progress: Progress) -> Result:
    """From noise, a picture per seed."""
    encoder, device = context.encoder, context.device
    wish = aims.wish(encoder, request.brief, request.probe, request.label, request.neuron, [Path(stem) for stem in request.head_files])
    side, steps = request.size or SIDE, request.steps or STEPS
    context.write()
    paths, starts, done = [], [], 0
    for seed in request.seeds:
        path = _path(request, seed)
        paths.append(path)
        first, *_ = view_generators([seed])
        begun = canvas.noise([first], side, side)
        start = begun().detach().to(device)
        starts.append(start)
        if path.is_file():
            continue
        frames = film.Frames(request.film, steps)

        def stepped(row: dict, current: Callable[[], Tensor], seed=seed, frames=frames) -> None:
            nonlocal done
            done += 1
            on_progress(f"seed {seed}", done, steps * len(request.seeds))
            frames.see(row["step"], current)

        # The noise is the base, not the canvas: descent may undo what it does not need.
        aim = Aim(encoder, objective=wish.objective, weight=1., variation=VARIATION)
        painted, trace = paint(start, start, aim, first, PACE(steps), on_step=stepped)
        described = {"tool": "guide", "kind": "invert", "prompt": wish.said, "styles": request.brief.styles, "period": request.brief.period,
                     "seed": seed, "variant": "inverted", "strategy": "pixels", "steps": steps, "model": "pixels",
                     "encoder": request.encoder, "probe": request.probe, "label": request.label, "neuron": request.neuron}
        png.save(painted[0], path, record.plain(described) | {"size": f"{side}x{side}"})
        frames.write(path, start, painted)
        _append(request.out, trace, {"seed": seed})
    on_progress("reading the pictures", 1, 1)
    pixels = [image.load(path) for path in paths]
    read = audit([one[0] for one in pixels], intent=request.brief, encoder=request.encoder, judge=request.judge,
                 steered_by=[request.encoder], device=device)
    scores = [[float(wish.read(one.to(device))[0]) for one in some] for some in (starts, pixels)]
    frame = read.rows.assign(image=[path.name for path in paths], seed=list(request.seeds), variant="inverted", score_of_noise=scores[0],
                             score=scores[1])
    report = Report(frame, read.summary)
    report.to_csv(request.out / "report.csv")
    report.to_json(request.out / "report.json")
    cells = tuple(sheet.Cell(image.to_pil(one), (f"seed {seed}: {score:.2f} {wish.unit}", f"verdict: {shown(row['verdict_style'])}"))
                  for seed, one, score, row in zip(request.seeds, pixels, scores[1], frame.to_dict("records"), strict=True))
    sheet.save(request.out / "sheet.png", f"Inversion: {wish.said}", [sheet.Block("", (sheet.Row(wish.name, cells, request.encoder),))],
               request.command or record.typed())
    lines = (f"{wish.said}: {sum(scores[0]) / len(scores[0]):.2f} in noise -> {sum(scores[1]) / len(scores[1]):.2f} {wish.unit} (mean of "
             f"{len(paths)}).", f"Reliability: {wish.reliability}.",
             *_sensitivity(request, encoder, request.probe or ("style" if request.brief.styles else "")))
    return Result(request.out, request.out / "sheet.png", frame, lines)


def _flipped(request: Request, context: Context, inputs: dict[str, str], on_progress: Progress) -> Result:
    """The smallest change of each picture that flips the reading of a head."""
    encoder = context.encoder
    probe, wanted = request.probe or "style", request.label or (request.brief.styles[0][0] if request.brief.styles else "")
    known = overview.available(encoder, [Path(stem) for stem in request.head_files])
    head = getattr(known.get(probe), "head", None)
    if not hasattr(head, "labels"):
        named_ = ", ".join(name for name, one in known.items() if hasattr(getattr(one, "head", None), "labels"))
        raise UserError(f"Only a reading over labels can flip, and {probe!r} is none; choose by --probe one of {named_}.")
    if request.brief.period or request.brief.prompt or request.neuron or len(request.brief.styles) > 1:
        raise UserError("A change of a picture is sought toward one label: name one --style, or --probe and --label, or neither for any "
                        "other. --prompt, --period and --neuron are shown from noise, without a picture.")
    pictures, skipped = readable(inputs, lambda name, path: _seen(path, encoder, request.size))
    context.tell(*skipped)
    rows, blocks = [], []
    for index, (name, pixels) in enumerate(pictures.items()):
        on_progress(name, index, len(pictures))
        found = flip(encoder, head, pixels, wanted, request.steps or 100)
        files = [request.out / f"seed-0000-{name}-{which}.png" for which in ("before", "after")]
        for file, which, one in zip(files, ("before", "after"), (found.before, found.after), strict=True):
            png.save(one[0], file, {"tool": "guide", "kind": "invert", "variant": which, "input": Path(inputs[name]).name, "probe": probe,
                                    "seed": 0, "prompt": f"{found.was} -> {found.became}", "l2_norm": found.norm})
        rows.append({"input": name, "probe": probe, "was": found.was, "became": found.became, "flipped": found.found,
                     "l2_norm": found.norm, "grey_levels": found.levels, "largest_grey_levels": found.largest,
                     "read": found.partly, "width": found.before.shape[3], "height": found.before.shape[2],
                     "random_changes_that_flip": found.random,
                     "before": files[0].name, "after": files[1].name})
        blocks.append(_row(name, found))
    frame = pd.DataFrame(rows)
    Report(frame, {}).to_csv(request.out / "report.csv")
    (request.out / "report.json").write_text(json.dumps({"rows": record.plain(rows), "skipped": skipped}, indent=1))
    sheet.save(request.out / "sheet.png", f"The smallest change that flips the {probe} reading", [sheet.Block("", tuple(blocks))],
               request.command or record.typed(), side=224)
    lines = [*map(_sentence, rows), *skipped, *_sensitivity(request, encoder, probe, wanted)]
    return Result(request.out, request.out / "sheet.png", frame, tuple(lines))


def _sensitivity(request: Request, encoder: Encoder, probe: str, wanted: str = "") -> list[str]:
    """What the card of the head that was asked says of the smallest changes that flip it, where they were measured."""
    stem = card.shipped(probe, encoder) if probe and not request.head_files else None
    found = card.read(stem).get("sensitivity") if stem else None
    besides = ", of flips to any other label, than which one to a given label is never smaller" if wanted else ""
    return [f"For comparison{besides}: {found['sentence']}"] if found else []


def _sentence(row: dict) -> str:
    size = f"{row['width']} x {row['height']} pixels"
    if not row["flipped"]:
        return f"{row['input']}: no change was found that flips {row['was']!r}; more --steps may find one."
    if row["was"] == row["became"]:
        return f"{row['input']} reads as {row['was']} already."
    return (f"{row['input']} ({size}): {row['was']} -> {row['became']} by a change of L2 norm {row['l2_norm']:.3f}, "
            f"{row['grey_levels']:.2f} grey levels of 256 on average and {row['largest_grey_levels']} at most; of random changes as large "
            f"{row['random_changes_that_flip']:.0%} do so{'; ' + row['read'] if row['read'] else ''}.")


def _row(name: str, found: Flip) -> sheet.Row:
    """Before, after, and the difference around grey, as strong as it may be."""
    apart = found.after - found.before
    times = 1 / (2 * float(apart.abs().max().clamp_min(1 / 255)))
    unread = ("plain grey sides are not read",) if found.partly else ()
    captions = ((f"reads as {found.was}",), (f"reads as {found.became or found.was}", f"L2 {found.norm:.3f}, {found.levels:.2f} levels"),
                (f"the change, {times:.0f} times as strong", *unread))
    pictures = found.before, found.after, (.5 + times * apart).clamp(0, 1)
    return sheet.Row(name, tuple(sheet.Cell(image.to_pil(one), said) for one, said in zip(pictures, captions, strict=True)))


def _seen(path: str, encoder, size: int | None) -> Tensor:
    """The picture with its shorter side at the encoder's, so that norms of different pictures compare; or at the size asked for."""
    pixels = image.load(path)
    height, width = pixels.shape[-2:]
    if min(height, width) < SMALLEST:
        raise UserError(f"{path} has {width} x {height} pixels, too few to be read; {SMALLEST} a side is the least: take a larger picture.")
    share = size / max(height, width) if size else encoder.side / min(height, width)
    return image.resize(pixels, (max(round(height * share), 1), max(round(width * share), 1))).clamp(0, 1)


def _append(folder: Path, trace: list[dict], told: dict) -> None:
    with (folder / "trace.jsonl").open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record.plain({**told, **row})) + "\n" for row in trace)
