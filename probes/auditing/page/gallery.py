"""The report of an audit as one HTML page: figures, distributions, confusion, and a gallery that sorts and filters; it loads nothing."""

import base64
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from os.path import commonpath, relpath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.auditing.columns import SHOWN, rated
from probes.auditing.page import figures
from probes.auditing.sentences import NO_HEAD
from probes.paths import legible
from probes.plain import plain

if TYPE_CHECKING:
    import pandas as pd

    from probes.auditing.report import Report

LISTED = 1000  # unread files on the page; the CSV has all
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
    "verdict_preference": ("preference within its prompt", 2, "preference"),
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
    "variant", "strategy", "generator", "group", "style_target", "style_top", "verdict_style", "scene", "artifact_kind",
    "artifact_where", "prompt", "baseline", "duplicate_of", "reference_match", "flags", "notes", "reason", "error",
)  # fmt: skip
MEASURED = "measured on the pixels, nothing is estimated"
NOT_SAID = "not validated"


def page(report: "Report") -> str:
    """The page's text. Names, prompts and notes may hold anything: all are escaped, in the markup and inside the script's data."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    frame, summary = report.rows, report.summary
    shown = _shown(frame)
    some = frame.iloc[shown]
    rows = some.to_dict("records")
    names, trust = _names(some["image"]), _reliability(summary)
    numbers = {column: said for column, said in NUMBERS.items() if frame[column].notna().any()}
    numbers |= {name: (name.replace("_", " "), 2, "people") for name in rated(frame.columns)
                if all(_float(value) is not None for value in frame[name].dropna() if value != "")}  # fmt: skip
    pictures = list(report.pictures(shown)) if report.pictures else []
    outcomes = list(map(_outcome, rows))
    columns = [{"key": key, "label": called, "digits": digits, "trust": trust.get(source, NOT_SAID) if source else MEASURED}
               for key, (called, digits, source) in numbers.items()]  # fmt: skip
    data = {
        "names": names,
        "columns": columns,
        "numbers": [[_short(row[key]) for key in numbers] for row in rows],
        "words": {name: some[name].astype(str).tolist() for name in WORDS if some[name].ne("").any()} | _repeated(some, names),
        "outcome": outcomes,
        "thumbnails": [base64.b64encode(thumbnail).decode() for thumbnail, _ in pictures],
        "maps": [base64.b64encode(damaged).decode() for _, damaged in pictures] if any(damaged for _, damaged in pictures) else [],
    }
    labels = {name: called for name, (called, *_) in NUMBERS.items()}
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:.0%}"
    tabled = ("Reliability of ", *(f"{name} and " for name in summary.get("ratings", {})))  # the page has tables of them
    sentences = [sentence for sentence in summary.get("sentences", []) if not sentence.startswith(tabled)]
    lost = frame[frame["error"] != ""]
    unread = list(zip(_names(lost["image"].head(LISTED)), lost["error"].head(LISTED), strict=True))
    drawn = {
        "histograms": figures.histograms(frame, labels, trust),
        "years": figures.years(rows, names, outcomes, trust),
        "confusion": figures.confusion(summary),
    }
    counts = {"shown": len(shown), "total": len(frame), "unread": unread, "unlisted": len(lost) - len(unread)}
    counts |= {"maps": bool(data["maps"]), "no_maps": NO_HEAD}
    template = environment.get_template("audit.html")
    return template.render(data=plain(data), summary=summary, sentences=sentences, trust=trust, version=_version(), **drawn, **counts)


def _shown(frame: "pd.DataFrame") -> list[int]:
    """All pictures; of more than 5,000 the thousand best, the thousand worst, and others evenly from the rest, in their order."""
    if len(frame) <= SHOWN:
        return list(range(len(frame)))
    column = "verdict_log_odds" if frame["verdict_log_odds"].notna().any() else "style_probability"
    values = frame[column].to_numpy()
    ranked = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]  # what has no value comes last
    ends = np.union1d(ranked[:1000], ranked[-1000:])
    rest = np.setdiff1d(np.arange(len(frame)), ends)
    evenly = rest[np.arange(SHOWN - len(ends)) * len(rest) // (SHOWN - len(ends))]
    return np.union1d(ends, evenly).tolist()


def _names(images: Iterable[str]) -> list[str]:
    """As short as they can be without becoming equal: without the folder that all lie in, and without what no screen can show."""
    images = list(images)
    folders = {os.path.dirname(image) for image in images}
    try:
        folder = commonpath(folders) if folders else ""
    except ValueError:  # some absolute, some not
        folder = ""
    shown = [image if folder in ("", ".") else relpath(image, folder) for image in images]
    return list(map(legible, shown))


def _repeated(some: "pd.DataFrame", names: list[str]) -> dict[str, list[str]]:
    """What each repeats, by the name that the page calls it."""
    short = dict(zip(some["image"], names, strict=True))
    return {"duplicate_of": [short.get(name, name) for name in some["duplicate_of"]]} if some["duplicate_of"].ne("").any() else {}


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
