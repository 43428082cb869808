"""How far the readings agree with what people said of the same pictures."""

from collections.abc import Sequence
from math import isfinite

import numpy as np

from probes.config import lookup, styles
from probes.errors import UserError
from probes.reliability import kappa, rank_correlation, within

METHODS = ("spearman", "kendall")
READINGS = ("style_probability", "verdict_style_probability", "content", "year_error", "verdict_severity", "made_by_model", "artifacts")
LEAST, BINS = 3, 10
ANSWERS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}


def agreement(rows: Sequence[dict]) -> dict[str, dict]:
    """By rating (`rating`, `rating_*`, `human_*`): rank correlations of numbers, kappa of words, calibration of yes and no.

    Numbers are compared with every reading: Spearman's and Kendall's coefficient (tau-b) over all pictures, and as the mean over prompts,
    because a reading may tell subjects apart and no picture of one subject. Words are compared with the styles that guide and verdict
    read (Cohen's kappa). Ratings of 0 and 1 also say how well probabilities are calibrated.
    """
    read = [row for row in rows if not row.get("error")]
    names = dict.fromkeys(name for row in read for name in row if name.split("_")[0] in ("rating", "human"))
    found = {}
    for name in names:
        rated = [row for row in read if row.get(name) not in (None, "")]
        values = [_number(row[name]) for row in rated]
        if any(value is None for value in values):
            found[name] = {"rated": len(rated), **_styles(rated, name)}
            continue
        numbers = {reading: _ranks(rated, values, reading) for reading in READINGS}
        found[name] = {"rated": len(rated), "readings": {reading: said for reading, said in numbers.items() if said}}
        if set(values) == {0.0, 1.0}:
            probabilities = {reading: _calibrated(rated, values, reading) for reading in READINGS if "probability" in reading}
            found[name]["calibration"] = {reading: said for reading, said in probabilities.items() if said}
    return found


def calibration(probabilities: Sequence[float], right: Sequence[float], bins: int = BINS) -> dict:
    """Expected calibration error over bins of equal width, and the Brier score (mean squared error), of probabilities of a yes."""
    p, y = np.asarray(probabilities, float), np.asarray(right, float)
    at = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(at, p - y, bins)
    return {"pictures": len(p), "ece": float(np.abs(gaps).sum() / len(p)), "brier": float(np.mean((p - y) ** 2))}


def agreed(some: Sequence[str], others: Sequence[str]) -> float | None:
    """Cohen's kappa of labels side by side; None where there are none, or where chance alone agrees always."""
    if not len(some):
        return None
    numbers = {label: k for k, label in enumerate(dict.fromkeys([*some, *others]))}
    found = kappa(*(np.array([numbers[label] for label in side]) for side in (some, others)))
    return found if isfinite(found) else None


def _styles(rated: list[dict], name: str) -> dict:
    """Kappa of the words that name a style with the styles that were read, and how many name none."""
    named = [(row, _style(row[name])) for row in rated]
    some = [(row, style) for row, style in named if style]
    kappas = {seen: agreed(*zip(*((style, row[seen]) for row, style in some if row.get(seen)), strict=True))
              if any(row.get(seen) for row, _ in some) else None for seen in ("style_top", "verdict_style")}  # fmt: skip
    return {"kappa": kappas, "no_style": len(rated) - len(some)}


def _style(word: object) -> str:
    """The key of the style that a word means, or nothing."""
    try:
        return lookup(styles(), str(word), "style").key
    except UserError:
        return ""


def _number(value: object) -> float | None:
    if isinstance(value, str) and value.strip().lower() in ANSWERS:
        return ANSWERS[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


def _ranks(rated: list[dict], values: list[float], reading: str) -> dict | None:
    """None with fewer than three pairs, or where a side never changes."""
    at = [k for k, row in enumerate(rated) if _finite(row.get(reading))]
    truth, read = np.array([values[k] for k in at]), np.array([rated[k][reading] for k in at])
    if len(at) < LEAST or np.ptp(truth) == 0 or np.ptp(read) == 0:
        return None
    prompts = [rated[k].get("prompt") or "" for k in at]
    found = {"pictures": len(at), **{method: rank_correlation(truth, read, method=method) for method in METHODS}}
    inside = {method: within(truth, read, prompts, method=method) for method in METHODS} if len(set(prompts)) > 1 else {}
    defined = bool(inside) and isfinite(inside["spearman"])
    return found | {"within_prompt": {"prompts": len(set(prompts)), **inside} if defined else None}


def _calibrated(rated: list[dict], values: list[float], reading: str) -> dict | None:
    pairs = [(row[reading], value) for row, value in zip(rated, values, strict=True) if _finite(row.get(reading))]
    return calibration(*zip(*pairs, strict=True)) if pairs else None


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)
