"""The report of an audit as one HTML page: figures, distributions, confusion, and a gallery that sorts and filters; it loads nothing."""

import base64
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from os.path import commonpath, relpath
from pathlib import Path
from typing import TYPE_CHECKING

from probes.auditing.page import figures
from probes.plain import plain

if TYPE_CHECKING:
    from probes.auditing.report import Report

MOST = 5000  # pictures in the gallery: more would make a page that no browser opens gladly
NUMBERS = {  # column: what it is called, decimals, whose reliability it has
    "style_probability": ("guide P(style)", 2, "style"),
    "verdict_style_probability": ("verdict P(style)", 2, "verdict"),
    "style_log_odds": ("guide log-odds", 2, "style"),
    "verdict_log_odds": ("verdict log-odds", 2, "verdict"),
    "year": ("year", 0, "period"),
    "verdict_year": ("verdict year", 0, "verdict's year"),
    "year_error": ("years off", 0, "period"),
    "content": ("content", 2, "content"),
    "artifacts": ("artifacts", 2, "artifacts"),
    "verdict_severity": ("damage", 2, "verdict's damage"),
    "made_by_model": ("made by a model", 2, "origin"),
    "domain_percentile": ("distance percentile", 0, "domain"),
    "figures": ("figures", 2, "figures"),
    "indoor": ("indoor", 2, "indoor"),
    "saturation": ("saturation", 3, ""),
    "contrast": ("contrast", 3, ""),
    "high_frequency": ("high frequency", 3, ""),
    "saturation_drift": ("saturation drift", 3, ""),
    "contrast_drift": ("contrast drift", 3, ""),
    "high_frequency_drift": ("high-frequency drift", 3, ""),
    "guide_gain": ("guide gain", 2, "style"),
    "verdict_gain": ("verdict gain", 2, "verdict"),
}
WORDS = (
    "variant", "group", "style_target", "style_top", "verdict_style", "scene", "artifact_kind", "artifact_where", "prompt", "baseline",
    "duplicate_of", "notes", "reason", "error",
)  # fmt: skip
MEASURED = "measured on the pixels, nothing is estimated"
NOT_SAID = "not validated"


def page(report: "Report") -> str:
    """The page's text. Names, prompts and notes may hold anything: all are escaped, in the markup and inside the script's data."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    frame, summary = report.rows, report.summary
    rows = frame.to_dict("records")
    shown = _shown(rows)
    names, trust = _names(rows), _reliability(summary)
    numbers = {column: said for column, said in NUMBERS.items() if frame[column].notna().any()}
    numbers |= {name: (name.replace("_", " "), 2, "people") for name in frame.columns if name.split("_")[0] in ("rating", "human")
                and all(isinstance(value, int | float) or _float(value) for value in frame[name].dropna())}  # fmt: skip
    entries = list(report.pictures(shown)) if report.pictures else []
    outcomes = [_outcome(rows[k]) for k in shown]
    columns = [{"key": key, "label": called, "digits": digits, "trust": trust.get(source, NOT_SAID) if source else MEASURED}
               for key, (called, digits, source) in numbers.items()]  # fmt: skip
    data = {
        "names": [names[k] for k in shown],
        "columns": columns,
        "numbers": [[_short(rows[k][key]) for key in numbers] for k in shown],
        "words": {name: [str(rows[k][name]) for k in shown] for name in WORDS if any(rows[k][name] for k in shown)},
        "outcome": outcomes,
        "thumbnails": [base64.b64encode(entry.thumbnail).decode() for entry in entries],
        "maps": [base64.b64encode(entry.map).decode() for entry in entries] if any(entry.map for entry in entries) else [],
    }
    labels = {name: called for name, (called, *_) in NUMBERS.items()}
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:.0%}"
    sentences = [sentence for sentence in summary.get("sentences", []) if not sentence.startswith("Reliability of ")]
    unread = [(names[k], row["error"]) for k, row in enumerate(rows) if row["error"]]
    drawn = {
        "histograms": figures.histograms(rows, labels, trust),
        "years": figures.years(rows, shown, names, outcomes, trust),
        "confusion": figures.confusion(summary),
    }
    counts = {"shown": len(shown), "total": len(rows), "unread": unread, "maps": bool(data["maps"])}
    template = environment.get_template("audit.html")
    return template.render(data=plain(data), summary=summary, sentences=sentences, trust=trust, version=_version(), **drawn, **counts)


def _shown(rows: Sequence[dict]) -> list[int]:
    """All pictures; of more than 5,000 the thousand best, the thousand worst, and others evenly from the rest, in their order."""
    if len(rows) <= MOST:
        return list(range(len(rows)))
    read = [k for k, row in enumerate(rows) if not row["error"]]
    column = "verdict_log_odds" if any(isfinite(rows[k]["verdict_log_odds"]) for k in read) else "style_probability"
    ranked = sorted((k for k in read if isfinite(rows[k][column])), key=lambda k: rows[k][column])
    ends = set(ranked[:1000] + ranked[-1000:])
    rest = [k for k in range(len(rows)) if k not in ends]
    room = MOST - len(ends)
    return sorted(ends | {rest[i * len(rest) // room] for i in range(room)})


def _names(rows: Sequence[dict]) -> list[str]:
    """As short as they can be without becoming equal: without the folder that all lie in, and without what no screen can show."""
    folders = {str(Path(row["image"]).parent) for row in rows}
    try:
        folder = commonpath(folders) if folders else ""
    except ValueError:  # some absolute, some not
        folder = ""
    shown = [row["image"] if folder in ("", ".") else relpath(row["image"], folder) for row in rows]
    return ["".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name) for name in shown]


def _reliability(summary: dict) -> dict[str, str]:
    about = dict((summary.get("judge") or {}).get("reliability", {}))
    recalls = {target: said["verdict_recall_on_real_paintings"] for target, said in summary.get("styles", {}).items()}
    if known := ", ".join(f"{recall:.0%} of {target}" for target, recall in recalls.items() if recall is not None):
        about["verdict"] = "; ".join(filter(None, (about.get("verdict"), f"of real paintings it recognises {known}")))
    return summary.get("unasked_reliability", {}) | summary.get("reliability", {}) | about | {"people": "said by people"}


def _outcome(row: dict) -> str:
    if row["error"]:
        return "error"
    return "read" if row["kept"] is None or row["kept"] != row["kept"] or str(row["kept"]) == "<NA>" else "kept" if row["kept"] else "lost"


def _short(value: object) -> float | None:
    number = _float(value)
    return None if number is None else round(number, 4)


def _float(value: object) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


def _version() -> str:
    try:
        return version("clip-guided-generation")
    except PackageNotFoundError:
        return ""
