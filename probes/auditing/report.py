"""What an audit found: a row per image, a summary, and the ways to write and show them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import distributions
from os.path import commonpath, relpath
from pathlib import Path
from typing import ClassVar

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from probes.atomic import replacing, write_text
from probes.auditing import columns, doubt
from probes.paths import complaint, legible
from probes.plain import plain

COLUMNS = columns.COLUMNS
Pictures = Callable[[Sequence[int]], Iterable[tuple[bytes, bytes]]]
ENDS = 5  # best and worst pictures that a terminal names
UNREAD = 10  # files that a terminal names
LEAST = 24  # characters of a name that a terminal shows, however narrow it is
CHUNK = 10_000  # rows that are written at a time
SPARED = ("seed", "year", "content", "off by", "P")  # columns that a narrow terminal goes without; of two of a name the verdict's
Column = tuple[str, bool, list[str]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Report(pd.DataFrame):
    """A DataFrame of `COLUMNS`, and after them people's ratings where a table had some; rows of what could not be read have an `error`.

    Probabilities are in [0, 1], log-odds natural, years in years; `style_probability` and `verdict_style_probability` are of the
    intended styles (summed), or of the top one where none was intended. `made_by_model_reliability`: how far `made_by_model` is to be
    trusted, without which it accuses nobody. `kept`: the verdict's first style is an intended one.
    `rows` is the frame alone; `summary` what it comes to, with `sentences`; `pictures`: numbers of rows -> their thumbnails (JPEG) and
    maps of damage (PNG), where they were kept. `to_html`, `to_csv`, `to_parquet` and `to_json` write to a path, whole or not at all.
    """

    _metadata: ClassVar[list[str]] = ["summary", "pictures"]  # what is no column

    def __init__(self, rows: pd.DataFrame, summary: dict | None = None, pictures: Pictures | None = None):
        super().__init__(rows)
        self.summary, self.pictures = summary or {}, pictures

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        """What is selected or computed from a report is a frame, and no report."""
        return pd.DataFrame

    @property
    def rows(self) -> pd.DataFrame:
        return pd.DataFrame(self)

    def copy(self, deep: bool | None = None) -> "Report":
        return Report(self.rows.copy(deep), self.summary, self.pictures)

    def __bool__(self) -> bool:
        return True

    @classmethod
    def of(cls, rows: Sequence[Mapping], summary: dict, pictures: Pictures | None = None) -> "Report":
        """A report from dicts; missing entries stay empty."""
        return cls.finished(columns.of_rows(rows), summary, pictures)

    @classmethod
    def finished(cls, rows: pd.DataFrame, summary: dict, pictures: Pictures | None = None) -> "Report":
        """A report from a frame of columns.py, whose notes are still apart and which may hold what is only for inside."""
        rows = rows.drop(columns=[name for name in columns.INSIDE if name in rows.columns])
        rows["notes"] = rows["notes"].str.replace(columns.SEPARATOR, "; ", regex=False)
        return cls(rows, summary, pictures)

    def save(self, folder: str | Path) -> list[Path]:
        """Write audit.html, audit.csv, audit.parquet and audit.json into a folder; returns where they are.

        The JSON is one object a run: what was read by what, in which versions, and what it comes to; the rows are in the others.
        """
        paths = [Path(folder) / f"audit.{kind}" for kind in ("html", "csv", "parquet", "json")]
        for path, write in zip(paths, (self.to_html, self.to_csv, self.to_parquet, self._to_json), strict=True):
            write(path)
        return paths

    def _to_json(self, path: Path) -> None:
        found = plain({"kind": "audit", "versions": versions(), **self.summary})
        write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")

    def to_html(self, path: str | Path) -> None:
        """Write one page that holds its own pictures and loads nothing; see probes/auditing/page/gallery.py."""
        from probes.auditing.page.gallery import page

        write_text(path, page(self))

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows as Parquet, with their types."""
        with replacing(path) as temporary:
            self.rows.to_parquet(temporary, index=False)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV; text that a spreadsheet would run as a formula gets an apostrophe in front."""
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            for start in range(0, max(len(self.rows), 1), CHUNK):
                safe = self.rows.iloc[start : start + CHUNK].copy()
                for name in safe.select_dtypes(["object", "string"]):
                    safe[name] = list(map(harmless, safe[name]))
                safe.to_csv(file, index=False, float_format="%.6g", header=start == 0)

    def to_json(self, path: str | Path) -> None:
        """Write {"summary": ..., "rows": [...]}; what is missing is null."""
        found = plain({"summary": self.summary, "rows": self.rows.to_dict("records")})
        write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")

    def table(self, limit: int = 40, width: int = 0) -> Group:
        """The rows for a terminal, at most `limit`, columns that are empty throughout left out; below it what they come to.

        `width`: characters of a line, 0 for any number: of a table that is wider the least telling columns are left out.
        """
        shown = self.rows.head(limit)
        read = shown[shown["error"] == ""].to_dict("records")
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        columns = _fitting([column for column in _cells(read) if any(column[2])], width)
        for title, text, _ in columns:  # names are whole or have an ellipsis inside: what is folded is no name that anybody could copy
            name = title == "image"
            table.add_column(title, justify="left" if text else "right", overflow="ellipsis" if name else "fold", no_wrap=name or not text)
        for row in zip(*(cells for _, _, cells in columns), strict=True):
            table.add_row(*(Text(cell) for cell in row))
        first = "The first" if len(read) == len(shown) else "What could be read of the first"
        lines = [f"{first} {len(shown)} of {len(self.rows)} images; the CSV has all."] if len(shown) < len(self.rows) else []
        unread = self.rows[self.rows["error"] != ""]
        lines += [f"Not read: {complaint(*row)}" for row in unread.head(UNREAD)[["image", "error"]].itertuples(index=False)]
        lines += [f"Not read: {len(unread) - UNREAD} more, with their reasons in the CSV."] if len(unread) > UNREAD else []
        if len(self.rows) > len(shown):
            ends = self.summary.get("ends") or {}
            lines += [f"{end.capitalize()} within {'their styles' if _several(ends) else 'the style'}: {_named(ends, end)}."
                      for end in ("best", "worst") if ends.get(end)]  # fmt: skip
        return Group(*([self._title(), table] if read else []), Text("\n".join([*lines, *self.summary.get("sentences", [])])))

    def _title(self) -> Text:
        targets = [target for target in dict.fromkeys(self.rows["style_target"]) if target]
        asked = targets[0] if len(targets) == 1 else "the intended style, or of the one read"
        return Text(f"Read by the encoder, then by the verdict. P: probability of {asked}", "bold")


def harmless(cell: object) -> object:
    """A cell with an apostrophe in front where a spreadsheet would run it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(FORMULA) else cell


def versions() -> dict[str, str]:
    """Of the packages that a reading depends on."""
    names = ("clip-guided-generation", "torch", "open_clip_torch", "pillow", "numpy", "pandas")
    return {found.name: found.version for name in names for found in distributions(name=name)}


def _cells(rows: list[dict]) -> list[Column]:
    """Columns for a terminal: title, whether it is text that may wrap, cells."""
    folder = commonpath([str(Path(row["image"]).parent) for row in rows]) if rows else ""
    return [
        ("image", True, [legible(row["image"] if folder in ("", ".") else relpath(row["image"], folder)) for row in rows]),
        ("seed", False, [_number(row["seed"], "d") for row in rows]),
        ("variant", True, [legible(row["variant"]) for row in rows]),
        ("holds", False, [f"no: {why}" if (why := doubt.of_reading(row)) else "" for row in rows]),
        ("reads as", True, [row["style_top"] for row in rows]),
        ("P", False, [_number(row["style_probability"], ".2f") for row in rows]),
        ("year", False, [_number(row["year"], ".0f") for row in rows]),
        ("off by", False, [_number(row["year_error"], ".0f") for row in rows]),
        ("content", False, [_number(row["content"], ".2f") for row in rows]),
        ("verdict", True, [row["verdict_style"] for row in rows]),
        ("P", False, [_number(row["verdict_style_probability"], ".2f") for row in rows]),
        ("year", False, [_number(row["verdict_year"], ".0f") for row in rows]),
        ("kept", False, [{True: "yes", False: "no"}[bool(row["kept"])] if _known(row["kept"]) else "" for row in rows]),
    ]


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """Those that fit a line, without as many of SPARED as have to go, the first of them first."""
    def wide(column: Column) -> int:
        return max(map(len, (column[0], *column[2]))) + 2  # with its padding and the line between

    if not width or not columns:
        return columns
    title, text, names = columns[0]
    columns = [(title, text, [_middle(name, LEAST) for name in names]), *columns[1:]]
    for title in SPARED:
        if sum(map(wide, columns)) > width:
            last = max((k for k, column in enumerate(columns) if column[0] == title), default=len(columns))
            columns = columns[:last] + columns[last + 1 :]
    room = max(LEAST, width - sum(map(wide, columns[1:])) - 3)
    return [(*columns[0][:2], [_middle(name, room) for name in names]), *columns[1:]]


def _middle(name: str, most: int) -> str:
    """A name of at most `most` characters, shortened inside: its beginning and its end tell it from others."""
    kept = most - 1
    return name if len(name) <= most else f"{name[: kept // 2]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - (kept - kept // 2) :]}"


def _several(ends: dict) -> bool:
    return len({*ends.get("best_styles", ()), *ends.get("worst_styles", ())}) > 1


def _named(ends: dict, end: str) -> str:
    """The first few pictures of an end, with the style of each where there are several."""
    names = list(map(legible, ends[end][:ENDS]))
    styles = ends[f"{end}_styles"] if _several(ends) else []
    return ", ".join([f"{name} ({style})" for name, style in zip(names, styles, strict=False)] or names)


def _known(value: object) -> bool:
    return value is not None and value is not pd.NA and not (isinstance(value, float) and math.isnan(value))


def _number(value: object, form: str) -> str:
    return format(int(value) if form == "d" else value, form) if _known(value) else ""
