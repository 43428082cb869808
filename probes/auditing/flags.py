"""Signs that guidance was obeyed in the letter: the guide gains and the verdict does not, colours and fine detail run away."""

import numpy as np
import pandas as pd

# What the field reports of images optimised against a reward: over-saturation, high-frequency energy, a judge that stays flat or falls
# while the guide climbs. A drift counts where it exceeds what the baseline's own pictures differ by, so that no line is drawn by hand.
HACKED = "guide gains, verdict loses"
DRIFTS = {"saturation": "oversaturated", "high_frequency": "high frequencies up"}
SPREADS = 2.0  # standard deviations of the baseline's pictures
LEAST_PAIRS = 3  # below, nobody knows how much the baseline's pictures differ


def flag(rows: pd.DataFrame) -> None:
    """Fill in `flags` of the pictures that have a counterpart, in words."""
    paired = rows.index[rows["baseline"] != ""]
    if not len(paired):
        return
    some = rows.loc[paired]
    signs = {HACKED: hacked(some["guide_gain"], some["verdict_gain"])}
    for name, said in DRIFTS.items():
        before = some[name] - some[f"{name}_drift"]
        if len(before.dropna()) >= LEAST_PAIRS:
            signs[said] = some[f"{name}_drift"] > SPREADS * float(np.nanstd(before)) + 1e-6
    words = np.array([np.where(sign.fillna(False), said, "") for said, sign in signs.items()])
    rows.loc[paired, "flags"] = ["; ".join(filter(None, said)) for said in words.T]


def hacked(guide: pd.Series, verdict: pd.Series) -> pd.Series:
    """Where the guide gains and the verdict loses; not where either gain is missing."""
    return (guide.astype(float) > 0) & (verdict.astype(float) < 0)


def counted(rows: pd.DataFrame) -> dict[str, int]:
    """How many pictures have each sign."""
    found = rows["flags"][rows["flags"] != ""].str.split("; ").explode().value_counts()
    return {str(said): int(count) for said, count in found.items()}
