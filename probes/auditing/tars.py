"""The pictures in a tar of a webdataset: files of one name are one sample, and no tar is unpacked."""

import json
import tarfile
from pathlib import Path, PurePosixPath

from probes.auditing.columns import rated
from probes.auditing.item import COLUMNS, Item, told
from probes.errors import UserError
from probes.image import SUFFIXES
from probes.paths import printable

LONGEST = 1_000_000  # bytes of a text beside a picture


def members(path: Path) -> list[Item]:
    """An item per picture, in the order of the tar; UserError where it cannot be read or holds none.

    Files whose names agree up to the first dot of the base name are one sample: `.txt` is its prompt, the cells of `.json` are those of
    a table.
    """
    beside: dict[str, dict[str, str]] = {}
    pictures: list[tuple[str, tarfile.TarInfo]] = []
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
        raise UserError(f"{path} cannot be read as a tar of pictures ({str(error).rstrip('.')}).") from None
    if not pictures:
        raise UserError(f"{path} holds no pictures.")
    shard = str(path)
    return [Item(printable(f"{path}/{member.name}"), shard, *_told(beside.get(key, {})), member.offset_data, member.size)
            for key, member in pictures]  # fmt: skip


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
