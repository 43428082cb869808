"""The pictures in a tar of a webdataset: files of one name are one sample, and no tar is unpacked."""

import json
import re
import tarfile
from pathlib import Path, PurePosixPath

from probes.auditing.columns import rated
from probes.auditing.item import COLUMNS, Item, told
from probes.errors import UserError
from probes.image import SUFFIXES
from probes.paths import printable

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
LONGEST = 1_000_000  # bytes of a text beside a picture


def shards(path: Path) -> list[Path]:
    """The tars that a path, a pattern or webdataset's braces mean: `train-{00000..00099}.tar`."""
    if path.is_file():
        return [path]
    if span := BRACES.search(str(path)):
        first, last = span[1], span[2]
        return [Path(str(path)[: span.start()] + f"{k:0{len(first)}d}" + str(path)[span.end() :]) for k in range(int(first), int(last) + 1)]
    return sorted(path.parent.glob(path.name))


def members(path: Path, *, alone: bool = True) -> list[Item]:
    """An item per picture, in the order of the tar, and of one that is cut off an item more that says so.

    Files whose names agree up to the first dot of the base name are one sample: `.txt` is its prompt, the cells of `.json` are those of
    a table. Where nothing can be read of the tar: a UserError if it stands `alone`, else an item with the reason.
    """
    beside: dict[str, dict[str, str]] = {}
    pictures: list[tuple[str, tarfile.TarInfo]] = []
    trouble = ""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                place = PurePosixPath(member.name)
                key, _, suffix = place.name.partition(".")
                key = str(place.with_name(key or place.name))
                if f".{suffix.rpartition('.')[2].lower()}" in SUFFIXES:
                    pictures.append((key, member))
                elif suffix in ("txt", "json") and member.size < LONGEST:
                    text = archive.extractfile(member).read().decode("utf-8", "replace")
                    beside[key] = beside.get(key, {}) | ({"prompt": text.strip()} if suffix == "txt" else _cells(text))
    except (OSError, tarfile.TarError) as error:
        cause = str(getattr(error, "strerror", None) or error).rstrip(".")
        trouble = f"it cannot be read as a tar of pictures{' beyond those before' if pictures else ''} ({cause})"
    if not pictures and alone:
        raise UserError(f"{path}: {trouble}." if trouble else f"{path} holds no pictures.")
    shard = str(path)
    found = [Item(printable(f"{path}/{member.name}"), shard, *_told(beside.get(key, {})), member.offset_data, member.size)
             for key, member in pictures]  # fmt: skip
    if trouble or not found:
        found.append(Item(printable(path), shard, trouble=trouble or "it holds no pictures"))
    return found


def _cells(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    cells = found.items() if isinstance(found, dict) else ()
    return {str(name).lower(): str(value) for name, value in cells if isinstance(value, str | int | float)}


def _told(cells: dict[str, str]) -> tuple:
    said = {key: cells[name] for key, called in COLUMNS.items() for name in reversed(called) if name in cells and key != "file"}
    return told(said, {name: cells[name] for name in rated(cells)})
