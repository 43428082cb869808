"""`guide compare`: a fair tournament. Plans, makes what is missing, lets the referee choose strengths, reads everything, tells it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pandas as pd

from guide import pipelines, record
from guide.comparing import budget, making, plan
from guide.comparing.asked import Asked, Setting, cells
from guide.comparing.choice import REFEREE, chosen
from guide.comparing.choice import read as earlier_choice
from guide.comparing.plan import Plan
from guide.comparing.publishing import machine
from guide.comparing.reading import read, seated
from guide.comparing.results import Results
from guide.run import Request, fingerprint, remarks, unlike
from probes import devices, encoders, judge
from probes.atomic import write_text
from probes.auditing.processes import Process, joined
from probes.errors import UserError

Progress = Callable[[str, int, int], None]
Notice = Callable[[object], None]
FREE = record.FREE | {"judges", "suite"}


def compare(
    asked: Asked,
    on_progress: Progress = lambda what, done, total: None,
    notice: Notice = lambda line: None,
    plan_only: bool = False,
    process: Process | None = None,
) -> Results | None:
    """Run the comparison into `asked.out`; the same folder and arguments go on with the batches that are missing.

    Writes pictures, trace.jsonl, plan.json, choice.json and record.json as it goes, then what Results.save writes. `plan_only`: the plan
    is measured, said and kept, nothing is made, None comes back. Where several processes were launched, each makes its share of the
    batches; all but the first get None.
    """
    process = process or joined(asked.device)
    asked = replace(asked, command=asked.command or record.typed())
    _checked(asked)
    settings = asked.settings()
    resolved = record.plain({**vars(asked), "settings": [vars(s) for s in settings], "kind_of_run": "tournament"})
    resolved.pop("steered_by")
    resolved |= {"model": asked.models[0], "strategies": {name: {} for name in asked.strategies}}
    before = record.earlier(asked.out, resolved, "compare", FREE)
    now = record.Record(resolved, command=asked.command, kind="compare", seeds=asked.seeds)
    if process.index == 0:
        (before or now).write(asked.out / "record.json")  # a folder that cannot be written is found out before the work
    on_progress("loading", 0, 0)
    encoder = encoders.load(asked.encoder, process.device)
    jury = seated(asked, process.device).values()
    now.device = process.device
    now.weights = {"encoder": encoder.fingerprint, **{one.name: one.lineage.weights for one in jury}}
    now.lineages = {"encoder": encoder.lineage, **{one.name: one.lineage for one in jury}}
    loaded: dict[str, object] = {}

    def pipeline_of(setting: Setting):
        if setting.model not in loaded:
            loaded.clear()  # one model in memory at a time
            loaded[setting.model] = pipelines.load(setting.model, process.device, None if asked.dtype == "auto" else asked.dtype)
            weights = fingerprint(loaded[setting.model])
            if before is not None and before.weights.get(f"pipeline {setting.model}", weights) != weights:
                raise record.foreign(asked.out)
            now.weights[f"pipeline {setting.model}"] = weights
        return loaded[setting.model]

    kept = asked.out / "plan.json"
    key = sha256(repr(sorted((name, repr(value)) for name, value in resolved.items() if name not in FREE)).encode()).hexdigest()
    if process.index == 0 and not plan.fits(kept, key):
        if before is not None and kept.is_file():
            raise UserError(f"The plan {kept} belongs to another run than the pictures beside it; choose another folder with --out.")
        found = [plan.measured(asked, setting, pipeline_of(setting), encoder, on_progress) for setting in settings]
        plan.write(found, kept, key, machine(process))
    process.wait()
    plans = plan.read(kept, settings)
    if process.index == 0:
        notice(plan.table(plans, asked, process.count))
    if plan_only:
        return None
    _make(asked, plans, pipeline_of, encoder, process, on_progress, notice, now)
    process.wait()
    if process.index:
        return None
    results = told(asked, plans, process.device, on_progress)
    now.notes += results.notes
    now.costs = results.spent()
    now.finish()
    now.write(asked.out / "record.json")
    results.save(asked.out)
    return results


def told(asked: Asked, plans: Sequence[Plan], device: str, on_progress: Progress, choice: list[dict] | None = None) -> Results:
    """Everything read and compared. `choice`: the table of an earlier reading; without it the referee chooses now."""
    every = [job for one in plans for job in one.jobs(asked)]
    rows, summary = read(every, asked, device, on_progress)
    on_progress("comparing", len(rows), len(rows))
    if choice is None:
        choice = [row for one in plans for row in _choice(rows, one, asked)]
        write_text(asked.out / "choice.json", json.dumps(record.plain(choice), indent=1) + "\n")
    rivals = {
        (one.setting.said(), arm.label): found.label
        for one in plans
        for arm in one.arms
        if (found := budget.rival(arm, one.arms, one.costs, one.steps))
    }
    recall = judge.load(asked.judges[0], device).recall
    return Results.of(rows, asked, summary, recall, choice, rivals, {one.setting.said(): one for one in plans})


def _choice(rows: pd.DataFrame, one: Plan, asked: Asked) -> list[dict]:
    settings = one.setting.settings
    mine = (
        (rows["model"] == one.setting.model)
        & (rows["setting_steps"] == settings.steps)
        & (rows["guidance_scale"] == settings.guidance_scale)
    )
    if REFEREE not in asked.judges:
        return []
    return chosen(rows[mine], one.setting.said())


def _make(
    asked: Asked,
    plans: Sequence[Plan],
    pipeline_of: Callable,
    encoder,
    process: Process,
    on_progress: Progress,
    notice: Notice,
    now: record.Record,
) -> None:
    """The batches that are missing, those of this process."""
    # Shares are of all batches, not of those that are missing: others may have begun already.
    todo = [(one, [job for _, job in one.jobs(asked)][process.index :: process.count]) for one in plans]
    for path in [path for _, found in todo for job in found for path in making.broken(job, asked.out)]:
        path.unlink(missing_ok=True)
        now.notes.append(f"The picture {path.relative_to(asked.out)} was not whole and was made again.")
        notice(now.notes[-1])
    todo = [(one, making.missing(found, asked.out)) for one, found in todo]
    total, done = sum(len(_steps(one, job)) for one, found in todo for job in found), 0
    traces = asked.out / ("trace.jsonl" if process.count == 1 else f"trace-{process.index}-of-{process.count}.jsonl")
    for one, found in todo:
        if not found:
            continue
        pipeline = pipeline_of(one.setting)
        for cell in cells(asked, one.setting):
            request = Request(cell.brief, asked.out, model=one.setting.model, encoder=asked.encoder)
            for line in remarks(request, pipeline, encoder):
                if line not in now.notes:
                    now.notes.append(line)
                    notice(line)
        for job in found:
            label = (
                f"{job.cell.style}{'' if job.cell.named else ' by guidance alone'}, {job.arm.label}, seed {', '.join(map(str, job.seeds))}"
            )

            def stepped(label: str = label) -> None:
                nonlocal done
                done += 1
                on_progress(label, done, total)

            images, trace, meter = making.made(job, pipeline, encoder, stepped)
            for line in unlike(trace, now.notes):
                now.notes.append(line)
                notice(line)
            making.write(job, asked, images, trace, meter, traces)


def _steps(one: Plan, job: making.Job) -> range:
    return range(job.arm.steps or one.steps)


def _checked(asked: Asked) -> None:
    """UserError before any work where what is asked for cannot be had."""
    if asked.budget:
        budget.parsed(asked.budget)
        if asked.best_of:
            raise UserError("A budget decides how many candidates best-of has; leave out --best-of, or --budget.")
    for setting in asked.settings():
        found = cells(asked, setting)
        if len({cell.folder for cell in found}) < len(found):
            raise UserError("Two of the styles would share a folder; name each of them once.")
        names = [arm.strategy for arm in plan.field_of(asked, setting) if arm.strategy != "unguided"]
        if asked.choosing() and REFEREE not in asked.judges and len(set(names)) < len(names):
            why = "Strengths are chosen by the referee, who is no judge here"
            raise UserError(f"{why}; add referee to --judges, or leave out --choice-seeds.")
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write into {asked.out}: {error.strerror or error}; choose another folder with --out.") from None


def rescore(
    folder: Path,
    out: Path | None = None,
    encoder: str | None = None,
    judges: tuple[str, ...] = (),
    device: str = "auto",
    on_progress: Progress = lambda what, done, total: None,
) -> tuple[Results, Path]:
    """Read a finished run's pictures anew with another encoder or other judges, and tell the comparison into another folder.

    Nothing is generated; the strengths stay those that were chosen.
    """
    asked = of_record(folder)
    target = out or folder / (
        "rescored-" + "-".join(filter(None, (Path(encoder).name if encoder else "", *judges))) if encoder or judges else "rescored"
    )
    fresh = replace(asked, encoder=encoder or asked.encoder, judges=judges or asked.judges, steered_by=asked.encoder)
    fresh = replace(fresh, choice_seeds=asked.choosing())
    plans = plan.read(folder / "plan.json", fresh.settings())
    if left := [job for one in plans for job in making.missing([job for _, job in one.jobs(fresh)], folder)]:  # missing or not whole
        several = f"{len(left)} batches of pictures are" if len(left) > 1 else "A batch of pictures is"
        raise UserError(f"{several} missing or not whole in {folder}; run `{record.read(folder).command}` first.")
    device = devices.select(device)
    results = told(fresh, plans, device, on_progress, earlier_choice(folder / "choice.json"))
    results.save(target)
    return results, target


def of_record(folder: Path) -> Asked:
    """The comparison that a run's record.json describes."""
    read_ = record.read(folder)
    if read_.kind != "compare" or read_.request.get("kind_of_run") != "tournament":
        raise UserError(f"{folder} holds no run of `guide compare` of this version; name the folder of one.")
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in read_.request.items()
        if name in Asked.__dataclass_fields__
    }
    return Asked(**(given | {"out": folder, "strategies": tuple(given["strategies"]), "command": read_.command}))
