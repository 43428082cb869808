"""The command line: each command parses, calls one function, prints. Heavy imports wait until a command needs them."""
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from guide import listings, pipelines
from guide import options as common
from guide.comparing import options as compared
from guide.transfer import options
from probes import commands
from probes.auditing import options as audited
from probes.errors import UserError
from probes.paths import legible, typed


class Commands(TyperGroup):
    """A user's mistake is one sentence and exit code 2; an interruption is exit code 130; neither shows a traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.secho("Error: " + legible(" ".join(str(error).split())), fg="red", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interruption:
            typer.secho(str(interruption) or "Interrupted.", fg="yellow", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Make pictures in a style and a period, see how well they keep it, and read any folder of pictures the same way.")


@app.command()
def generate(prompt: common.Prompt = "", style: common.Style = "", avoid: common.Avoid = None, period: common.Period = "",
             scene: common.Scene = "", origin: common.Origin = "",
             seeds: common.Seeds = "0-3", model: common.Model = "embedded",
             strategy: Annotated[str, typer.Option(help="How to steer; `guide strategies` lists them.")] = "clean-image",
             strength: common.Strengths = None, weight: common.Weight = None, keep: common.Keep = None, limit: common.Limit = None,
             schedule: common.Schedule = None,
             toward: common.Toward = None, reference: common.Reference = None, reference_by: common.ReferenceBy = "moments",
             region: common.Region = "",
             content: common.ContentBy = "global", watch: common.Watched = None, on_drift: common.Drift = "warn",
             steps: common.Steps = None, size: common.Size = "", guidance_scale: common.Scale = None, encoder: common.Encoder = "embedded",
             judge: common.Judge = "verdict", device: common.Device = "auto", dtype: common.Dtype = "auto", name_style: common.Name = True,
             decoder: common.Decoder = "auto",
             batch: Annotated[int, typer.Option(help="Pictures made at a time; fewer need less memory.")] = 4,
             out: Annotated[Path | None, typer.Option(help="Folder of the results; the same folder and arguments continue. "
                                                           "Default: outputs/<style>-<time>.")] = None,
             quiet: common.Quiet = False) -> None:
    """Make pictures, unguided and guided at the same seeds, and say how well they keep style and period."""
    from guide import goals
    from guide.brief import parse_seeds, parse_size
    brief = _brief(prompt, style, avoid, period, name_style, scene, origin)
    asked = goals.parse(weight or (), keep or (), limit or (), schedule or (), toward or (), reference or (), reference_by, region, content)
    if not (brief.prompt or brief.styles or brief.period or brief.scene or asked.asks):
        raise UserError("Nothing is asked for; name a --style, a --prompt, a --period, a --scene or a --reference.")
    hard = goals.parse_strength(strength)
    goals.check(steps, on_drift, bool(watch))
    chosen, pixels = parse_seeds(seeds), parse_size(size) if size else None
    folder = typed(out or _folder(brief.slug()))
    from guide.run import Request, generate
    request = Request(brief, folder, chosen, model, strategy, hard, steps, pixels, guidance_scale, encoder, judge, device, dtype, batch,
                      decoder=decoder, goals=asked, watch=tuple(watch or ()), on_drift=on_drift)
    pipelines.hush()
    with _progress(quiet) as (on_progress, notice), _continuable(folder):
        result = generate(request, on_progress, notice)
    if not quiet:
        from rich.console import Console
        Console().print(result.table())
        for line in result.lines():
            typer.echo(line)
    typer.echo(folder if quiet else f"Pictures side by side: {result.sheet}")


@app.command()
def compare(styles: compared.Styles = None, strategies: compared.Strategies = None, seeds: compared.Seeds = None,
            strengths: compared.Strengths = None, choice_seeds: compared.ChoiceSeeds = None, style_from: compared.StyleFrom = None,
            budget: compared.Budget = None, best_of: compared.BestOf = None, prompt_only: compared.PromptOnly = None,
            crossed: compared.Prompts = None, suite: compared.Suite = None, plan: compared.Plan = False, rescore: compared.Rescore = None,
            vote: compared.Vote = None, port: compared.Port = 0, prompt: common.Prompt = "", avoid: common.Avoid = None,
            period: common.Period = "",
            model: compared.Models = None, strength: compared.Strength = None, steps: compared.Steps = None, size: common.Size = "",
            guidance_scale: compared.Scales = None, encoder: compared.Encoder = None, judges: compared.Judges = None,
            device: common.Device = "auto", dtype: common.Dtype = "auto", name_style: compared.Name = None, batch: compared.Batch = None,
            out: compared.Out = None, quiet: common.Quiet = False) -> None:
    """A fair tournament: the same prompts and seeds, strengths chosen by the referee on others, judged by who did not steer."""
    if vote is not None:
        from guide.comparing.voting import serve
        typer.echo("\n".join(serve(typed(vote), port, typer.echo)))
        return
    style_from = style_from or {None: None, True: "both", False: "guidance"}[name_style]
    strengths = [*(strengths or []), *([f"{strength:g}"] if strength is not None else [])] or None
    _brief(prompt, "", avoid, period, True)
    folder = typed(out or rescore or _folder(f"compare-{suite}" if suite else "compare"))
    if rescore and any((suite, styles, strategies, seeds, strengths, choice_seeds, style_from, budget, best_of, crossed, model, steps)):
        raise UserError("A run that is read anew stays what it was; with --rescore name --encoder, --judges and --out alone.")
    from guide.comparing.suites import resolved
    asked = None if rescore else resolved(
        folder, suite, styles=styles, strategies=strategies, seeds=seeds, strengths=strengths, choice_seeds=choice_seeds,
        style_from=style_from, budget=budget, best_of=best_of, prompt_only=prompt_only, crossed=crossed, prompt=prompt.strip(), avoid=avoid,
        period=period or None, models=model, steps=steps, size=size or None, guidance_scale=guidance_scale, encoder=encoder, judges=judges,
        device=device, dtype=dtype, batch=batch)
    from guide.comparing import tournament
    pipelines.hush()
    with _progress(quiet) as (on_progress, notice), _continuable(folder):
        if asked is None:
            names = tuple(name.strip() for name in (judges or "").split(",") if name.strip())
            results, folder = tournament.rescore(typed(rescore), out and typed(out), encoder, names, device, on_progress)
        else:
            results = tournament.compare(asked, on_progress, notice, plan)
    if results is None and plan:
        also = "" if out else f" and with --out {shlex.quote(str(folder))}"
        typer.echo(folder if quiet else f"The plan is kept in {folder / 'plan.json'}; the same command without --plan{also} goes by it.")
    elif results is not None:
        if not quiet:
            from rich.console import Console
            Console().print(results.table())
        typer.echo(folder if quiet else f"To look at: {folder / 'report.html'}; beside it tables, plots, pictures and results.parquet")


@app.command()
def transfer(inputs: options.Inputs, style: common.Style = "", reference: options.References = None, period: common.Period = "",
             prompt: options.Words = "", avoid: common.Avoid = None, keep: options.Keep = None, limit: options.Limit = None,
             strength: options.Strength = None, engine: options.Engine = "pixels", preserve_color: options.Preserve = False,
             region: options.Region = "", size: options.Side = None, steps: options.Steps = None, seeds: options.Seeds = "0",
             statistics: options.Statistics = "moments", video: options.Video = False, film: options.Film = "",
             invert: options.Invert = False, guidance: options.Guidance = None, model: common.Model = "embedded",
             encoder: common.Encoder = "embedded", judge: common.Judge = "verdict", device: common.Device = "auto",
             dtype: common.Dtype = "auto",
             out: options.Out = None, quiet: common.Quiet = False) -> None:
    """Repaint photographs in a style or after reference pictures; what they show is held by constraints."""
    from guide.brief import parse_seeds
    from guide.transfer.request import Request, bounds, parse_references, slug
    from guide.transfer.request import inputs as found
    brief = _brief(prompt, style, avoid, period, True)
    references, files = parse_references(reference or ()), found(inputs, out)
    folder = typed(out or _folder(f"transfer-{slug(brief, files)}"))
    request = Request(brief, folder, files, references, bounds(keep, limit), engine, strength, steps, parse_seeds(seeds), size,
                      preserve_color, str(typed(region)) if region else "", statistics, video, film, model, invert, guidance, encoder,
                      judge, device, dtype)
    from guide.transfer.run import transfer
    pipelines.hush()
    with _progress(quiet) as (on_progress, notice), _continuable(folder):
        result = transfer(request, on_progress, notice)
    if not quiet:
        from rich.console import Console
        Console().print(result.table())
        for line in result.lines():
            typer.echo(line)
    typer.echo(folder if quiet else f"Before and after: {result.sheet}")


@app.command()
def invert(inputs: options.Pictures = None, style: common.Style = "", period: common.Period = "",
           prompt: Annotated[str, typer.Option(help="A phrase.")] = "", probe: options.Probe = "", label: options.Label = "",
           neuron: options.Neuron = "", head_file: options.HeadFile = None, seeds: options.Noises = "", size: options.Square = None,
           steps: options.Climb = None, film: options.Film = "", encoder: common.Encoder = "embedded", judge: common.Judge = "verdict",
           device: common.Device = "auto", out: options.Out = None, quiet: common.Quiet = False) -> None:
    """Show what a probe thinks that something looks like; or, given pictures, the smallest change that flips its reading of them."""
    from guide.brief import parse_seeds
    from guide.transfer.request import inputs as found
    brief, files = _brief(prompt, style, None, period, True), found(inputs or (), out)
    words = brief.slug() if brief.styles or brief.prompt else probe or neuron.replace(":", "-") or period or "style"
    folder = typed(out or _folder(f"invert-{words}"))
    from guide.invert.run import Request, invert
    request = Request(brief, folder, files, probe, label, neuron, tuple(str(typed(stem)) for stem in head_file or ()),
                      parse_seeds(seeds) if seeds else (), size, steps, film, encoder, judge, device)
    with _progress(quiet) as (on_progress, notice), _continuable(folder):
        result = invert(request, on_progress, notice)
    for line in result.lines if not quiet else ():
        typer.echo(line)
    typer.echo(folder if quiet else f"To look at: {result.sheet}")


@app.command()
def audit(source: audited.Source, style: common.Style = "", avoid: common.Avoid = None, period: common.Period = "",
          prompt: audited.Words = "", encoder: common.Encoder = "embedded", judge: common.Judge = "verdict",
          device: common.Device = "auto", judge_head: audited.JudgeHead = None, steered_by: audited.SteeredBy = None,
          baseline: audited.Baseline = None, reference: audited.Reference = None, batch: audited.Batch = 16, workers: audited.Workers = 0,
          out: audited.Out = None, quiet: common.Quiet = False) -> None:
    """Read any pictures: style, year, content, damage, the verdict; a table, a page to look at, CSV, Parquet and JSON."""
    brief = _brief(prompt, style, avoid, period, True)
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in typed(source).resolve().name)
    target = typed(out or Path("outputs") / f"audit-{name}")
    from probes.audit import audit
    from probes.auditing import processes
    process = processes.joined(device)
    options = {"intent": brief, "encoder": encoder, "judge": judge, "judge_heads": tuple(judge_head or ()), "device": process.device,
               "steered_by": tuple(steered_by or ()),
               "batch": batch, "workers": workers or None, "baseline": baseline, "reference": reference, "folder": target, "gallery": True}
    try:
        with _progress(quiet or process.index > 0) as (on_progress, _):
            if process.count > 1:
                audit(source, shard=(process.index, process.count), on_progress=partial(on_progress, "reading"), **options)
                process.wait()
            if process.index:
                return
            report = audit(source, on_progress=partial(on_progress, "reading"), **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted: what was read is kept in {target}; the same command goes on from there.") from None
    page, *_ = report.save(target)
    if not quiet:
        from rich.console import Console
        (console := Console()).print(report.table(width=console.width))
    elif baseline and not report.summary["baseline"]:
        typer.secho(f"No picture of the baseline {baseline} is the counterpart of one: nothing was compared.", fg="yellow", err=True)
    typer.echo(target if quiet else f"To look at: {page}; beside it audit.csv, audit.parquet and audit.json")
    if not report.summary["read"]:
        raise UserError(f"None of the {len(report)} files could be read as a picture; {target / 'audit.csv'} says why of each.")


app.add_typer(commands.probe, name="probe")


@app.command()
def styles() -> None:
    """List the styles: names, years, region, and which of them the embedded models learned."""
    listings.show(listings.styles())


@app.command()
def models() -> None:
    """List the models in configs/models; a diffusers folder or a hub id works too."""
    listings.show(listings.models())


@app.command()
def judges() -> None:
    """List who can give a verdict: the judge that ships, and those of a hub in configs/judges."""
    listings.show(listings.judges())


@app.command()
def strategies() -> None:
    """List the strategies in configs/strategies: what they do, their papers, what they need and what they cost."""
    listings.show(listings.strategies())


@app.command()
def plan(model: common.Model = "embedded",
         strategy: Annotated[str, typer.Option(help="How to steer; `guide strategies` lists them.")] = "clean-image",
         size: common.Size = "", seeds: common.Seeds = "0-3", steps: common.Steps = None, encoder: common.Encoder = "embedded",
         device: common.Device = "auto",
         dtype: common.Dtype = "auto", decoder: common.Decoder = "auto",
         batch: Annotated[int, typer.Option(min=1, help="Pictures made at a time.")] = 4) -> None:
    """Predict seconds and memory of the guided pictures before anything is loaded; takes some ten seconds to measure this machine."""
    from guide.brief import parse_seeds, parse_size
    pictures, pixels = len(parse_seeds(seeds)), parse_size(size) if size else None
    from guide.planning import report
    from guide.planning.plan import plan
    found = plan(model, strategy, pixels, steps, pictures, batch, encoder, device, dtype, decoder)
    from rich.console import Console
    Console().print(report.table(found))
    for line in report.lines(found, pictures):
        typer.echo(line)


@app.command()
def cite(run: Annotated[Path, typer.Argument(help="The folder of a run of `guide generate` or `guide compare`.")]) -> None:
    """Print BibTeX for what a run used; sources that nobody here has read are marked."""
    from guide import record
    from guide.cite import bibtex
    typer.echo(bibtex(record.read(typed(run))))


@app.command()
def doctor() -> None:
    """Check the installation against known answers and say what this machine can run."""
    from guide.doctor import examine
    pipelines.hush()
    checks = list(examine())
    for check in checks:
        mark, colour = {True: ("ok", "green"), False: ("FAIL", "red"), None: ("", None)}[check.ok]
        typer.secho(f"{mark:4}  ", fg=colour, nl=False)
        typer.echo(f"{check.name}: {check.found}")
    if any(check.ok is False for check in checks):
        raise UserError("The installation is not as it should be; read the lines marked FAIL, or reinstall it.")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError, version
    try:
        typer.echo(version("clip-guided-generation"))
    except PackageNotFoundError:
        raise UserError("The package is not installed, so that it has no version; install it with pip install -e .") from None


def _brief(*words):
    from guide.brief import of_words
    return of_words(*words)


def _folder(name: str) -> Path:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("Several processes have to share one folder; name it with --out.")
    return Path("outputs") / f"{name}-{time.strftime('%Y-%m-%d-%H%M%S')}"


@contextmanager
def _continuable(folder: Path) -> Iterator[None]:
    """Say after Ctrl-C what is kept and how to go on. A folder that was made for a run that kept nothing goes again."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except KeyboardInterrupt:
        kept = len(list(folder.rglob("seed-*.png")))
        from guide.record import typed
        command = typed() if "--out" in typed() else f"{typed()} --out {shlex.quote(str(folder))}"
        many = f"{kept} finished picture{'s are' if kept > 1 else ' is'}"
        rest = f"{many} kept in {folder}; `{command}` goes on from there" if kept else "no picture was finished"
        raise KeyboardInterrupt(f"Interrupted: {rest}.") from None
    finally:
        for path in new:
            with suppress(OSError):  # rmdir refuses a folder that holds something
                path.rmdir()


@contextmanager
def _progress(quiet: bool) -> Iterator[tuple]:
    """A bar on stderr: `on_progress(what, done, total)` in denoising steps, and `notice(line)` above it."""
    if quiet:
        yield lambda what, done, total: None, lambda line: typer.echo(line, err=True) if isinstance(line, str) else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield (lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)), bar.console.print


if __name__ == "__main__":
    app()
