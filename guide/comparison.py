"""What a comparison found: paired differences with intervals, kept rates beside the judge's recall, distances, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from guide.statistics import Interval, mean_difference, ratio
from probes.auditing.report import Report
from probes.plain import plain

ALL = "all"
PAIRED = {
    "guide_gain": "style_log_odds", "verdict_gain": "verdict_log_odds", "kept_difference": "kept", "year_error_difference": "year_error",
    "content_difference": "content", "severity_difference": "verdict_severity",
}  # fmt: skip
APART = ("ms_ssim", "verdict_feature_distance", "lpips")
MEANS = ("kept", "style_probability", "verdict_style_probability", *APART, "seconds", "denoiser")


@dataclass(frozen=True)
class Effect:
    """One strategy on one style (or on all). `differences` are against the baseline at the same style, prompt and seed.

    `means` are of the strategy itself; `transfer` is verdict gain / guide gain, undefined where the guide's interval contains 0;
    `recall` is the verdict's own on real paintings of the style.
    """

    style: str
    strategy: str
    images: int
    means: dict[str, float]
    recall: float | None
    differences: dict[str, Interval]
    transfer: Interval | None


@dataclass(frozen=True)
class Comparison:
    """`report` has a row per picture (Report.COLUMNS, prompt, distances to the baseline, costs); `strategies[0]` is the baseline."""

    report: Report
    strategies: tuple[str, ...]
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, rows: pd.DataFrame, summary: dict, strategies: Sequence[str], recall: Mapping[str, float], notes: Sequence[str] = ()
    ) -> "Comparison":
        """Effects per style, then over all of them, from rows with style_target, prompt, seed, variant and the readings."""
        styles = list(dict.fromkeys(rows["style_target"]))
        scopes = {style: rows[rows["style_target"] == style] for style in styles} | ({ALL: rows} if len(styles) > 1 else {})
        effects = tuple(effect(style, part, name, strategies[0], recall) for style, part in scopes.items() for name in strategies)
        methods = dict.fromkeys(gain.method for e in effects if (gain := e.differences.get("guide_gain")))
        trust = [f"Reliability of {name}: {sentence}" for name, sentence in summary.get("reliability", {}).items()]
        notes = [*notes, f"Intervals (95 %): {'; '.join(methods)}.", *trust]
        read = {name: summary.get(name) for name in ("images", "read", "encoder", "judge", "reliability")}
        found = Report(rows, read | {"baseline": strategies[0], "effects": plain(effects), "notes": notes})
        return cls(found, tuple(strategies), effects, tuple(notes))

    def table(self) -> Group:
        """Gains, kept rates, then changes and costs, then what to know about them; each table fits 80 columns."""
        base = self.strategies[0]
        gains = _table(f"Gains over {base} in log-odds, paired by prompt and seed", "guide", "verdict", "transfer")
        kept = _table("Kept style: the verdict's first style is the intended one", "kept", f"more than {base}", "recall on real")
        costs = _table(f"Distance to {base}, cost of a picture", "MS-SSIM", "verdict features", "LPIPS", "seconds", "denoiser calls")
        for e in self.effects:
            gain, verdict, more = (str(e.differences.get(name, "")) for name in ("guide_gain", "verdict_gain", "kept_difference"))
            if e.differences:
                gains.add_row(e.style, e.strategy, gain, verdict, str(e.transfer))
            kept.add_row(e.style, e.strategy, _said(e.means["kept"], "{:.0%}"), more, _said(e.recall, "{:.0%}"))
            apart = [_said(e.means[name], "{:.3f}") if e.differences else "" for name in APART]
            costs.add_row(e.style, e.strategy, *apart, _said(e.means["seconds"], "{:.2f}"), _said(e.means["denoiser"], "{:.0f}"))
        return Group(gains, kept, costs, Text("\n".join(self.notes)))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("style", "strategy"):
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def effect(style: str, rows: pd.DataFrame, strategy: str, baseline: str, recall: Mapping[str, float]) -> Effect:
    """One strategy against the baseline, both at the same style, prompt and seed; clusters are (style, prompt)."""
    keys = ["style_target", "prompt", "seed"]
    own, base = (rows[rows["variant"] == name] for name in (strategy, baseline))
    means = {name: float(own[name].astype(float).mean()) if name in own else float("nan") for name in MEANS}
    recalls = [recall.get(name) for name in dict.fromkeys(rows["style_target"])]
    known = sum(recalls) / len(recalls) if None not in recalls else None
    if strategy == baseline:
        return Effect(style, strategy, len(own), means, known, {}, None)
    pairs = own.merge(base, on=keys, suffixes=("", "_baseline"))
    prompts = list(zip(pairs["style_target"], pairs["prompt"], strict=True))
    values = {name: (pairs[column].astype(float) - pairs[f"{column}_baseline"].astype(float)).to_numpy() for name, column in PAIRED.items()}
    differences = {name: mean_difference(value, prompts) for name, value in values.items()}
    transfer = ratio(values["verdict_gain"], values["guide_gain"], prompts)
    if not differences["guide_gain"].excludes_zero:
        undefined = "undefined: the guide's interval contains 0"
        transfer = Interval(float("nan"), float("nan"), float("nan"), transfer.pairs, transfer.clusters, undefined)
    return Effect(style, strategy, len(own), means, known, differences, transfer)


def _said(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else form.format(value)
