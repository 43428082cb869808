"""`guide probe`: read pictures, fit and check heads on labelled data, and see why a picture reads as it does."""
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from probes.errors import UserError
from probes.paths import complaint, legible, typed

probe = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Read pictures with every probe, fit heads to labelled data, check them, and see why a picture reads as it does.")

Encoder = Annotated[str, typer.Option(help="embedded, an open_clip folder, or ViT-B-32:laion2b_s34b_b79k.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; a GPU reads in bfloat16.")]
Heads = Annotated[list[str] | None, typer.Option("--head-file", help="A head made by `guide probe fit`; may be given several times.")]
Data = Annotated[str, typer.Option(help="A folder with metadata.csv or a subfolder per label, or a .csv, .jsonl, .parquet or .npz.")]
Label = Annotated[str, typer.Option(help="The column of labels; subfolders need none. Numbers and spans are years for a head of years.")]
Group = Annotated[str, typer.Option(help="The column that is kept on one side of every split. Default: artist, or prompt.")]
Column = Annotated[str, typer.Option(help="The column of features, where a table has several.")]
Where = Annotated[list[str] | None, typer.Option(help="Only rows with column=value: split=test; may be given several times.")]
Least = Annotated[int, typer.Option(help="Labels with fewer examples are left out.")]
Folds = Annotated[int, typer.Option(help="Splits into seen and unseen groups.")]
Words = Annotated[bool, typer.Option("--words", help="Let the encoder's text for each label take part.")]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep embeddings of files on disk ($GUIDE_CACHE), by their content.")]
ROWS = "rows of features"
HEAD_HELP = ("zero-shot, nearest-mean, gda, linear, tip-adapter, tip-adapter-f, ape, ape-t; several with commas, or auto: the best is "
             "taken. Years: ordinal or kernel-ridge.")


@probe.command("list")
def list_(encoder: Encoder = "embedded", head_file: Heads = None, device: Device = "cpu") -> None:
    """List the probes: head, number of labels, how far each was validated."""
    from probes.overview import listed
    reader = _encoder(encoder, device)
    rows = listed(reader, _stems(head_file))
    _table(("probe", "head", "labels", "reliability"),
           [(row.name, row.head, str(row.labels or ""), row.reliability + (f" ({row.missing})" if row.missing else "")) for row in rows])
    typer.echo(f"Encoder: {reader.name}, {reader.dim} values, {reader.fingerprint[:12]}.")


@probe.command()
def read(images: Annotated[list[str], typer.Argument(help="Pictures, folders or patterns.")],
         encoder: Encoder = "embedded", head_file: Heads = None, device: Device = "cpu",
         top: Annotated[int, typer.Option(min=1, help="Labels a probe prints.")] = 3,
         as_json: Annotated[bool, typer.Option("--json", help="One JSON object a picture and line, with every number.")] = False,
         cache: Cache = False) -> None:
    """Say what every probe sees in pictures, and how far it can be trusted."""
    from probes.domain import FARTHEST
    from probes.embeddings import default_cache
    from probes.image import find
    from probes.overview import readings, words
    files = [file for source in images for file in find(source)]
    reader, trust, unread = _encoder(encoder, device), {}, 0
    for row in readings(files, reader, _stems(head_file), default_cache() if cache else None):
        unread += "error" in row
        if as_json:
            typer.echo(json.dumps(row, ensure_ascii=False))
            continue
        if "error" in row:
            typer.secho(f"not read: {complaint(row['image'], row['error'])}", fg="yellow")
            continue
        typer.echo(legible(row["image"]))
        for name, values in row["probes"].items():
            trust[name] = values["reliability"]
            typer.echo(f"  {name:8} {words(values, top)}")
        if "domain_percentile" in row:
            far = row["domain_percentile"]
            warned = ": out of its domain, trust no reading" if far >= FARTHEST else ""
            typer.echo(f"  {'domain':8} {far:.0f} % of real paintings lie nearer to those the heads learned from{warned}")
    if trust:
        typer.echo("How far to trust them:")
    for name, said in trust.items():
        typer.echo(f"  {name:8} {said}")
    if unread == len(files):
        raise UserError("no picture could be read." if len(files) > 1 else "the picture could not be read.")


@probe.command()
def fit(data: Data, label: Label = "", encoder: Encoder = "embedded",
        head: Annotated[str, typer.Option(help=HEAD_HELP)] = "gda", group: Group = "", column: Column = "", where: Where = None,
        least: Least = 5, folds: Folds = 5, words: Words = False, device: Device = "cpu", cache: Cache = True,
        out: Annotated[Path | None, typer.Option(help="The head without suffix. Default: outputs/heads/<label>-<head>.")] = None) -> None:
    """Fit a head to labelled pictures or features, check it on unseen groups, and write head and card.

    It reads the encoder's embedding alone; the heads that ship for the embedded encoder read its layers too and come from `recipes`.
    """
    from probes import fitting, reliability
    from probes.labelling import labelled_features, save, text_of
    names = fitting.candidates(head)
    found, reader = labelled_features(data, label, group, column, where or (), lambda: _encoder(encoder, device), _bar, cache)
    with _working("fitting"):
        if names[0] in fitting.YEAR_HEADS:
            found = _dated(found, names)
            made, chosen, figures = fitting.fit_years(found, names[0], folds), names[0], {}
            metrics = fitting.year_metrics(fitting.unseen_years(found, names[0], folds), found, typed(data).stem)
        else:
            found = found.several(least)
            text = text_of(reader, found, words or names == ("zero-shot",))
            made, chosen, figures = fitting.fit(found, names, text, folds)
            metrics = fitting.unseen(found, names, text, folds).metrics(found.group, typed(data).stem)
    stem = typed(out or Path("outputs") / "heads" / f"{found.label}-{chosen}")
    said = reliability.sentence(metrics, "images" if found.files else ROWS)
    save(stem, made, found, reader, encoder, said, metrics, chosen, figures)
    _notes(found.notes)
    for name, figure in figures.items() if len(figures) > 1 else ():
        typer.echo(f"{name}: balanced accuracy {figure:.3f}{', taken' if name == chosen else ''}")
    typer.echo(f"{found.label} by {chosen}: {said}")
    typer.echo(f"Head: {stem}.safetensors and {stem.name}.json")


@probe.command("eval")
def eval_(data: Data, label: Label = "", encoder: Encoder = "embedded",
          head: Annotated[str, typer.Option(help=HEAD_HELP)] = "auto",
          head_file: Annotated[str, typer.Option(help="A head as it is, by `guide probe fit` or one that ships, on data it has not seen."
                                                 )] = "",
          group: Group = "", column: Column = "", where: Where = None, least: Least = 5, folds: Folds = 5, words: Words = False,
          device: Device = "cpu", cache: Cache = True,
          out: Annotated[Path | None, typer.Option(help="Folder of the results, a new one. Default: outputs/eval-<label>, numbered where "
                                                        "there is one.")] = None) -> None:
    """Say how well heads read labelled pictures or features of groups they have not seen; table, CSV, JSON and diagrams."""
    from probes import fitting
    from probes.labelling import evaluated, labelled_features
    names = fitting.candidates(head)
    found, reader = labelled_features(data, label, group, column, where or (), lambda: _encoder(encoder, device), _bar, cache, head_file)
    folder = _unused(out, Path("outputs") / f"eval-{found.label}")
    with _working("checking"):
        if not head_file:
            found = _dated(found, names) if names[0] in fitting.YEAR_HEADS else found.several(least)
        results = evaluated(found, names, reader, head_file, words, folds, folder, typed(data).stem)
    found = results.data
    _notes(found.notes)
    _table(results.titles, results.rows)
    groups = len(set(found.groups.tolist()))
    what = "pictures" if found.files else ROWS
    typer.echo(f"{len(found)} {what}, {found.label}; " + (f"{groups} {found.group}s, none on two sides" if found.group else "no groups")
               + f". In brackets 95 % intervals over {found.group + 's' if found.group else what}.")
    typer.echo("Results: " + ", ".join(str(file) for file in results.files))


@probe.command()
def explain(image: Annotated[Path, typer.Argument(help="A picture.")],
            probe: Annotated[str, typer.Option(help="style, period, scene, origin, content, artifacts, or the label of a --head-file."
                                               )] = "style",
            label: Annotated[str, typer.Option(help="The label to explain, for scene also figures or indoor, for content the words. "
                                             "Default: the first.")] = "",
            encoder: Encoder = "embedded", head_file: Heads = None,
            method: Annotated[str, typer.Option(help="occlusion (any encoder), or gradient.")] = "occlusion",
            data: Annotated[str, typer.Option(help="Labelled pictures, to find the nearest among.")] = "",
            data_label: Annotated[str, typer.Option(help="Their column of labels.")] = "", group: Group = "",
            device: Device = "cpu", cache: Cache = True,
            out: Annotated[Path | None, typer.Option(help="Folder of the results. Default: outputs/explain-<picture>.")] = None) -> None:
    """Show where in a picture a reading comes from and whether that is so, and what in words and pictures it is near to; PNG and HTML."""
    from probes.labelling import explained, labelled_features
    picture, reader = typed(image), _encoder(encoder, device)
    near = labelled_features(data, data_label, group, "", (), lambda: reader, _bar, cache)[0] if data else None
    with _working("explaining"):
        found = explained(picture, reader, probe, label, _stems(head_file), method, near)
    folder = typed(out or Path("outputs") / f"explain-{picture.stem}")
    stem = folder / f"{probe}-{found.target.label.replace('/', '-').replace(' ', '-')[:60]}"
    found.to_png(stem.with_name(f"{stem.name}.png"))
    found.to_html(stem.with_name(f"{stem.name}.html"))
    for line in found.sentences():
        typer.echo(legible(line))
    typer.echo(f"Results: {stem}.png and {stem.name}.html")


def _encoder(source: str, device: str):
    import torch

    from probes import devices, encoders
    device = devices.select(device)
    return encoders.load(source, device, torch.bfloat16 if device.startswith("cuda") else None)


def _stems(heads: list[str] | None) -> list[Path]:
    return [typed(head) for head in heads or ()]


def _unused(asked: Path | None, default: Path) -> Path:
    """A folder without results of another check: what was asked for, or the default with the first number that is free."""
    if asked is None:
        numbered = (default.with_name(f"{default.name}-{number}") for number in count(2))
        return typed(next(folder for folder in chain([default], numbered) if not (folder / "metrics.json").exists()))
    folder = typed(asked)
    if (folder / "metrics.json").exists():
        raise UserError(f"the folder {folder} holds the results of another check; choose another one with --out.")
    return folder


def _dated(found, names: tuple[str, ...]):
    if len(names) > 1:
        raise UserError("one head of years at a time can be fitted; name one.")
    return found.dated()


def _notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        typer.secho(legible(f"Note: {note}.".replace("..", ".")), fg="yellow", err=True)


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    table = Table(Column(titles[0], no_wrap=True), *titles[1:], box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, gone when it is done."""
    from rich.console import Console
    from rich.progress import Progress
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _working(what: str) -> Iterator[None]:
    from rich.console import Console
    with Console(stderr=True).status(f"{what} ..."):
        yield
