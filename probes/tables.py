"""Tables of text, CSV and JSONL, in which a row that is malformed costs itself alone."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

LINE, TROUBLE = "\0line", "\0trouble"  # columns that no table has: where a row begins, counted from 1, and why there is nothing in it


def read(path: Path) -> pd.DataFrame:
    """`read_jsonl` of a `.jsonl`, `read_csv` of any other."""
    return (read_jsonl if path.suffix == ".jsonl" else read_csv)(path)


def read_csv(path: Path) -> pd.DataFrame:
    """Cells as text, separated by what the first line has most of: commas, semicolons (a spreadsheet's in half of Europe) or tabs.

    A row with fewer or more fields than the first has nothing but LINE and TROUBLE; empty fields beyond the last column are no fields.
    ValueError where there is no row at all, or none that is whole; OSError and UnicodeDecodeError as they come.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(file)
    head = next((line for line in lines if line.strip()), "")
    records = _records(lines, max(",;\t", key=head.count))
    _, titles = next(records, (0, []))
    if not titles:
        raise ValueError("it is empty")
    names = [name if name and name not in titles[:k] else f"{name or 'unnamed'} {k + 1}" for k, name in enumerate(titles)]
    rows = []
    for number, fields in records:
        while len(fields) > len(names) and not fields[-1].strip():
            del fields[-1]
        odd = f"line {number} has {len(fields)} {'field' if len(fields) == 1 else 'fields'}, the table {len(names)} columns"
        rows.append({LINE: number} | (dict(zip(names, fields, strict=True)) if len(fields) == len(names) else {TROUBLE: odd}))
    return _framed(rows, names)


def read_jsonl(path: Path) -> pd.DataFrame:
    """An object a line, as it stands: whole numbers stay whole where other lines lack them. A line that is none has LINE and TROUBLE.

    ValueError where no line is an object.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            row = {TROUBLE: f"line {number} is not JSON ({error})"}
        rows.append({LINE: number} | (row if isinstance(row, dict) else {TROUBLE: f"line {number} is no object with names and values"}))
    return _framed(rows, [])


def _framed(rows: list[dict], names: list[str]) -> pd.DataFrame:
    if rows and all(TROUBLE in row for row in rows):
        raise ValueError(rows[0][TROUBLE])
    found = pd.DataFrame(rows, columns=None if rows else names, dtype=object)
    return found.assign(**{TROUBLE: found[TROUBLE].fillna("")}) if TROUBLE in found else found


def _records(lines: Sequence[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number of its first line and fields of each record.

    A field may hold line breaks, but a quote that nothing closes would swallow the rows after it: where a record of several lines does not
    end as the others do, its first line is one by itself, its quotes meaning nothing, and reading goes on with the next.
    """
    at, width = 0, 0
    while at < len(lines):
        reader = csv.reader(map(lines.__getitem__, range(at, len(lines))), delimiter=separator)
        try:
            fields = next(reader)
        except csv.Error:  # a field of more characters than it takes
            fields = []
        after = at + reader.line_num
        if after - at > 1 and not (len(fields) == (width or len(fields)) and _whole(lines[at:after], separator)):
            fields, after = lines[at].rstrip("\r\n").split(separator), at + 1
        if fields:
            width = width or len(fields)
            yield at + 1, fields
        at = after


def _whole(lines: Sequence[str], separator: str) -> bool:
    """Whether all of them are one record, in which quotes open and close fields and nothing else."""
    try:
        return len(list(csv.reader(lines, delimiter=separator, strict=True))) == 1
    except csv.Error:
        return False
