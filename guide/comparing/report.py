"""The report of a comparison as one HTML page that loads nothing, with the audit's style sheet and what is added to it."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import probes
from guide.comparing import grids, plots, tables
from guide.comparing.ballots import agreement
from guide.comparing.effects import Effect, said
from guide.record import commit, typed
from probes.image import load, to_pil

if TYPE_CHECKING:
    from guide.comparing.results import Results

SIDE, QUALITY = 160, 72  # of a picture on the page, in pixels and of WebP
FAMILY = Path(probes.__file__).parent / "auditing" / "page"
SAID = {
    "frontier-cost": "Gain against cost. A full mark is the strength that the referee chose, on other seeds; bars are 95 % intervals, "
    "those of few prompts cut at the edge.",
    "frontier-distance": "Gain against distance: what the style costs in likeness to the same seed unguided.",
    "guide-and-judge": "Guide against judge. On the dashed line both see the same gain; in the shaded region only the guide does.",
    "styles": "Style by style. Lines are 95 % intervals; those of few prompts are cut at the edge.",
}


@dataclass(frozen=True)
class Shot:
    """A picture on the page: what it is called, what is said below it, how it came out, its bytes in base64."""

    name: str
    said: str
    outcome: str
    data: str


def page(results: "Results") -> str:
    """The page's text; names, prompts and notes may hold anything and are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([Path(__file__).parent / "templates", FAMILY])
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    drawn = [
        (name, next(text for start, text in SAID.items() if name.startswith(start)), plots.svg(figure, name, themed=True))
        for name, figure in plots.figures(results).items()
    ]
    report = results.rows[results.rows["set"] == "report"]
    try:
        own = version("clip-guided-generation")
    except PackageNotFoundError:
        own = ""
    return environment.get_template("compare.html").render(
        results=results,
        asked=results.asked,
        plots=drawn,
        tables=list(tables.tables(results)),
        blocks=list(_blocks(results)),
        worst=list(_worst(results)),
        tiles=list(_tiles(results, report)),
        arms=report["arm"].nunique(),
        pictures=len(report),
        styles=list(dict.fromkeys(report["style"])),
        settings=list(results.plans),
        judge=results.judge,
        version=own,
        git=commit(),
        votes=agreement(results.asked.out),
        command=results.asked.command or typed(),
        palette=plots.PALETTE,
    )


def _tiles(results: "Results", report: pd.DataFrame) -> Iterator[tuple[str, str, bool]]:
    """(figure, what it is, whether it is the main one)."""
    gain, kept = f"{results.judge}_gain", f"{results.judge}_kept"
    counts = {"seed": report["seed"].nunique(), "prompt": len(report[["style", "prompt"]].drop_duplicates())}
    told = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in counts.items())
    yield str(len(report)), f"pictures, {told}", False
    for named in dict.fromkeys(e.named for e in results.overall()):
        some = [e for e in results.overall() if e.named == named and e.chosen and e.contrasts and e.contrasts[gain].difference.pairs]
        guided = [e for e in some if e.source in ("guidance", "both")] or some
        if not guided:
            continue
        top = max(
            guided,
            key=lambda e: (
                e.contrasts["referee_gain"].difference.mean if "referee_gain" in e.contrasts else e.contrasts[gain].difference.mean
            ),
        )
        words = "style named" if named else "by guidance alone"
        yield f"{top.contrasts[gain].difference.mean:+.2f}", f"log-odds by {top.arm}, {words}: {_interval(top, gain)}", True
        plain = next((e for e in results.overall() if (e.setting, e.named, e.arm) == (top.setting, named, top.baseline)), None)
        if plain is not None:
            yield (
                f"{said(plain.means.get(kept), '{:.0%}')} \N{RIGHTWARDS ARROW} {said(top.means.get(kept), '{:.0%}')}",
                f"kept their style, {words}",
                False,
            )
    recall = next((e.recall for e in results.overall() if e.recall is not None), None)
    if recall is not None:
        yield f"{recall:.0%}", f"of real paintings of these styles the {results.judge} recognises", False


def _interval(effect: Effect, name: str) -> str:
    found = effect.contrasts[name]
    if isnan(found.difference.low):
        return "no interval"
    return f"[{found.difference.low:+.2f}, {found.difference.high:+.2f}]{'' if found.significant else ', not significant'}"


def _blocks(results: "Results") -> Iterator[tuple[str, list[str], list[tuple[str, list[Shot]]]]]:
    """Heading, what stands over the columns, and rows of pictures."""
    for heading, rows in grids.blocks(results):
        columns = [f"{row['seed']}: {row['prompt']}" if row["prompt"] else f"seed {row['seed']}" for _, row in rows[0][1].iterrows()]
        yield heading, columns, [(arm, [_shot(results, row, row["image"]) for _, row in some.iterrows()]) for arm, some in rows]


def _worst(results: "Results") -> Iterator[tuple[Shot, Shot]]:
    for _, row in grids.worst(results).iterrows():
        words = f"{row['style']}{'' if row['named'] else ', by guidance alone'}, seed {row['seed']}"
        yield (
            Shot(words, "unguided", "read", _bytes(results.asked.out / row["image_before"])),
            Shot(row["arm"], f"{results.judge} {row['lost']:+.2f}", _outcome(results, row), _bytes(results.asked.out / row["image"])),
        )


def _shot(results: "Results", row: pd.Series, image: str) -> Shot:
    return Shot(
        f"{row['arm']}, seed {row['seed']}", grids.caption(row, results.judge), _outcome(results, row), _bytes(results.asked.out / image)
    )


def _outcome(results: "Results", row: pd.Series) -> str:
    kept = row[f"{results.judge}_kept"]
    return "read" if pd.isna(kept) else "kept" if kept else "lost"


def _bytes(path: Path) -> str:
    picture, held = to_pil(load(path)), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(held, "WEBP", quality=QUALITY, method=2)
    return base64.b64encode(held.getvalue()).decode()
