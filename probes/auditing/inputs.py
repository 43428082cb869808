"""What there is to audit: pictures of folders, globs, tar shards, tables and runs, as a list of items that are opened one by one."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from probes import image, tables
from probes.auditing import tars
from probes.auditing.columns import rated
from probes.auditing.intention import Intention
from probes.auditing.item import COLUMNS, Item, told
from probes.errors import UserError
from probes.lineage import Lineage
from probes.paths import named, printable, typed

TABLES = (".csv", ".jsonl", ".parquet")
# What may hold a picture that Pillow does not read: each has a row that says why.
UNREAD = (".svg", ".pdf", ".psd", ".eps", ".jxl", ".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf")
BESIDE = tuple(f"metadata{suffix}" for suffix in TABLES)  # read, though no pictures


def items(images: Tensor | str | Path | Sequence[str | Path | Tensor]) -> tuple[list[Item], list[Lineage]]:
    """Items in order, and the lineages of what steered them where a run's record says so.

    A folder may hold a `metadata.csv` or `.jsonl` (Hugging Face's imagefolder) or a run's `record.json`; tars are webdataset shards; a
    table names files relative to itself. UserError where there is nothing.
    """
    if isinstance(images, Tensor) or (not isinstance(images, str | Path) and any(isinstance(entry, Tensor) for entry in images)):
        return [Item(f"image {number}", picture) for number, picture in enumerate(images)], []
    if not isinstance(images, str | Path):
        return [item for entry in images for item in _entry(Path(entry))], []
    path = named(images)
    if path.name == "record.json" and path.is_file():
        return _pictures(path.parent), _steered(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix in TABLES and path.is_file():
        return _table(path), []
    if path.suffix == ".tar" and (shards := tars.shards(path)):
        return [item for shard in shards for item in tars.members(shard, alone=len(shards) == 1)], []
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UserError(f"{path} is compressed, so that no picture in it can be reached directly; unpack it to a .tar.")
    return [_item(file) for file in image.files(path, UNREAD)], []


def left_out(images: object, found: Sequence[Item]) -> dict[str, int]:
    """How many files of a folder have no row, being hidden or no pictures: by suffix, and those that are `hidden`."""
    path, counts = typed(images) if isinstance(images, str | Path) else None, Counter()
    if path is None or not path.is_dir() or (path / "record.json").is_file():
        return {}
    for folder, _, names in os.walk(path):
        away = any(part.startswith(".") for part in Path(folder).relative_to(path).parts)
        counts.update("hidden" if away or name.startswith(".") else _suffix(name) for name in names if name not in BESIDE)
    told = {*image.SUFFIXES, *UNREAD, ".tar"}  # these have rows, or their own errors
    counts.subtract(Counter(_suffix(item.source) for item in found if isinstance(item.source, str)))
    return {kind: count for kind, count in counts.most_common() if count > 0 and kind not in told}


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without a suffix"


def _entry(path: Path) -> list[Item]:
    return tars.members(path, alone=False) if path.suffix == ".tar" else [_item(str(path))]


def _folder(folder: Path) -> tuple[list[Item], list[Lineage]]:
    record = folder / "record.json"
    steered = _steered(record) if record.is_file() else []
    shards = [] if record.is_file() else sorted(folder.glob("*.tar"))
    if shards and not any(file.suffix.lower() in image.SUFFIXES for file in folder.iterdir()):
        return [item for shard in shards for item in tars.members(shard, alone=len(shards) == 1)], steered
    files = _pictures(folder) if record.is_file() else [_item(file) for file in image.files(folder, UNREAD)]
    table = next((folder / f"metadata{suffix}" for suffix in TABLES if (folder / f"metadata{suffix}").is_file()), None)
    if table is None:
        return files, steered
    said: dict[str, list[Item]] = {}
    for item in _table(table):
        said.setdefault(item.source, []).append(item)
    found = [item for file in files for item in said.pop(os.path.normpath(file.source), [file])]
    return found + [item for others in said.values() for item in others], steered


def _pictures(folder: Path) -> list[Item]:
    """A run's pictures: its contact sheets are none."""
    return [_item(file) for file in image.files(folder) if os.path.basename(file) != "sheet.png"]


def _item(path: str, *said) -> Item:
    return Item(path if path.isascii() else printable(Path(path)), path, *said)


def _steered(path: Path) -> list[Lineage]:
    """The lineages of everything that steered or tuned the run, which is all that its record names but the verdict."""
    try:
        lineages = json.loads(path.read_text(encoding="utf-8")).get("lineages") or {}
        fields = Lineage.__dataclass_fields__
        return [Lineage(**{name: str(value) for name, value in said.items() if name in fields})
                for role, said in lineages.items() if role != "verdict"]  # fmt: skip
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"The record {path} cannot be read ({error}), so that nobody knows what steered; move it away to go on.") from None


def _table(path: Path) -> list[Item]:
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else tables.read(path)
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read as a table, for its text is not UTF-8; save it so.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table: {str(error).splitlines()[0].rstrip('.')}.") from None
    names = {str(name).strip().lower(): name for name in frame.columns}
    known = {key: next((names[name] for name in called if name in names), None) for key, called in COLUMNS.items()}
    if known["file"] is None:
        raise UserError(f"{path} has no column that names files; call it file_name.")
    if not len(frame):
        raise UserError(f"{path} names no files.")
    given = frame[known["file"]].dropna()
    if not len(given) or not isinstance(given.iloc[0], str):
        raise UserError(f"{path} has no file names in its column {known['file']}, but the pictures themselves or something else; write "
                        "them out as files, or as a tar, and name those.")
    ratings = rated(names)
    rows = frame.astype(object).where(frame.notna(), "").to_dict("records")
    return [_row(path, f"line {row[tables.LINE]}" if tables.LINE in row else f"row {number}",
                 {key: str(row[name]) for key, name in known.items() if name}, {name: row[names[name]] for name in ratings},
                 row.get(tables.TROUBLE, ""))
            for number, row in enumerate(rows, 1)]  # fmt: skip


def _row(table: Path, place: str, said: dict[str, str], ratings: dict, trouble: str) -> Item:
    file = said.pop("file").strip()
    if not file:
        why = printable(trouble) or "the table names no file in this row"
        return Item(printable(f"{table}, {place}"), "", *told(said, ratings), trouble=why)
    return _item(os.path.normpath(table.parent / file), *told(said, ratings))


def merged(found: Iterable[Item], given: Sequence[Intention]) -> list[Intention | None]:
    """What each was meant to be: as the caller says, and where that is silent, as the table does; None leaves it to the file."""
    both = [said.or_else(item.intention) if item.intention else said for item, said in zip(found, given, strict=True)]
    return [intention if intention != Intention() else None for intention in both]
