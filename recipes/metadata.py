"""The table of a folder of images, by the convention of Hugging Face's `imagefolder`, and its division into guide, judge and test.

`metadata.csv`, `.jsonl` or `.parquet` lies in the folder or in subfolders of it (`train`, `validation`, `test`); its column `file_name`
holds paths relative to where it lies. Other columns: `style` (or `label`), `genre`, `year`, `artist`, `title`, `split`; capitals do not
matter. Without a column for style, or without any table, the folder that an image lies in names its style.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from probes import years
from probes.errors import UserError
from probes.judges import STYLES
from recipes.captions import GENRES

READERS = {".csv": pd.read_csv, ".jsonl": lambda path: pd.DataFrame(map(json.loads, filter(str.strip, path.open(encoding="utf-8")))),
           ".parquet": pd.read_parquet}  # fmt: skip
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
SHARES = {"guide": 0.6, "judge": 0.27, "test": 0.13}
# The names of splits elsewhere; what is missing of the three is taken from the guide's images.
SPLITS = {name: name for name in SHARES} | {"train": "guide", "training": "guide", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "judge")
MOST = 12  # unknown styles or genres that a sentence names
TEXTS = ("style", "genre", "artist", "title")


def read(folder: Path) -> pd.DataFrame:
    """One row per image: `file_name` (path from `folder`), `split` (guide, judge, test), `style`, `genre`, `artist`, `title` ("" where
    unknown), `year` (NaN where unknown, the middle of a span), `unread_year` (what stands there instead of a year, or ""), and the
    table's other columns. UserError names what is missing."""
    folder = Path(folder)
    parts = [_table(path, folder) for path in _tables(folder)] or [_listing(folder)]
    table = pd.concat(parts, ignore_index=True)
    twice = table["file_name"][table["file_name"].duplicated()]
    if len(twice):
        raise UserError(f"{len(twice)} file names stand twice in the metadata of {folder}, the first is {twice.iloc[0]}: keep one row.")
    if "style" not in table:
        table["style"] = table["label"] if "label" in table else table["file_name"].map(_class)
        if not table["style"].astype(bool).any():
            raise UserError(f"{folder} tells no styles: add a column style (or label) to its metadata, or use folders named after them.")
    for name in TEXTS:
        values = table[name] if name in table else pd.Series("", table.index)
        table[name] = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    for name in ("style", "genre"):
        table[name] = table[name].str.lower().str.replace(r"[\s_]+", "-", regex=True)
    written = table["year"] if "year" in table else pd.Series(np.nan, table.index)
    table["year"] = written.map(years.year)
    table["unread_year"] = written.where(written.notna() & table["year"].isna(), "").astype(str).str.strip()
    table["split"] = divided(table)
    return table


def divided(table: pd.DataFrame) -> pd.Series:
    """The splits by this project's names; those that the table does not name are taken from the guide's images, an artist as a whole.

    Deterministic, whatever the order of the rows: style by style, the most collected artists first, each to the split that lacks most.
    An image without an artist stands for itself.
    """
    known = table["split"] if "split" in table else pd.Series("guide", table.index)
    known = known.astype(object).where(known.notna(), "guide").astype(str).str.lower()
    strange = sorted(set(known) - set(SPLITS))
    if strange:
        raise UserError(f"The metadata has a split {strange[0]!r}: use guide, judge and test, or train, validation and test.")
    split = known.map(SPLITS)
    missing = [name for name in SHARES if name not in set(split)]
    if not missing:
        return split
    open_to = ["guide", *missing] if "guide" not in missing else missing
    rows = table.index[split == "guide"] if "guide" not in missing else table.index
    if "guide" in missing and len(missing) < len(SHARES):
        raise UserError("The metadata has no images of split guide (or train): nothing could steer.")
    shares = np.array([SHARES[name] for name in open_to])
    shares = shares / shares.sum()
    groups = table["artist"].where(table["artist"] != "", "\0" + table["file_name"])[rows]
    facts = pd.DataFrame({"style": table["style"][rows].groupby(groups).agg(lambda s: s.mode().iloc[0]), "count": groups.value_counts()})
    facts["order"] = [hashlib.sha256(str(name).encode()).hexdigest() for name in facts.index]
    where = {}
    for _, artists in facts.sort_values(["style", "count", "order"], ascending=[True, False, True]).groupby("style", sort=True):
        lack = shares * artists["count"].sum()
        for name, count in artists["count"].items():
            chosen = int(lack.argmax())
            lack[chosen] -= count
            where[name] = open_to[chosen]
    split.loc[rows] = groups.map(where)
    return split


def shared_artists(table: pd.DataFrame) -> list[str]:
    """Artists in more than one split: figures on unseen artists would not be that."""
    named = table[table["artist"] != ""]
    counts = named.groupby("artist")["split"].nunique()
    return sorted(counts.index[counts > 1])


def unknown(table: pd.DataFrame) -> Iterator[str]:
    """A sentence each on images without a style, years that are none, styles that judges and heads do not know, and genres that go into no
    caption."""
    without = int((table["style"] == "").sum())
    if without:
        yield f"{without} of {len(table)} images have no style: judges and heads learn nothing from them."
    undated = table["unread_year"][table["unread_year"] != ""]
    if len(undated):
        yield f"{len(undated)} of {len(table)} images count as undated: no year in 1000 to 2100 is read in {undated.iloc[0]!r}."
    for name, known, what in (
        ("style", STYLES, "Styles that judges and heads do not know, learned by the CLIP and the denoiser alone"),
        ("genre", GENRES, "Genres that are not known and go into no caption"),
    ):
        counts = table[name][~table[name].isin(["", *known])].value_counts()
        if len(counts):
            more = f" and {len(counts) - MOST} more" if len(counts) > MOST else ""
            yield f"{what}: {', '.join(f'{value} ({count})' for value, count in counts.iloc[:MOST].items())}{more}."


def _tables(folder: Path) -> list[Path]:
    found = {}
    for suffix in READERS:
        for path in sorted(folder.rglob(f"metadata{suffix}")):
            found.setdefault(path.parent, path)
    return [found[parent] for parent in sorted(found)]


def _table(path: Path, folder: Path) -> pd.DataFrame:
    try:
        table = READERS[path.suffix](path)
    except ImportError as error:
        raise UserError(f"Reading {path} needs pyarrow: pip install pyarrow, or save the table as metadata.csv.") from error
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UserError(f"{path} cannot be read as a table in UTF-8 ({reason}): mend it, or save it anew as metadata.csv.") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"{path} has two columns named {twice[0]}, capitals and blanks aside: keep one.")
    if "file_name" not in table:
        raise UserError(f"{path} has no column file_name with each image's path; its columns are {', '.join(map(str, table.columns))}.")
    if not len(table):
        raise UserError(f"{path} has no rows: there is nothing to train on.")
    inside = path.parent.relative_to(folder)
    table["file_name"] = [(inside / str(name).strip().replace("\\", "/")).as_posix() for name in table["file_name"]]
    if inside.parts and inside.parts[0].lower() in SPLITS and "split" not in table:
        table["split"] = inside.parts[0].lower()
    return table


def _listing(folder: Path) -> pd.DataFrame:
    """No table at all: the images themselves, in class folders, perhaps below folders named after splits."""
    names = sorted(path.relative_to(folder) for path in walk(folder) if path.suffix.lower() in IMAGES)
    if not names:
        raise UserError(f"{folder} has neither metadata.csv, .jsonl or .parquet nor images in folders named after styles.")
    table = pd.DataFrame({"file_name": [name.as_posix() for name in names]})
    splits = [name.parts[0].lower() if len(name.parts) > 1 and name.parts[0].lower() in SPLITS else None for name in names]
    if any(splits):
        table["split"] = splits
    return table


def walk(folder: Path):
    """All files below `folder`, hidden ones left out, in the order of their names; links to folders are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def _class(name: str) -> str:
    parts = Path(name).parts[:-1]
    return parts[-1] if parts and (len(parts) > 1 or parts[-1].lower() not in SPLITS) else ""
