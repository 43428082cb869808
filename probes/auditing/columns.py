"""The columns of an audit: their names, order and types, the same in memory, in the parts on disk and in what is written."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import pyarrow as pa

COLUMNS = (
    "image", "seed", "variant", "strategy", "generator", "group", "prompt", "style_target", "style_probability", "style_top",
    "style_log_odds", "year", "year_low", "year_high", "period_low", "period_high", "year_error", "content", "scene", "figures", "indoor",
    "made_by_model", "made_by_model_reliability", "artifacts", "artifact_kind", "artifact_where", "domain_percentile", "out_of_domain",
    "verdict_style", "verdict_style_probability", "verdict_log_odds", "verdict_year", "verdict_severity", "verdict_preference", "kept",
    "saturation", "contrast", "high_frequency", "baseline", "baseline_kept", "saturation_drift", "contrast_drift", "high_frequency_drift",
    "guide_gain", "verdict_gain", "flags", "duplicate_of", "duplicate_bits", "reference_match", "reference_bits", "width", "height",
    "notes", "reason", "error",
)  # fmt: skip
TEXT = {
    "image", "variant", "strategy", "generator", "group", "prompt", "style_target", "style_top", "scene", "made_by_model_reliability",
    "artifact_kind", "artifact_where", "verdict_style", "baseline", "flags", "duplicate_of", "reference_match", "notes", "reason", "error",
}  # fmt: skip
WHOLE = {"seed", "duplicate_bits", "reference_bits", "width", "height"}
FLAGS = {"kept", "baseline_kept", "out_of_domain"}
LATER = (  # what is known only when all pictures are read
    "baseline", "baseline_kept", "saturation_drift", "contrast_drift", "high_frequency_drift", "guide_gain", "verdict_gain", "flags",
    "duplicate_of", "duplicate_bits", "reference_match", "reference_bits", "made_by_model_reliability",
)  # fmt: skip
INSIDE = {  # never written; `steered` is the encoder that the file names
    "sha256": pa.binary(32), "fingerprint": pa.binary(32), "trust": pa.string(), "ratings": pa.string(), "steered": pa.string(),
}  # fmt: skip
RATED = ("rating", "human")  # a column of what people said is called so, or begins with it and an underscore
SHOWN = 5000  # pictures on a page: more would make one that no browser opens gladly
SEPARATOR = "\n"  # between notes until they are written: none holds one


def rated(names: Iterable[str]) -> list[str]:
    """The names among these that are people's ratings, each once."""
    return [name for name in dict.fromkeys(names) if str(name).split("_")[0] in RATED]


def _type(name: str) -> pa.DataType:
    return pa.large_string() if name in TEXT else pa.int64() if name in WHOLE else pa.bool_() if name in FLAGS else pa.float64()


STORED = pa.schema([(name, _type(name)) for name in COLUMNS if name not in LATER] + list(INSIDE.items()))


def table(rows: Sequence[Mapping], schema: pa.Schema = STORED) -> pa.Table:
    """Rows as columns; what a row lacks is null."""
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def frame(found: pa.Table) -> pd.DataFrame:
    """The columns of a table by their pandas types: texts never missing, whole numbers and flags nullable, all others floats."""
    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    # Column by column, each given back before the next is made: no moment holds the whole table twice.
    made = found.to_pandas(types_mapper=types.get, split_blocks=True, self_destruct=True)
    for name in made.columns:
        if name in TEXT:
            made[name] = made[name].fillna("")
    return made


def completed(made: pd.DataFrame) -> pd.DataFrame:
    """The frame with every column of COLUMNS, empty where it had none, in their order; then ratings, then what is only for inside."""
    for name in COLUMNS:
        if name not in made.columns:
            empty = "" if name in TEXT else pd.NA if name in WHOLE or name in FLAGS else float("nan")
            kind = "str" if name in TEXT else "Int64" if name in WHOLE else "boolean" if name in FLAGS else "float64"
            made[name] = pd.Series(empty, index=made.index, dtype=kind)
    others = [name for name in made.columns if name not in COLUMNS]
    return made[[*COLUMNS, *rated(others), *(name for name in others if name in INSIDE)]]


def of_rows(rows: Sequence[Mapping]) -> pd.DataFrame:
    """A frame of dicts; `notes` may be a list, ratings keep the type that they have."""
    schema = pa.schema([(name, _type(name)) for name in COLUMNS])
    cells = [{**row, "notes": joined(row.get("notes") or ())} for row in rows]
    made = frame(table(cells, schema))
    for name in rated(name for row in rows for name in row):
        made[name] = pd.Series([row.get(name) for row in rows], dtype=object, index=made.index)
    return made


def joined(notes: Sequence[str] | str) -> str:
    return notes if isinstance(notes, str) else SEPARATOR.join(note.replace(SEPARATOR, " ") for note in notes)
