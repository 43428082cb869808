"""What came of a transfer: photograph and picture side by side, read by the probes and the verdict, and how far they are apart."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from rich import box
from rich.table import Table

from guide import sheet
from guide.brief import in_words
from guide.outcome import said
from guide.record import typed
from guide.transfer import content
from guide.transfer.brushwork import between_paintings
from probes import distance
from probes.audit import audit
from probes.auditing import flags
from probes.auditing.report import Report
from probes.encoders import Encoder
from probes.image import load, resize, to_pil
from probes.judge import Judge

if TYPE_CHECKING:
    from guide.transfer.photographs import Opened
    from guide.transfer.request import Request

SHOWN = 24  # inputs on the sheet
SHORT = {"self-similarity": "self-sim."}


def picture(folder: Path, name: str, seed: int) -> Path:
    """Where a picture of a run lies."""
    return folder / f"seed-{seed:04d}-{name}.png"


@dataclass(frozen=True)
class Result:
    """`report` has a row for each photograph (variant input) and each picture (variant transferred), which names its distances."""

    folder: Path
    sheet: Path
    report: Report
    keep: tuple[tuple[str, float], ...]
    between: Mapping[str, float] = field(default_factory=dict)  # distances of one painting from another in the encoder's eyes

    def table(self) -> Table:
        """A row per picture: style before and after in the eyes of guide and verdict, and the distances."""
        frame = self.report.rows
        names = [name for name in content.UNASKED if f"distance_{name}" in frame]
        styled = frame.style_log_odds.notna().any()
        what = "guide, verdict: log-odds of the style" if styled else "verdict: the style it reads"
        table = Table("picture", "seed", *(["guide", "verdict"] if styled else ["verdict"]), *(SHORT.get(name, name) for name in names),
                      box=box.SIMPLE, padding=(0, 1, 0, 0), caption=f"{what}, before -> after; then distances from the photograph")
        before = frame[frame.variant == "input"].set_index("input")
        for row in frame[frame.variant == "transferred"].to_dict("records"):
            was = before.loc[row["input"]]
            columns = ("style_log_odds", "verdict_log_odds") if styled else ("verdict_style",)
            read = [f"{_signed(was[column])} -> {_signed(row[column])}" for column in columns]
            table.add_row(row["input"], str(row["seed"]), *read, *(said(row[f"distance_{name}"]) for name in names))
        return table

    def lines(self) -> list[str]:
        """Which constraints do not hold, whether the verdict sees the style, mean gains, and how far to trust the readings."""
        made, lines = self.report.rows[self.report.rows.variant == "transferred"], []
        for name, bound in self.keep:
            broken = made[made[f"distance_{name}"] > bound * 1.02 + 1e-3]
            if len(broken):
                far = broken[f"distance_{name}"].max()
                lines.append(f"Not kept: {name} <= {bound:g} in {len(broken)} of {len(made)} pictures (largest {far:.3f}); take more "
                             "--steps, or a lower --strength.")
        lines += [*self._far(made), *self._judged(made), *self._asked(made)]
        gains = [f"{name} {made[column].mean():+.2f}" for name, column in (("guide", "style_gain"), ("verdict", "verdict_gain"))
                 if column in made and made[column].notna().any()]
        lines += [f"Mean gain in log-odds: {', '.join(gains)}."] if gains else []
        lines += [f"Signs of reward hacking: {count} with {said}." for said, count in flags.counted(made).items()]
        trust = (f"Reliability of {name}: {sentence}" for name, sentence in self.report.summary["reliability"].items())
        return [*lines, *self.report.summary.get("skipped", ()), *trust]

    def _far(self, made: pd.DataFrame) -> list[str]:
        """Distances by which pictures are as far from their photographs as one painting from another: a bound holds no other distance."""
        found = {name: made[f"distance_{name}"].dropna() for name in self.between if f"distance_{name}" in made}
        far = {name: some for name, own in found.items() if len(some := own[own >= self.between[name]])}
        if not far:
            return []
        kept = {name: bound for name, bound in self.keep if name not in far}
        names = " and ".join(kept)
        counts = {name: f" in {len(some)} of {len(made)} pictures" if len(some) < len(made) else "" for name, some in far.items()}
        said = ", ".join(f"{name} {some.mean():.2f}{counts[name]} (between paintings {self.between[name]:.2f})"
                         for name, some in far.items())
        bounds = ",".join(f"{name}<={bound:.3g}" for name, bound in (kept | {name: self.between[name] / 2 for name in far}).items())
        return [f"As far from the photograph as one painting from another: {said}; "
                f'{f"the bound on {names} does not hold that, " if kept else ""}--keep "{bounds}" does.']

    def _judged(self, made: pd.DataFrame) -> list[str]:
        """In how many pictures the verdict, which did not steer, puts an asked style first, and in how many photographs it did already."""
        if not self.report.summary["styles"]:
            return []
        judged, before = made["kept"].dropna(), self.report.rows.loc[self.report.rows.variant == "input", "kept"].dropna()
        if not len(judged):
            return ["The verdict does not know the style that was asked for."]
        (target, style), recall = next(iter(self.report.summary["styles"].items())), ""
        if style["verdict_recall_on_real_paintings"] is not None:
            recall = f"; it recognises {style['verdict_recall_on_real_paintings']:.0%} of real paintings of it"
        after = made["verdict_log_odds"].mean()
        odds = f", log-odds {after - made['verdict_gain'].mean():+.1f} -> {after:+.1f}" if made["verdict_gain"].notna().any() else ""
        return [f"The verdict sees {target} in {int(judged.sum())} of {len(judged)} pictures (in {int(before.sum())} of {len(before)} "
                f"photographs before{odds}){recall}."]

    def _asked(self, made: pd.DataFrame) -> list[str]:
        """What guide and verdict read on average before and after of a period, and the guide of words, where they were asked for."""
        frame, lines = self.report.rows, []
        before = frame[frame.variant == "input"].set_index("input").loc[made["input"]]

        def known(column: str) -> bool:
            return column in made and bool(made[column].notna().any())

        def change(column: str, digits: int) -> str:
            return f"{before[column].mean():.{digits}f} -> {made[column].mean():.{digits}f}"
        if known("period_low"):
            low, high = made.iloc[0][["period_low", "period_high"]]
            read = [f"{name} {change(column, 0)}" for name, column in (("guide", "year"), ("verdict", "verdict_year")) if known(column)]
            lines.append(f"Mean year, {low:.0f}{f' to {high:.0f}' if high != low else ''} asked for: {', '.join(read)}.")
        if known("content"):
            lines.append(f"Mean cosine to the words, which the guide alone reads: {change('content', 2)}.")
        return lines


def outcome(request: Request, photos: dict[str, Opened], encoder: Encoder, verdict: Judge, device: str,
            skipped: Sequence[str] = ()) -> Result:
    """Read photographs and pictures and write report.csv, report.json and sheet.png beside them.

    `skipped`: sentences on inputs that are not among the photographs, which go into the report's summary. A photograph is read at
    the size at which it was repainted, so that both are seen alike.
    """
    rows, pixels = [], []
    for name, photo in photos.items():
        rows.append({"input": name, "variant": "input", "seed": None, "image": photo.path})
        pixels.append(photo.pixels.cpu())
        for seed in request.seeds:
            rows.append({"input": name, "variant": "transferred", "seed": seed, "image": picture(request.out, name, seed).name})
            pixels.append(load(picture(request.out, name, seed)))
    judged = [resize(one, (verdict.network.side,) * 2, "bilinear") if hasattr(verdict.network, "side") else one for one in pixels]
    read = audit([one[0] for one in pixels], intent=request.brief, encoder=request.encoder, judge=request.judge,
                 steered_by=[request.encoder], device=device)
    frame = read.rows
    told = pd.DataFrame(rows)
    told["seed"] = told["seed"].astype("Int64")
    frame = frame.assign(**{name: told[name] for name in told})
    measured = [_distances(request, photos, encoder, verdict, row, one, small)
                for row, one, small in zip(rows, pixels, judged, strict=True)]
    frame = pd.concat([frame, pd.DataFrame(measured)], axis=1)
    before = frame[frame.variant == "input"].set_index("input")
    for gain, column in (("style_gain", "style_log_odds"), ("verdict_gain", "verdict_log_odds"), ("severity_gain", "verdict_severity")):
        if column in frame:
            frame[gain] = [row[column] - before.loc[row["input"], column] if row["variant"] == "transferred" else None
                           for row in frame.to_dict("records")]
    if {"style_gain", "verdict_gain"} <= set(frame):
        hacked = flags.hacked(frame["style_gain"], frame["verdict_gain"])
        frame["flags"] = [flags.HACKED if one else said for one, said in zip(hacked, frame["flags"], strict=True)]
    report = Report(frame, read.summary | {"skipped": list(skipped)})
    report.to_csv(request.out / "report.csv")
    report.to_json(request.out / "report.json")
    result = Result(request.out, request.out / "sheet.png", report, request.keep, between_paintings(encoder))
    _sheet(request, result, photos, pixels)
    return result


@torch.no_grad()
def _distances(request: Request, photos: dict[str, Opened], encoder: Encoder, verdict: Judge, row: dict, pixels, judged) -> dict:
    """Of a picture from its photograph, each under its own name."""
    if row["variant"] == "input":
        return {}
    photo = photos[row["input"]].pixels
    names = tuple(dict.fromkeys([*content.UNASKED, *(name for name, _ in request.keep)]))
    found = {f"distance_{name}": float(one(pixels.to(photo.device))) for name, one in content.distances(encoder, photo, names).items()}
    seen = verdict(torch.cat([resize(photo.cpu(), judged.shape[-2:], "bilinear"), judged]).to(photo.device)).features
    return found | {"distance_verdict_features": float(distance.feature_distance(seen[:1], seen[1:]))}


def _sheet(request: Request, result: Result, photos: dict[str, Opened], pixels: list) -> None:
    """The photographs above, their pictures below, one column each."""
    read = result.report.rows.to_dict("records")
    found = {(row["input"], None if row["variant"] == "input" else int(row["seed"])): (row, one)
             for row, one in zip(read, pixels, strict=True)}
    rows = []
    for label, seed in [("photograph", None), *((f"seed {seed}", seed) for seed in request.seeds)]:
        cells = []
        for name in list(photos)[:SHOWN]:
            row, one = found[name, seed]
            lines = (name, f"guide: P(style) {said(row['style_probability'])}, {said(row['style_top'])}",
                     f"verdict: P(style) {said(row['verdict_style_probability'])}, {said(row['verdict_style'])}")
            cells.append(sheet.Cell(to_pil(one), lines))
        rows.append(sheet.Row(label, tuple(cells)))
    brief = request.brief
    title = (" and ".join(key for key, _ in brief.styles) or brief.prompt or ("references" if request.references else "")
             or in_words(brief.period))
    sheet.save(result.sheet, f"Transfer: {title}", [sheet.Block("", tuple(rows))], request.command or typed())


def _signed(value) -> str:
    return f"{value:+.1f}" if isinstance(value, float) and value == value else said(value)
