"""What an audit has read, in parts that are whole or absent: what was read once is not read again, and nothing counts twice."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probes.atomic import replacing
from probes.auditing import columns
from probes.errors import UserError
from probes.plain import plain
from probes.probe import NOT_VALIDATED

PICTURES = {"thumbnail": pa.binary(), "map": pa.binary(), "features": pa.binary()}
SCHEMA = pa.schema([("key", pa.binary(16)), *PICTURES.items(), *columns.STORED])


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one picture: its `row`, a `thumbnail` and a `map` of damage as image bytes, float16 `features` of the judge."""

    key: bytes
    row: dict
    thumbnail: bytes = b""
    map: bytes = b""
    features: bytes = b""


class Ledger:
    """Entries by key, appended in parts of some hundred: columns in memory, or Parquet files in a folder.

    A key is a hash of a picture's name, its bytes, what it was meant to be, and everything that reads it; so an entry is found again
    only where all of these are the same. Processes that share a folder write parts of different names; a ledger made later sees both.
    """

    def __init__(self, folder: Path | None = None):
        self.folder, self.parts, self.known = folder, [], {}
        if folder:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"Cannot write into {folder}: {error.strerror}; choose another folder with --out.") from None
            for path in sorted(folder.glob("part-*.parquet")):
                self._found(path)

    def __contains__(self, key: bytes) -> bool:
        return key in self.known

    def _found(self, path: Path) -> None:
        """Take in a part; one that cannot be read, or has other columns, counts as absent."""
        try:
            with pq.ParquetFile(path) as file:
                if file.schema_arrow.equals(SCHEMA):
                    self._add(path, file.read(["key"])["key"].to_pylist())
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return

    def _add(self, part: Path | pa.Table, keys: Sequence[bytes]) -> None:
        number = len(self.parts)
        self.parts.append(part)
        self.known |= {key: (number << 20) + place for place, key in enumerate(keys)}

    def append(self, name: str, entries: list[Entry]) -> None:
        """Add entries; `name` is the part's, and has to differ between processes."""
        told = [{**entry.row, "notes": columns.joined(entry.row.get("notes") or ())} for entry in entries]
        for row in told:
            given = {cell: row[cell] for cell in columns.rated(row)}
            row["ratings"] = json.dumps(plain(given), ensure_ascii=False) if given else None
        keys = [entry.key for entry in entries]
        pictures = [pa.array([getattr(entry, name) for entry in entries], kind) for name, kind in PICTURES.items()]
        part = pa.Table.from_arrays([pa.array(keys, pa.binary(16)), *pictures, *columns.table(told).columns], schema=SCHEMA)
        if self.folder is None:
            self._add(part, keys)
            return
        path = self.folder / f"part-{name}.parquet"
        with replacing(path) as temporary:
            pq.write_table(part, temporary, compression="zstd")
        self._add(path, keys)

    def frame(self, keys: Iterable[bytes]) -> pd.DataFrame:
        """The rows of these keys in this order, as columns, without pictures and features; ratings have their columns."""
        names = [name for name in columns.STORED.names if name not in ("trust", "steered")]
        found = list(self._slices(keys, names))
        made = columns.frame(pa.concat_tables(found) if found else columns.STORED.empty_table().select(names))
        del found
        pa.default_memory_pool().release_unused()
        ratings = made.pop("ratings")
        given = {place: json.loads(text) for place, text in enumerate(ratings) if isinstance(text, str)}
        for name in dict.fromkeys(name for cells in given.values() for name in cells):
            made[name] = pd.Series([given.get(place, {}).get(name) for place in range(len(made))], dtype=object, index=made.index)
        return made

    def trust(self, keys: Iterable[bytes]) -> dict[str, str]:
        """By reading, how far what was asked of these keys is to be trusted."""
        said = {text: None for part in self._slices(keys, ["trust"]) for text in part["trust"].unique().to_pylist() if text}
        found: dict[str, dict[str, None]] = {}
        for text in said:
            for name, sentence in json.loads(text).items():
                found.setdefault(name, {})[sentence] = None
        return {name: "; of some pictures: ".join(sorted(sentences, key=lambda one: one.startswith(NOT_VALIDATED)))
                for name, sentences in found.items()}  # fmt: skip

    def steered(self, keys: Iterable[bytes]) -> list[str]:
        """The encoders that the files of these keys name as what steered them."""
        named = (source for part in self._slices(keys, ["steered"]) for source in part["steered"].unique().to_pylist())
        return list(dict.fromkeys(filter(None, named)))

    def pictures(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Thumbnail and map of each key; one part is in memory at a time."""
        for part in self._slices(keys, ["thumbnail", "map"]):
            yield from zip(part["thumbnail"].to_pylist(), part["map"].to_pylist(), strict=True)

    def features(self, keys: Iterable[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of keys and their features (n, d), in order, for those that have some; one part is in memory at a time."""
        start = 0
        for part in self._slices(keys, ["features"]):
            held = part["features"].to_pylist()
            at = [place for place, data in enumerate(held) if data]
            if at:
                yield np.array(at) + start, np.stack([np.frombuffer(held[place], np.float16) for place in at]).astype(np.float32)
            start += len(held)

    def _slices(self, keys: Iterable[bytes], names: list[str]) -> Iterator[pa.Table]:
        """The named columns of these keys, in order: a table for each run of keys that lie in one part."""
        for number, run in groupby((self.known[key] for key in keys), lambda place: place >> 20):
            part = self.parts[number]
            held = pq.read_table(part, columns=names, partitioning=None) if isinstance(part, Path) else part.select(names)
            yield held.take(pa.array([place & (1 << 20) - 1 for place in run]))
