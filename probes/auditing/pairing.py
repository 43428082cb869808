"""Pairs each picture with its counterpart, by seed and prompt or by name and never by order, and says how it drifted."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import PurePath

from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.looks import LOOKS

GAINS = {"guide_gain": "style_log_odds", "verdict_gain": "verdict_log_odds"}
UNGUIDED = "unguided"
AMBIGUOUS = object()


def intents(before: Sequence[Item], after: Sequence[Item], meant: Sequence[Intention | None]) -> list[Intention | None]:
    """What the baseline is read for: what its counterparts by name were meant to be, else what all others were, else what it says."""
    by_name = {_name(item.name): intention for item, intention in zip(after, meant, strict=True)}
    everyone = meant[0] if len(set(meant)) == 1 else None
    return [by_name.get(_name(item.name)) or everyone for item in before]


def pair(rows: list[dict], before: list[dict]) -> None:
    """Add to each row that has one counterpart its name (`baseline`), the drift of its looks and the gains of guide and judge.

    A key that two pictures of a side share pairs neither of them, and a note says so.
    """
    for key in (_seeded, lambda row: _name(row["image"])):
        known, own = _by(key, before), _by(key, rows)
        for row in rows:
            other = known.get(key(row))
            if "baseline" in row or other is None or row.get("error"):
                continue
            if other is AMBIGUOUS or own[key(row)] is AMBIGUOUS:
                row["notes"] = [*row.get("notes", []), "several pictures have its seed and prompt, or its name, so that it is not paired"]
            elif not other.get("error"):
                _drift(row, other)


def pair_variants(rows: list[dict]) -> None:
    """Within one run: the unguided picture of the same seed and prompt is the counterpart of each other variant."""
    for variant in dict.fromkeys(row.get("variant") for row in rows if row.get("variant") not in (None, "", UNGUIDED)):
        some = [row for row in rows if row.get("variant") == variant and _seeded(row)]
        before = [row for row in rows if row.get("variant") == UNGUIDED and _seeded(row)]
        pair(some, before)


def _drift(row: dict, other: dict) -> None:
    row["baseline"] = beside(row["image"], other["image"])
    row |= {f"{name}_drift": row[name] - other[name] for name in LOOKS if row.get(name) is not None and other.get(name) is not None}
    for gain, name in GAINS.items():
        if row.get(name) is not None and other.get(name) is not None and row.get("style_target") == other.get("style_target"):
            row[gain] = row[name] - other[name]


def beside(name: str, other: str) -> str:
    """What another picture is called next to this one: its file's name alone where both lie in one folder."""
    return PurePath(other).name if PurePath(other).parent == PurePath(name).parent else other


def _by(key: Callable[[dict], Hashable], rows: list[dict]) -> dict[Hashable, dict]:
    found: dict = {}
    for row in rows:
        if (at := key(row)) is not None:
            found[at] = AMBIGUOUS if at in found else row
    return found


def _seeded(row: dict) -> Hashable | None:
    """Seed and prompt, and the intended style where pictures of several share both; None where there is no seed."""
    seed = row.get("seed")
    return None if seed is None else (int(seed), row.get("prompt") or "", row.get("style_target") or "")


def _name(image: str) -> str:
    """The file's name without its suffix, with the folder it lies in left out: baselines lie in another."""
    return PurePath(image).stem
