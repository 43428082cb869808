"""The figures of an audit's page: distributions, years, confusion of intended styles with those seen."""

from collections.abc import Sequence
from math import isfinite

import pandas as pd

from probes.auditing.page import charts


def histograms(rows: pd.DataFrame, labels: dict[str, str], trust: dict[str, str]) -> list[charts.Chart]:
    """A distribution of each reading that there is; `labels` by column, `trust` by reading."""
    def values(*names: str) -> dict[str, list[float]]:
        return {labels[name]: rows[name].dropna().to_numpy() for name in names}

    asked = "of the intended styles, or of the one read first where none was intended"
    unit, most = (0.0, 1.0), rows["year_error"].max()
    off = (0.0, charts.round_span(0.0, most, 20)[1]) if most >= 0 else None  # no distance is below 0
    found = (
        charts.histogram("P(style)", values("style_probability", "verdict_style_probability"), asked, trust.get("style", ""), unit),
        charts.histogram("Year", values("year", "verdict_year"), "the year that each picture looks painted in", trust.get("period", ""),
                         least=40),
        charts.histogram("Years off", values("year_error"), "distance to the intended span", trust.get("period", ""), off),
        charts.histogram("Content", values("content"), "cosine of picture and prompt", trust.get("content", "")),
        charts.histogram("Artifacts", values("artifacts"), "0 is clean", trust.get("artifacts", ""), unit),
        charts.histogram("Damage", values("verdict_severity"), "in the verdict's eyes", trust.get("verdict's damage", ""), unit),
        charts.histogram("Made by a model", values("made_by_model"), "it tells collections apart too", trust.get("origin", ""), unit),
        charts.histogram("Drift", values("saturation_drift", "contrast_drift"), "picture minus its counterpart"),
        charts.histogram("Gain in log-odds", values("guide_gain", "verdict_gain"), "picture minus its counterpart"),
    )
    return [chart for chart in found if chart]


def years(rows: Sequence[dict], names: Sequence[str], outcomes: Sequence[str], trust: dict[str, str]) -> charts.Chart | None:
    """Read against meant; where nothing was meant, the verdict's year against the guide's."""
    meant = any(isfinite(row["period_low"]) for row in rows)
    points = []
    for place, row in enumerate(rows):
        x, y = ((row["period_low"] + row["period_high"]) / 2, row["year"]) if meant else (row["year"], row["verdict_year"])
        said = f"{names[place]}: {'meant' if meant else 'guide'} {x:.0f}, {'reads' if meant else 'verdict'} {y:.0f}"
        points.append((x, y, place, outcomes[place], said))
    about = "year read over the middle of the years meant" if meant else "the verdict's year over the guide's; no years were meant"
    return charts.scatter("Years", points, about, trust.get("period", ""), least=40)


def confusion(summary: dict) -> dict | None:
    """Intended styles over those that the verdict sees, intended ones first so that the diagonal is what was kept; None without any."""
    table = summary.get("confusion") or {}
    seen = sorted({style for counts in table.values() for style in counts})
    seen = [*table, *(style for style in seen if style not in table)]
    most = max((count for counts in table.values() for count in counts.values()), default=0)
    rows = {target: [counts.get(style, 0) for style in seen] for target, counts in table.items()}
    return {"seen": seen, "rows": rows, "most": most} if table else None
