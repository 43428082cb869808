"""Rows of an audit on disk, in parts that are whole or absent: what was read once is not read again, and nothing counts twice."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from probes.atomic import replacing
from probes.errors import UserError
from probes.plain import plain


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one picture: its `row` as JSON holds it, a `thumbnail` and a `map` of damage as image bytes, float16 `features`."""

    key: str
    row: dict
    thumbnail: bytes = b""
    map: bytes = b""
    features: bytes = b""


class Ledger:
    """Entries by key, appended in parts of some hundred: in memory, or as Parquet files in a folder.

    A key is a hash of a picture's name, its bytes, what it was meant to be, and everything that reads it; so an entry is found again
    only where all of these are the same. Processes that share a folder write parts of different names, and see each other's after
    `refresh`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder, self.kept, self.known = folder, {}, {}
        if folder:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"Cannot write into {folder}: {error.strerror}; choose another folder with --out.") from None
            self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def refresh(self) -> None:
        """Take in the parts that lie in the folder; one that cannot be read counts as absent."""
        seen = set(self.known.values())
        for path in sorted(self.folder.glob("part-*.parquet")) if self.folder else ():
            if path.name not in seen:
                try:
                    keys = pd.read_parquet(path, columns=["key"])["key"]
                except (OSError, ValueError, KeyError):
                    continue
                self.known |= dict.fromkeys(keys, path.name)

    def append(self, name: str, entries: list[Entry]) -> None:
        """Add entries; `name` is the part's, and has to differ between processes."""
        if self.folder is None:
            self.kept |= {entry.key: entry for entry in entries}
            self.known |= dict.fromkeys((entry.key for entry in entries), "")
            return
        path = self.folder / f"part-{name}.parquet"
        columns = {field: [getattr(entry, field) for entry in entries] for field in ("key", "thumbnail", "map", "features")}
        # Rows as JSON: a column of seeds would turn to floats where one is missing.
        rows = [json.dumps(plain(entry.row), ensure_ascii=False) for entry in entries]
        with replacing(path) as temporary:
            pd.DataFrame(columns | {"row": rows}).to_parquet(temporary, index=False)
        self.known |= dict.fromkeys((entry.key for entry in entries), path.name)

    def entries(self, keys: Iterable[str]) -> Iterator[Entry]:
        """The entries of these keys, in this order; one part is in memory at a time."""
        part, held = None, {}
        for key in keys:
            if self.folder is None:
                yield self.kept[key]
                continue
            if self.known[key] != part:
                part = self.known[key]
                rows = pd.read_parquet(self.folder / part).to_dict("records")
                held = {row["key"]: row for row in rows}
            yield Entry(**held[key] | {"row": json.loads(held[key]["row"])})
