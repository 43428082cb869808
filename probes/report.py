"""What an audit found: a row per image, a summary, and the ways to write and show them."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from probes.atomic import replacing, write_text
from probes.plain import plain

COLUMNS = (
    "image", "seed", "variant", "style_target", "style_probability", "style_top", "style_log_odds", "year", "year_low", "year_high",
    "year_error", "content", "verdict_style", "verdict_style_probability", "verdict_log_odds", "verdict_year", "verdict_severity", "kept",
    "reason", "error",
)  # fmt: skip
TEXT = {"image", "variant", "style_target", "style_top", "verdict_style", "reason", "error"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Report:
    """`rows` has `COLUMNS`; rows of images that could not be read have an `error` and nothing else.

    Probabilities are in [0, 1], log-odds natural, years in years; `style_probability` and `verdict_style_probability` are of the
    intended styles (summed), or of the top one where none was intended. `kept`: the verdict's first style is an intended one.
    """

    rows: pd.DataFrame
    summary: dict = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[dict], summary: dict) -> "Report":
        """A report from dicts; missing entries stay empty."""
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        for name in COLUMNS:
            if name in TEXT:
                frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
            else:
                frame[name] = frame[name].astype({"seed": "Int64", "kept": "boolean"}.get(name, "float64"))
        return cls(frame, summary)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV; text that a spreadsheet would run as a formula gets an apostrophe in front."""
        safe = self.rows.copy()
        for name in safe.select_dtypes(["object", "string"]):
            safe[name] = [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in safe[name]]
        with replacing(path) as temporary:
            safe.to_csv(temporary, index=False, float_format="%.6g")

    def to_json(self, path: str | Path) -> None:
        """Write {"summary": ..., "rows": [...]}; what is missing is null."""
        found = plain({"summary": self.summary, "rows": self.rows.to_dict("records")})
        write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")

    def table(self, limit: int = 40) -> Table:
        """The rows for a terminal, at most `limit`; columns that are empty throughout are left out."""
        shown = self.rows.head(limit)
        table = Table(caption=self._caption(len(shown)), caption_justify="left", header_style="bold")
        columns = [(title, cells) for title, cells in self._cells(shown) if any(cells)]
        for title, _ in columns:
            text = title in ("image", "variant", "reads as", "verdict", "reason")
            table.add_column(title, justify="left" if text else "right", overflow="fold", no_wrap=not text)
        for row in zip(*(cells for _, cells in columns), strict=True):
            table.add_row(*(Text(cell) for cell in row))
        return table

    def _cells(self, rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
        targets = {target for target in rows["style_target"] if target}
        named = f"P({targets.pop()})" if len(targets) == 1 else "P(style)"
        records = rows.to_dict("records")

        def year(row: dict) -> str:
            span = f" ({row['year_low']:.0f}-{row['year_high']:.0f})" if _known(row["year_low"]) else ""
            return f"{row['year']:.0f}{span}" if _known(row["year"]) else ""

        return [
            ("image", [_printable(row["image"]) for row in records]),
            ("seed", [_number(row["seed"], "d") for row in records]),
            ("variant", [_printable(row["variant"]) for row in records]),
            (named, [_number(row["style_probability"], ".2f") for row in records]),
            ("reads as", [row["style_top"] for row in records]),
            ("year (10-90 %)", [year(row) for row in records]),
            ("off by", [_number(row["year_error"], ".0f") for row in records]),
            ("content", [_number(row["content"], ".2f") for row in records]),
            ("verdict", [row["verdict_style"] for row in records]),
            ("verdict P", [_number(row["verdict_style_probability"], ".2f") for row in records]),
            ("verdict year", [_number(row["verdict_year"], ".0f") for row in records]),
            ("kept", [{True: "yes", False: "no"}.get(row["kept"], "") if _known(row["kept"]) else "" for row in records]),
            ("not read because", [_printable(row["error"]) for row in records]),
        ]

    def _caption(self, shown: int) -> Text:
        lines = [f"The first {shown} of {len(self.rows)} images; the CSV has all."] if shown < len(self.rows) else []
        return Text("\n".join([*lines, *self.summary.get("sentences", [])]))


def _known(value: object) -> bool:
    return value is not None and value is not pd.NA and not (isinstance(value, float) and math.isnan(value))


def _number(value: object, form: str) -> str:
    return format(int(value) if form == "d" else value, form) if _known(value) else ""


def _printable(text: str) -> str:
    """Text without characters that would move a terminal's cursor or break its lines."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))
