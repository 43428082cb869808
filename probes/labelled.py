"""Labelled pictures or features, from what people have: a folder with a subfolder per label, a table of files, a table of features."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from probes import image, tables, years
from probes.config import nearest, offer
from probes.errors import UserError
from probes.paths import digest, typed

TABLES = ("metadata.csv", "metadata.jsonl")  # as in the imagefolder convention of Hugging Face's datasets
GROUPS = ("artist", "prompt")  # taken as groups, the first that is there, where none is named
SUBFOLDER = "folder"
FILES = "files of pictures (features are read from .parquet and .npz)"
EMPTY = ("", "nan", "none", "null", "<na>")


@dataclass(frozen=True, eq=False)
class Labelled:
    """n rows: `names` to call them by, `labels` and `groups` `(n,)`, all text, and `files` or `features` `(n, d)` in fp32, L2-normalised.

    `group` is the column that groups come from, empty where each row is a group of its own; `notes` say what was left out and why.
    """

    names: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    files: tuple[Path, ...] = ()
    features: np.ndarray | None = None
    label: str = SUBFOLDER
    group: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, the most frequent first."""
        return tuple(name for name, _ in sorted(Counter(self.labels.tolist()).items(), key=lambda item: (-item[1], item[0])))

    def take(self, rows: np.ndarray, *notes: str) -> Labelled:
        """The rows that a mask `(n,)` or numbers choose, with more notes."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        chosen = {name: getattr(self, name)[rows] for name in ("names", "labels", "groups")}
        features = None if self.features is None else self.features[rows]
        files = tuple(self.files[row] for row in rows) if self.files else ()
        return replace(self, **chosen, features=features, files=files, notes=(*self.notes, *notes))

    def seen(self, features: np.ndarray, rows: np.ndarray, *notes: str) -> Labelled:
        """The rows whose pictures could be read, with their embeddings `(m, d)`."""
        return replace(self.take(rows, *notes), features=features)

    def several(self, least: int = 2) -> Labelled:
        """Without labels that have fewer than `least` rows; UserError unless two labels or more are left."""
        counts = Counter(self.labels.tolist())
        few = sorted(name for name, count in counts.items() if count < least)
        kept = self.take(~np.isin(self.labels, few), *([f"left out, fewer than {least} examples: {_some(few)}"] if few else []))
        if len(kept.classes) > 1:
            return kept
        if len(counts) == 1:
            raise UserError(f"all {len(self)} rows have one label, {self.classes[0]}; a head tells labels apart and needs at least two.")
        there = _some([f"{name} {count}" for name, count in counts.most_common()])
        raise UserError(f"fewer than two labels have {least} examples or more (there are {there}); label more, or lower --least.")

    def years(self) -> np.ndarray:
        """The labels as years `(n,)`, see `years.year`; NaN where there is none."""
        return np.array([years.year(label) for label in self.labels])

    def dated(self) -> Labelled:
        """The rows whose labels are years, the others named in a note; UserError where there is none."""
        known = ~np.isnan(self.years())
        if not known.any():
            raise UserError(f"the labels {', '.join(self.classes[:3])} are no years; one is a number from {years.FIRST} to {years.LAST}, a "
                            "span of two (1450-55), or text with one in it (about 1650).")
        left = [f"{name} ({label})" for name, label in zip(self.names[~known], self.labels[~known], strict=True)]
        return self.take(known, f"left out, no year from {years.FIRST} to {years.LAST}: {_some(left)}") if left else self


def read(source: Path | str, label: str = "", *, group: str = "", column: str = "", where: Iterable[str] = ()) -> Labelled:
    """What a folder, `.csv`, `.jsonl`, `.parquet` or `.npz` holds, with the column `label` for labels and `group` for groups.

    A folder has `metadata.csv` or `metadata.jsonl` with a column `file_name`, or a subfolder for each label. `column` names the features
    of a parquet or npz where it has several; `where` keeps rows, as `split=test`. Rows without label, picture or finite features are left
    out and noted, as are pictures under several labels; a picture that is there twice, by its path or as a copy, counts once.
    UserError where nothing is left.
    """
    path = typed(source)
    table = next((path / name for name in TABLES if (path / name).is_file()), None) if path.is_dir() else path
    if table is None:
        if where:
            raise UserError(f"{source} has no {' or '.join(TABLES)}, so --where {next(iter(where))} chooses nothing; leave it out.")
        return _subfolders(path, label, group)
    if not table.is_file():
        raise UserError(f"there is no folder or table {source}.")
    frame, features = _open(table, column)
    odd = frame.pop(tables.TROUBLE) if tables.TROUBLE in frame else pd.Series("", frame.index)
    frame, broken = frame[odd == ""].reset_index(drop=True), [said for said in odd if said]
    rows = _where(frame, where)
    frame, features = frame.iloc[rows].reset_index(drop=True), None if features is None else features[rows]
    label = _column(frame, label or "label", "label", table)
    group = _column(frame, group, "group", table) if group else next((name for name in GROUPS if name in frame and name != label), "")
    labels = _text(frame[label])
    if features is None:
        names = _text(frame[_column(frame, "file_name", FILES, table)])
        files = tuple(table.parent / name for name in names)
    else:
        names = next((_text(frame[name]) for name in ("file_name", "title") if name in frame), np.array([f"row {k}" for k in frame.index]))
        files = ()
    groups, notes = _groups(_text(frame[group]) if group else None, len(frame), group)
    notes += (f"left out, malformed: {_some(broken)}",) if broken else ()
    return _whole(Labelled(names, labels, groups, files, features, label, group, notes), source)


def _subfolders(folder: Path, label: str, group: str) -> Labelled:
    if group:
        raise UserError(f"{folder} has no {' or '.join(TABLES)}, so no column {group!r}; write one with file_name, label and {group}.")
    files = image.find(folder)
    inside = [file for file in files if len(file.relative_to(folder).parts) > 1]
    if not inside:
        raise UserError(f"nothing labels the pictures in {folder}; sort them into a subfolder for each label, or add a metadata.csv with "
                        "the columns file_name and label.")
    names = np.array([file.relative_to(folder).as_posix() for file in inside])
    labels = np.array([name.split("/", 1)[0] for name in names])
    groups, notes = _groups(None, len(inside), "")
    loose = len(files) - len(inside)
    notes += (f"left out, in no subfolder: {loose} pictures",) if loose else ()
    return Labelled(names, labels, groups, tuple(inside), label=label or SUBFOLDER, notes=notes)


def _open(table: Path, column: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The table, and the features in it or None."""
    try:
        if table.suffix in (".csv", ".jsonl"):
            return tables.read(table).drop(columns=tables.LINE, errors="ignore"), None
        if table.suffix == ".parquet":
            return _vectors(pd.read_parquet(table), column, table)
        if table.suffix == ".npz":
            return _arrays(table, column)
    except ImportError:
        raise UserError(f"{table} needs pyarrow to be read; pip install pyarrow, or save the table as npz.") from None
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise UserError(f"{table} cannot be read as a table: {str(error).splitlines()[0]}.") from None
    raise UserError(f"{table} is no table of labels; give a folder, or a .csv, .jsonl, .parquet or .npz.")


def _vectors(frame: pd.DataFrame, column: str, table: Path) -> tuple[pd.DataFrame, np.ndarray]:
    vectors = [name for name in frame if len(frame) and isinstance(frame[name].iloc[0], np.ndarray | list)]
    column = _chosen(vectors, column, table)
    rows = [np.atleast_1d(np.asarray([] if value is None else value, np.float32)) for value in frame[column]]
    widths = Counter(map(len, rows))
    if len(widths) > 1:
        usual = widths.most_common(1)[0][0]
        odd = next(k for k, row in enumerate(rows) if len(row) != usual)
        raise UserError(f"the features in {table} differ in width: row {odd} has {len(rows[odd])} values, most have {usual}; "
                        "they come from two encoders, or a row is broken.")
    return frame.drop(columns=vectors), np.stack(rows)


def _arrays(table: Path, column: str) -> tuple[pd.DataFrame, np.ndarray]:
    with np.load(table, allow_pickle=False) as found:
        arrays = {}
        for name in found.files:
            try:
                arrays[name] = found[name]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                raise UserError(f"{table} holds Python objects under {name!r}, which are not read, since that could run code; save them as "
                                f"text or numbers: {name}.astype(str).") from None
    wide = [name for name, value in arrays.items() if value.ndim == 2 and value.dtype.kind == "f"]
    features = arrays[_chosen(wide, column, table)].astype(np.float32)
    beside = {name: value for name, value in arrays.items() if value.ndim == 1}
    short = next((name for name, value in beside.items() if len(value) != len(features)), None)
    if short:
        raise UserError(f"{table} has {len(features)} rows of features and {len(beside[short])} of {short}; each row needs one.")
    return pd.DataFrame(beside), features


def _chosen(there: list[str], column: str, table: Path) -> str:
    if not there:
        raise UserError(f"{table} holds no features: no column of vectors of one width.")
    if column and column not in there:
        raise UserError(f"{table} has no features {column!r}{offer(there, complete=True)}.")
    if not column and len(there) > 1:
        raise UserError(f"{table} has several columns of features; name one with --column{offer(there, complete=True)}.")
    return column or there[0]


def _where(frame: pd.DataFrame, where: Iterable[str]) -> np.ndarray:
    kept = np.ones(len(frame), bool)
    for condition in where:
        column, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"--where {condition} does not say column=value{offer(list(map(str, frame)), complete=True)}.")
        if column not in frame:
            raise UserError(f"--where {condition}: there is no column {column!r}{offer(list(map(str, frame)), complete=True)}.")
        kept &= _text(frame[column]) == value
    if where and not kept.any():
        raise UserError(f"no row has {' and '.join(where)}.")
    return kept


def _column(frame: pd.DataFrame, name: str, what: str, table: Path) -> str:
    if name in frame:
        return name
    close = nearest(name, map(str, frame), 1)
    raise UserError(f"{table} has no column {name!r} for the {what}{offer(close or list(map(str, frame)), complete=not close)}.")


def _text(column: pd.Series) -> np.ndarray:
    """Cells as text, empty where there is nothing."""
    cells = ["" if value is None else str(value).strip() for value in column]
    return np.array(["" if cell.lower() in EMPTY else cell for cell in cells], dtype=str)


def _groups(groups: np.ndarray | None, count: int, group: str) -> tuple[np.ndarray, tuple[str, ...]]:
    alone = np.array([f"row {k}" for k in range(count)])
    if groups is None:
        return alone, ("no column keeps the works of one artist together: figures on unseen pictures are too good; name one with --group",)
    unnamed = groups == ""
    said = (f"without {group}, each taken as a group of its own: {unnamed.sum()} rows",) if unnamed.any() else ()
    return np.where(unnamed, alone, groups), said


def _whole(found: Labelled, source: Path | str) -> Labelled:
    """Without rows that lack label, file or finite features."""
    labelled = found.labels != ""
    if not labelled.any():
        raise UserError(f"no row of {source} has a {found.label}; nothing is labelled.")
    if not labelled.all():
        found = found.take(labelled, f"left out, without {found.label}: {(~labelled).sum()} rows")
    if found.features is None:
        there = np.array([file.is_file() for file in found.files])
        if not there.any():
            raise UserError(f"none of the {len(found)} files that {source} names is there; the first is {found.files[0]}.")
        found = found if there.all() else found.take(there, f"left out, no such file: {_some(found.names[~there].tolist())}")
        return _once(found, source)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = found.features / np.linalg.norm(found.features.astype(np.float64), axis=1, keepdims=True)
    finite = np.isfinite(unit).all(1)
    if not finite.any():
        raise UserError(f"all features of {source} are NaN, infinite or zero; embed the pictures again.")
    found = replace(found, features=unit.astype(np.float32))
    broken = _some(found.names[~finite].tolist())
    return found.take(finite, f"left out, features NaN, infinite or zero: {broken}") if broken else found


def _once(found: Labelled, source: Path | str) -> Labelled:
    """Each picture once, by what its file holds; without those that stand under several labels."""
    rows: dict[str, list[int]] = {}
    for row, picture in enumerate(_contents(found.files)):
        rows.setdefault(picture, []).append(row)
    labels = {picture: sorted(set(found.labels[same].tolist())) for picture, same in rows.items()}
    odd = [f"{found.names[same[0]]} ({', '.join(labels[picture])})" for picture, same in rows.items() if len(labels[picture]) > 1]
    kept = [same[0] for picture, same in rows.items() if len(labels[picture]) == 1]
    if not kept:
        raise UserError(f"every picture of {source} stands under several labels, such as {odd[0]}; give each picture one.")
    again = sum(len(same) - 1 for picture, same in rows.items() if len(labels[picture]) == 1)
    notes = [f"left out, {len(odd)} pictures that stand under several labels: {_some(odd)}"] if odd else []
    notes += [f"counted once, rows of a picture that is there already: {again}"] if again else []
    return found.take(np.array(kept), *notes) if notes else found


def _contents(files: Iterable[Path]) -> list[str]:
    """What tells files of other contents apart: the size, and the hash where another has the same size."""
    paths = [str(file.resolve()) for file in files]
    sizes = {path: os.path.getsize(path) for path in dict.fromkeys(paths)}
    shared = Counter(sizes.values())

    @cache
    def told(path: str) -> str:
        if shared[sizes[path]] == 1:
            return path
        try:
            return digest(path)
        except OSError:  # whoever embeds it says why it cannot be read
            return path
    return [told(path) for path in paths]


def _some(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
