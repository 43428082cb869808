"""What was trained on: how many paintings, by how many artists, in which splits, and what is known of their collections and licence.

Every recipe that reads paintings writes it into `work/data.json`, from which the cards' lines on data are made. What a table cannot tell,
collections and licence, is the text of `sources.md` beside it; without one the cards say "unverified". The paintings of the weights that
ship had no such file beside them: `recipes/shipped.json`, in the same format, holds it, and is known again by the table's fingerprint.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from probes.atomic import write_text
from probes.errors import UserError
from probes.judges import STYLES

SHIPPED = Path(__file__).with_name("shipped.json")
SOURCES = "sources.md"
COLUMNS = ("source", "license", "licence")  # of a table, counted where there is no text
MOST = 8  # values of such a column that a card names
UNVERIFIED = (
    "Which collections the images come from and under which licence is unverified: no `sources.md` lay beside their table. "
    "Whether the weights may be passed on depends on that; the licence of the code does not cover them."
)


def account(table: pd.DataFrame, folder: Path) -> dict:
    """Counts of the table's images by split, its fingerprint, and what `folder` says of its sources (None where it says nothing)."""
    rows = sorted("\t".join(row) for row in zip(table["file_name"], table["split"], table["style"], strict=True))
    named = table[table["artist"] != ""]
    return {
        "images": len(table),
        "fingerprint": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
        "splits": {name: _counts(part) for name, part in table.groupby("split")},
        "artists in several splits": int((named.groupby("artist")["split"].nunique() > 1).sum()),
        "columns": {name: _values(table[name]) for name in COLUMNS if name in table and table[name].notna().any()},
        "sources": _text(folder / SOURCES),
    }


def record(table: pd.DataFrame, folder: Path, work: Path):
    """Keep the account in `work/data.json`; written where it says something else than the file."""
    path, text = work / "data.json", json.dumps(account(table, folder), indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def read(work: Path) -> dict:
    """The account in `work`, with the sources of the shipped weights where it is their table; empty where no recipe wrote one."""
    path = work / "data.json"
    if not path.exists():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    if not data["sources"] and data["fingerprint"] == shipped["fingerprint"]:
        data["sources"] = shipped["sources"]
    return data


def total(data: Mapping, splits: Sequence[str], count: str = "images") -> int:
    return sum(data.get("splits", {}).get(name, {}).get(count, 0) for name in splits)


def last_year(data: Mapping, splits: Sequence[str]) -> int | None:
    """The latest year of a painting; None where none is dated."""
    spans = [data.get("splits", {}).get(name, {}).get("years") for name in splits]
    return max((span[1] for span in spans if span), default=None)


def counted(data: Mapping, splits: Sequence[str], count: str = "images") -> str:
    """The number of images and artists, or "an unverified number of images" where nothing was recorded."""
    if not data:
        return "an unverified number of images"
    images, artists, without = (total(data, splits, name) for name in (count, "artists", "without artist"))
    if len(splits) > 1 and data["artists in several splits"]:
        artists = 0  # some would be counted twice
    by = f" by {artists:,} artist{'s' * (artists != 1)}" if artists else ""
    return f"{images:,} images{by}" + (f" ({without:,} without a named artist)" if without else "")


def apart(data: Mapping) -> str:
    """Whether the splits have artists in common, for a card that speaks of unseen ones."""
    if not data:
        return "whether artists are apart is unverified"
    both = data["artists in several splits"]
    if both:
        return f"{both} artist{'s are' if both > 1 else ' is'} in more than one split"
    return "no artist is in two splits" + ("; images without one may share theirs" if total(data, data["splits"], "without artist") else "")


def section(data: Mapping, learned: str) -> str:
    """The part of a card on data and licence: `learned`, a sentence with the counts, then the sources."""
    told = [data["sources"]] if data.get("sources") else [*_columns(data), UNVERIFIED]
    return f"## Data and licence\n{learned}\n" + "\n".join(told) + "\n"


def _columns(data: Mapping) -> list[str]:
    lines = []
    for name, said in data.get("columns", {}).items():
        more = said["distinct"] - len(said["values"])
        some = ", ".join(f"{value} ({count:,} images)" for value, count in said["values"].items())
        lines.append(f"By the table's column `{name}`, nobody checked it: {some}" + (f" and {more:,} more." if more else "."))
    return lines


def _counts(part: pd.DataFrame) -> dict:
    years = part["year"].dropna()
    return {
        "images": len(part),
        "in the judges' styles": int(part["style"].isin(STYLES).sum()),
        "artists": part["artist"][part["artist"] != ""].nunique(),
        "without artist": int((part["artist"] == "").sum()),
        "styles": part["style"][part["style"] != ""].nunique(),
        "years": [int(years.min()), int(years.max())] if len(years) else None,
    }


def _values(column: pd.Series) -> dict:
    """The most frequent values with their counts, and how many there are: such a column may hold an address for every image."""
    counts = column.dropna().astype(str).str.split().str.join(" ").value_counts()
    return {"values": {name: int(count) for name, count in counts.iloc[:MOST].items()}, "distinct": len(counts)}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): save it as UTF-8, or take it away.") from error
