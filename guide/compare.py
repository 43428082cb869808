"""`guide compare`: strategies on the same styles, prompts and seeds; each picture written as it comes, then read and set side by side."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from guide import png, record, sheet
from guide.brief import Brief, per_prompt
from guide.comparison import Comparison
from guide.outcome import caption
from guide.run import Notice, Progress, Request, aimed, fingerprint, opened, picture, remarks, sample, unlike
from guide.strategies import Strategy, presets
from probes import distance
from probes.audit import audit
from probes.config import lookup, styles
from probes.errors import UserError
from probes.image import load, to_pil
from probes.judge import Judge

SHOWN = 8  # seeds of a style on the sheet: the first ones, so that nobody picks
COSTS = ("seconds", "denoiser")


def compare(
    request: Request,
    keys: Sequence[str],
    names: Sequence[str],
    on_progress: Progress = lambda what, done, total: None,
    notice: Notice = lambda line: None,
) -> Comparison:
    """Run the strategies `names` on the styles `keys`; the first strategy is what the others are measured against.

    `request.brief` gives prompt (default: the styles' own, cycled over the seeds as `guide generate` does), avoided styles, period and
    whether the style is named. Writes pictures, trace.jsonl, record.json, results.csv, results.json and sheet.png into `request.out`;
    the same folder and arguments go on with the batches that are missing.
    """
    chosen = _strategies(request, names)
    known = dict.fromkeys(lookup(styles(), key, "style").key for key in keys)
    briefs = {key: replace(request.brief, styles=((key, 1.0),)) for key in known}
    if not briefs:
        raise UserError("No style is named; write them as --styles baroque,ukiyo-e, and `guide styles` lists them.")
    settings = request.settings()
    resolved = record.plain(request) | record.plain({"settings": settings, "strategies": chosen, "styles": list(briefs)})
    before = record.earlier(request.out, resolved, "compare")
    now = record.Record(resolved, command=request.command or record.typed(), kind="compare", seeds=request.seeds)
    (before or now).write(request.out / "record.json")  # a folder that cannot be written is found out before the work
    on_progress("loading", 0, 0)
    now.device, encoder, pipeline, verdict = opened(request)
    now.weights = {"pipeline": fingerprint(pipeline), "encoder": encoder.fingerprint, "verdict": verdict.lineage.weights}
    now.lineages = {"encoder": encoder.lineage, "verdict": verdict.lineage}
    if before is not None and before.weights not in ({}, record.plain(now.weights)):
        raise UserError(f"The folder {request.out} holds pictures of other weights; choose another folder with --out.")
    for line in dict.fromkeys(line for brief in briefs.values() for line in remarks(replace(request, brief=brief), pipeline, encoder)):
        now.notes.append(line)
        notice(line)
    jobs = list(_missing(request, briefs, chosen))
    total, done = len(jobs) * settings.steps, 0

    def stepped() -> None:
        nonlocal done
        done += 1
        on_progress(f"{key}, {name}, seed {', '.join(map(str, seeds))}", done, total)

    for key, brief, seeds, name in jobs:
        images, trace, costs = sample(pipeline, brief, seeds, chosen[name], aimed(brief, encoder), settings, stepped)
        for line in unlike(trace, now.notes):
            now.notes.append(line)
            notice(line)
        with (request.out / "trace.jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record.plain({"style": key, "variant": name, "seeds": seeds, **step})) + "\n" for step in trace)
        for seed, image in zip(seeds, images, strict=True):
            made = {"seed": seed, "variant": name, "strategy": name, "strength": chosen[name].strength, "model": request.model}
            spent = {"seconds": costs["seconds"] / len(seeds), "denoiser": costs["denoiser"]}
            said = png.described(brief, settings, **made, encoder=request.encoder, **spent)
            png.save(image, picture(request.out / key, seed, name), said | {"size": f"{image.shape[2]}x{image.shape[1]}"})
        now.write(request.out / "record.json")
    on_progress("reading the pictures", total, total)
    comparison = _read(request, briefs, list(chosen), verdict, now.device)
    comparison.report.to_csv(request.out / "results.csv")
    comparison.report.to_json(request.out / "results.json")
    _sheet(request, briefs, chosen, comparison)
    rows = comparison.report.rows
    now.costs = {f"{name} {cost}": float(rows.loc[rows.variant == name, cost].sum()) for name in chosen for cost in COSTS}
    now.notes += comparison.notes
    now.rows = rows.to_dict("records")
    now.finish()
    now.write(request.out / "record.json")
    return comparison


def _strategies(request: Request, names: Sequence[str]) -> dict[str, Strategy]:
    chosen = {key: request.preset(key) for key in (lookup(presets(), name, "strategy").key for name in names)}
    if len(chosen) < 2:
        raise UserError("A comparison needs two different strategies; write them as --strategies unguided,clean-image.")
    return chosen


def _missing(request: Request, briefs: dict[str, Brief], chosen: dict[str, Strategy]) -> Iterator[tuple[str, Brief, tuple[int, ...], str]]:
    """(style, brief, seeds, strategy) of each batch of which a picture is missing: whole batches, so that going on changes no digit."""
    for key, brief in briefs.items():
        for subject, seeds in per_prompt(brief, request.seeds):
            for start in range(0, len(seeds), request.batch):
                batch = seeds[start : start + request.batch]
                for name in chosen:
                    if not all(picture(request.out / key, seed, name).is_file() for seed in batch):
                        yield key, subject, batch, name


def _read(request: Request, briefs: dict[str, Brief], names: list[str], verdict: Judge, device: str) -> Comparison:
    """Every picture read from its file, so that a run which went on and one in one go give the same numbers."""
    subjects = {key: {seed: b for b, seeds in per_prompt(brief, request.seeds) for seed in seeds} for key, brief in briefs.items()}
    cells = [(key, seed, name) for key in briefs for seed in request.seeds for name in names]
    paths = [picture(request.out / key, seed, name) for key, seed, name in cells]
    intents = [subjects[key][seed] for key, seed, _ in cells]
    report = audit(paths, intent=intents, encoder=request.encoder, judge=verdict.name, steered_by=(request.encoder,), device=device)
    rows = report.rows.assign(image=[path.relative_to(request.out).as_posix() for path in paths])
    rows["prompt"] = [subjects[key][seed].prompt for key, seed, _ in cells]
    said = [png.parameters(path) or {} for path in paths]
    for cost in COSTS:
        rows[cost] = [float(one.get(cost, "nan")) for one in said]
    missing = distance.lpips_missing()
    baselines = [picture(request.out / key, seed, names[0]) for key, seed, _ in cells]
    apart = [_apart(path, baseline, verdict, device, not missing) for path, baseline in zip(paths, baselines, strict=True)]
    rows = pd.concat([rows, pd.DataFrame(apart, index=rows.index)], axis=1)
    notes = (f"LPIPS is left out: {missing}.",) if missing else ()
    return Comparison.of(rows, report.summary, names, verdict.recall, notes)


@torch.no_grad()
def _apart(path: Path, baseline: Path, verdict: Judge, device: str, with_lpips: bool) -> dict[str, float]:
    """Distances of a picture to the baseline's at the same prompt and seed."""
    pair = torch.cat([load(path), load(baseline)]).to(device)
    a, b = pair[:1], pair[1:]
    features = verdict(pair).features
    found = {
        "ms_ssim": distance.ms_ssim(a, b).item(),
        "verdict_feature_distance": distance.feature_distance(features[:1], features[1:]).item(),
    }
    return found | ({"lpips": distance.lpips(device)(a, b).item()} if with_lpips else {})


def _sheet(request: Request, briefs: dict[str, Brief], chosen: dict[str, Strategy], comparison: Comparison) -> None:
    rows, seeds = comparison.report.rows, request.seeds[:SHOWN]
    found = {(row["style_target"], row["seed"], row["variant"]): row for row in rows.to_dict("records")}

    def cell(key: str, seed: int, name: str) -> sheet.Cell:
        reading = found[key, seed, name]
        subject = f"{seed}: {reading['prompt']}" if reading["prompt"] else f"seed {seed}"
        return sheet.Cell(to_pil(load(request.out / reading["image"])), (subject, *caption(reading)))

    names = comparison.strategies
    strengths = {name: f"strength {chosen[name].strength:g}" if chosen[name].strength else "" for name in names}

    def row(key: str, name: str) -> sheet.Row:
        return sheet.Row(name, tuple(cell(key, seed, name) for seed in seeds), strengths[name])

    blocks = [sheet.Block(key, tuple(row(key, name) for name in names)) for key in briefs]
    left_out = f"; seeds {seeds[0]}-{seeds[-1]} of {len(request.seeds)}" if len(seeds) < len(request.seeds) else ""
    sheet.save(request.out / "sheet.png", " and ".join(names) + " at the same seeds" + left_out, blocks, request.command or record.typed())
