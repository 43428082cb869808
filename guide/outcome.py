"""What came of a run: the readings of its pictures, unguided beside guided, as a table, a few sentences and a contact sheet."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.table import Column, Table

from guide import attained, sheet, watching
from guide.brief import per_prompt
from guide.record import typed
from probes.audit import audit
from probes.auditing import flags
from probes.auditing.report import Report
from probes.image import load, to_pil
from probes.lineage import Lineage

if TYPE_CHECKING:
    from guide.run import Request

READINGS = {"reads as": "style_top", "P(style)": "style_probability", "year": "year", "verdict": "verdict_style",
            "verdict P": "verdict_style_probability", "verdict year": "verdict_year"}
NAMED = 7  # letters of a style's name, "baroque": with longer ones in its head the table would not fit into 80 columns


def picture(folder: Path, seed: int, variant: str) -> Path:
    """Where a picture of a run lies."""
    return folder / f"seed-{seed:04d}-{variant}.png"


@dataclass(frozen=True)
class Result:
    """`report` has a row per picture; `variants` are ("unguided",) or ("unguided", "guided"); `bounds`, `watched`: sentences on what
    the goals asked besides the brief, and on what was watched."""
    folder: Path
    sheet: Path
    report: Report
    variants: tuple[str, ...]
    bounds: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()

    def pairs(self) -> dict[int, list[dict]]:
        """Seed -> its rows in the order of `variants`."""
        rows = {(int(row["seed"]), row["variant"]): row for row in self.report.rows.to_dict("records")}
        seeds = dict.fromkeys(seed for seed, _ in rows)
        return {seed: [rows[seed, variant] for variant in self.variants] for seed in seeds}

    def table(self) -> Table:
        """A row per picture, the variants of a seed one below the other; P is of the styles that were asked for."""
        targets = {target for target in self.report.rows["style_target"] if target}
        readings = {name: column for name, column in READINGS.items() if not (targets and name == "reads as")}
        asked = probability(targets)
        titles = {"P(style)": asked, "verdict P": f"verdict {asked}"}
        heads = (Column(titles.get(name, name), no_wrap=name in ("reads as", "verdict")) for name in readings)
        table = Table("seed", "", *heads, box=box.SIMPLE, padding=(0, 1, 0, 0))
        for seed, rows in self.pairs().items():
            for row in rows:
                table.add_row(str(seed) if row is rows[0] else "", row["variant"], *(said(row[column]) for column in readings.values()))
        return table

    def lines(self) -> list[str]:
        """How often the verdict saw the asked style, and the mean gains."""
        frame = self.report.rows
        lines, kept, gains = [], [], []
        for variant in self.variants:
            judged = frame.loc[frame.variant == variant, "kept"].dropna()
            kept += [f"{variant} {int(judged.sum())} of {len(judged)}"] if len(judged) else []
        if kept:
            recalls = [style["verdict_recall_on_real_paintings"] for style in self.report.summary["styles"].values()]
            beside = f"; it recognises {recalls[0]:.0%} of real paintings of it" if recalls and recalls[0] is not None else ""
            lines.append(f"The verdict sees the style that was asked for: {', '.join(kept)}{beside}.")
        elif self.report.summary["styles"]:
            lines.append("The verdict does not know the style that was asked for.")
        for name, column in (("guide", "style_log_odds"), ("verdict", "verdict_log_odds")):
            by_variant = {variant: rows.set_index("seed")[column] for variant, rows in frame.groupby("variant")}
            if {"guided", "unguided"} <= by_variant.keys() and frame[column].notna().any():
                gains.append(f"{name} {(by_variant['guided'] - by_variant['unguided']).mean():+.2f}")
        if gains:
            lines.append(f"Mean gain in log-odds: {', '.join(gains)}; `guide compare` gives intervals.")
        lines += [f"Signs of reward hacking: {count} of {(frame.variant == 'guided').sum()} with {said}."
                  for said, count in flags.counted(frame).items()]
        trust = (f"Reliability of {name}: {sentence}" for name, sentence in self.report.summary["reliability"].items())
        return [*lines, *self.bounds, *self.watched, *trust]


def outcome(request: Request, variants: tuple[str, ...], device: str, steered_by: Sequence[Lineage] = ()) -> Result:
    """Read the pictures of a finished run and write report.csv, report.json and sheet.png beside them. `steered_by`: what had a say in
    them, besides the request's encoder."""
    briefs = {seed: brief for brief, seeds in per_prompt(request.brief, request.seeds) for seed in seeds}
    subjects = [(briefs[seed], seed, variant) for seed in request.seeds for variant in variants]
    report = audit([picture(request.out, seed, variant) for _, seed, variant in subjects], intent=[brief for brief, _, _ in subjects],
                   encoder=request.encoder, judge=request.judge, steered_by=[request.encoder, *steered_by], device=device)
    told = {"image": [Path(path).name for path in report.rows["image"]], "seed": [seed for _, seed, _ in subjects],
            "variant": [variant for _, _, variant in subjects]}
    bounds = attained.read(request, [brief for brief, _, _ in subjects],
                           [picture(request.out, seed, variant) for _, seed, variant in subjects], device)
    report = Report(report.rows.assign(**told, **{name: scores for name, (_, scores) in bounds.items()}), report.summary)
    report.to_csv(request.out / "report.csv")
    report.to_json(request.out / "report.json")
    told = attained.sentences(bounds, [variant for _, _, variant in subjects])
    result = Result(request.out, request.out / "sheet.png", report, variants, told, _watched(request.out))
    one = len({brief.prompt for brief in briefs.values()}) == 1
    rows = tuple(sheet.Row(variant, tuple(
        sheet.Cell(to_pil(load(picture(request.out, seed, variant))),
                   (f"seed {seed}" if one else f"{seed}: {briefs[seed].prompt}", *caption(pair[k])))
        for seed, pair in result.pairs().items())) for k, variant in enumerate(variants))
    title = " and ".join(key for key, _ in request.brief.styles) or request.brief.prompt or "paintings"
    sheet.save(result.sheet, title, [sheet.Block(briefs[request.seeds[0]].prompt if one else "", rows)], request.command or typed())
    return result


def _watched(folder: Path) -> tuple[str, ...]:
    path = folder / "trace.jsonl"
    if not path.is_file():
        return ()
    return tuple(watching.told(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if '"watch"' in line))


def probability(targets: set[str]) -> str:
    """What the probability of the styles that were asked for is called: by the style's name where it is one and short, `P(baroque)`."""
    name = next(iter(targets)) if len(targets) == 1 else "style"
    return f"P({name if len(name) <= NAMED else 'style'})"


def caption(row: dict) -> tuple[str, ...]:
    """Two lines under a picture: the guide's readings, the verdict's."""
    asked = probability({row["style_target"]} - {"", None})
    return (f"{said(row['style_top'])}, {asked} {said(row['style_probability'])}, {said(row['year'])}",
            f"verdict: {said(row['verdict_style'])}, {asked} {said(row['verdict_style_probability'])}, {said(row['verdict_year'])}")


def said(value) -> str:
    """A reading in few letters: a probability with two digits, a year whole, nothing known as a dash."""
    if value is None or value is pd.NA or value != value or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) > 1.5 else f"{value:.2f}"
    return str(value)
