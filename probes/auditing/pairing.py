"""Pairs each picture with its counterpart, by seed and prompt or by name and never by order, and says how it drifted."""

import os
from collections.abc import Sequence
from pathlib import PurePath

import pandas as pd
from torch import Tensor

from probes.auditing.columns import LATER, SEPARATOR
from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.looks import LOOKS
from probes.errors import UserError

GAINS = {"guide_gain": "style_log_odds", "verdict_gain": "verdict_log_odds"}
UNGUIDED = "unguided"
ALONE = "the baseline has no picture of its seed and prompt, or of its name"
SHARED = "several pictures have its seed and prompt, or its name, so that it is not paired"


def refuse_itself(before: Sequence[Item], after: Sequence[Item]) -> None:
    """A UserError where every picture that is audited is in the baseline too, so that each would be compared with itself."""
    def places(items: Sequence[Item]) -> set:
        return {(id(item.source) if isinstance(item.source, Tensor) else os.path.realpath(item.source), item.offset) for item in items}

    if before and places(after) <= places(before):
        raise UserError("The baseline holds the very pictures that are audited, each of which would be compared with itself; "
                        "give pictures made without what is to be measured.")  # fmt: skip


def intents(before: Sequence[Item], after: Sequence[Item], meant: Sequence[Intention | None]) -> list[Intention | None]:
    """What the baseline is read for: what its counterparts by name were meant to be, else what all others were, else what it says."""
    by_name = {_name(item.name): intention for item, intention in zip(after, meant, strict=True)}
    everyone = meant[0] if len(set(meant)) == 1 else None
    return [by_name.get(_name(item.name)) or everyone for item in before]


def pair(rows: pd.DataFrame, before: pd.DataFrame) -> None:
    """Fill in for each row that has one counterpart its name (`baseline`), whether that kept the style of both (`baseline_kept`), the
    drift of its looks and the gains of guide and judge.

    A key that two pictures of a side share pairs neither of them, and a note says so.
    """
    read, counterpart = before[before["error"] == ""], pd.Series(-1, index=rows.index)
    for keys in (_seeds, lambda some: some["image"].map(_name)):
        own, known = keys(rows), keys(read)
        shared = set(known[known.duplicated(keep=False)].dropna()) | (set(own[own.duplicated(keep=False)].dropna()) & set(known.dropna()))
        places = {key: place for place, key in known.dropna().items() if key not in shared}
        alone = (rows["error"] == "") & (counterpart < 0)
        found, clash = own.map(places).where(alone), rows.index[own.isin(shared) & alone & ~rows["notes"].str.contains(SHARED, regex=False)]
        rows.loc[clash, "notes"] = [SEPARATOR.join(filter(None, (note, SHARED))) for note in rows.loc[clash, "notes"]]
        counterpart = counterpart.where(found.isna(), found).astype("int64")
    _drift(rows, before, counterpart[counterpart >= 0])


def note_unpaired(rows: pd.DataFrame) -> None:
    """Say so in the notes of each picture that was read and has no counterpart."""
    alone = rows.index[(rows["error"] == "") & (rows["baseline"] == "") & ~rows["notes"].str.contains(SHARED, regex=False)]
    rows.loc[alone, "notes"] = [SEPARATOR.join(filter(None, (note, ALONE))) for note in rows.loc[alone, "notes"]]


def pair_variants(rows: pd.DataFrame) -> None:
    """Within one run: the unguided picture of the same seed and prompt is the counterpart of each other variant."""
    unguided, seeded = rows["variant"] == UNGUIDED, _seeds(rows).notna()
    if not unguided.any():
        return
    for variant in [name for name in rows["variant"].unique() if name not in ("", UNGUIDED)]:
        some = rows[(rows["variant"] == variant) & seeded].copy()
        pair(some, rows[unguided & seeded])
        for name in (*LATER, "notes"):
            rows.loc[some.index, name] = some[name]


def _drift(rows: pd.DataFrame, before: pd.DataFrame, counterpart: pd.Series) -> None:
    at, other = counterpart.index, before.loc[counterpart]
    rows.loc[at, "baseline"] = other["image"].tolist()
    for name in LOOKS:
        rows.loc[at, f"{name}_drift"] = rows.loc[at, name].to_numpy() - other[name].to_numpy()
    same = at[rows.loc[at, "style_target"].to_numpy() == other["style_target"].to_numpy()]
    rows.loc[same, "baseline_kept"] = before.loc[counterpart[same], "kept"].to_numpy()
    for gain, name in GAINS.items():
        rows.loc[same, gain] = rows.loc[same, name].to_numpy() - before.loc[counterpart[same], name].to_numpy()


def _seeds(rows: pd.DataFrame) -> pd.Series:
    """Seed and prompt, and the intended style where pictures of several share both; missing where there is no seed."""
    keys = rows["seed"].astype("string") + "\0" + rows["prompt"] + "\0" + rows["style_target"]
    return keys.astype(object).where(rows["seed"].notna(), None)


def _name(image: str) -> str:
    """The file's name without its suffix, with the folder it lies in left out: baselines lie in another."""
    return PurePath(image).stem
