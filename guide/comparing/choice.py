"""Which strength of each strategy stands for it: the one with the largest gain in the referee's eyes, on seeds that report nothing."""

import json
from collections.abc import Sequence
from math import nan
from pathlib import Path

import pandas as pd

from guide.comparing.effects import PROMPT_ALONE, paired
from guide.statistics import mean_difference
from probes.errors import UserError

REFEREE = "referee"


def chosen(rows: pd.DataFrame, setting: str, judge: str = REFEREE) -> list[dict]:
    """A dict per arm of the rows whose set is "choice": the judge's mean gain with its interval, and whether it is the chosen one.

    Styles and words are pooled, so that a strategy has one strength for all; a judge that knows none of the styles chooses nothing, and
    then the middle strength is taken.
    """
    found = []
    some = rows[rows["set"] == "choice"]
    for strategy in dict.fromkeys(some.loc[some["strategy"] != "unguided", "strategy"]):
        arms = list(dict.fromkeys(some[some["strategy"] == strategy].sort_values("strength", kind="stable")["arm"]))
        gains = {}
        for arm in arms:
            pairs = paired(some, arm)
            gains[arm] = mean_difference(pairs.difference(f"{judge}_log_odds"), pairs.prompts)
        known = [arm for arm in arms if gains[arm].pairs]
        best = max(known, key=lambda arm: gains[arm].mean) if known else arms[len(arms) // 2]
        first = some[some["strategy"] == strategy].drop_duplicates("arm").set_index("arm")
        found += [
            {
                "setting": setting,
                "strategy": strategy,
                "arm": arm,
                "strength": float(first.loc[arm, "strength"]),
                "chosen": arm == best,
                "gain": gains[arm].mean,
                "low": gains[arm].low,
                "high": gains[arm].high,
                "pairs": gains[arm].pairs,
            }
            for arm in arms
        ]
    return found


def read(path: Path) -> list[dict] | None:
    """The table in a run's choice.json; None where there is none. UserError where it is something else."""
    if not path.is_file():
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [row | {name: nan if row[name] is None else float(row[name]) for name in ("gain", "low", "high")} for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"The choice of strengths in {path} is not one of this version; run the comparison again.") from None


def default_of(table: Sequence[dict]) -> dict | None:
    """The chosen arm with the largest gain of all: what `guide generate` should do by default; None where none gains. Prompt-only arms do
    not count."""
    able = [row for row in table if row["chosen"] and row["gain"] > 0 and row["strategy"] not in PROMPT_ALONE]
    return max(able, key=lambda row: row["gain"], default=None)
