"""Plots of a comparison: gain against cost and against distance, guide against judge, style by style; PNG and SVG, without a screen."""

import io
import re
from collections.abc import Callable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from guide.comparing.effects import ALL, Effect
from guide.statistics import Interval
from probes.atomic import replacing, write_text
from probes.diagrams import INK

if TYPE_CHECKING:
    from guide.comparing.results import Results

QUIET, RULE, GROUND, DANGER = "#6b645b", "#e2dcd3", "#ffffff", "#f3ddd5"
PALETTE = ("#2c6e9b", "#d1792c", "#2f7d4f", "#8d5aa6", "#b5452d", "#178a8f", "#a8527a", "#8a7a1f", "#5a6d8c", "#7a4b2a")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
# What a page puts in the place of a colour, so that the same drawing is legible in the dark.
THEMED = {INK: "--ink", QUIET: "--quiet", RULE: "--rule", DANGER: "--danger", GROUND: "--card"} | {
    c: f"--p{k}" for k, c in enumerate(PALETTE)
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
MOST_ARMS = 5  # in the plot style by style
WORDS = {True: "the prompt names the style", False: "by guidance alone"}


def figures(results: "Results") -> dict[str, Figure]:
    """By file name. A run of several settings has a set of each."""
    found: dict[str, Figure] = {}
    settings = list(dict.fromkeys(e.setting for e in results.overall()))
    for setting in settings:
        more = "" if len(settings) == 1 else "-" + re.sub(r"[^a-z0-9.]+", "-", setting.lower())
        some = [e for e in results.overall() if e.setting == setting and e.contrasts]
        if not some:
            continue
        title = "" if len(settings) == 1 else setting
        with mpl.rc_context(STYLE):
            clock, label = ("compute_seconds", "seconds of computing a picture")
            if any(isnan(e.means.get(clock, nan)) for e in some):
                clock, label = "seconds", "seconds a picture"  # of a run of before computing was measured
            found[f"frontier-cost{more}"] = _panels(results, some, label, lambda e, clock=clock: e.means[clock], title, log=True)
            apart = "lpips" if any("lpips" in e.means for e in some) else "ms_ssim"
            label = "LPIPS to the same seed unguided" if apart == "lpips" else "1 - MS-SSIM to the same seed unguided"
            found[f"frontier-distance{more}"] = _panels(
                results, some, label, lambda e, apart=apart: e.means[apart] if apart == "lpips" else 1 - e.means[apart], title
            )
            found[f"guide-and-judge{more}"] = _panels(
                results, some, "guide's gain in log-odds", lambda e: e.contrasts["guide_gain"].difference.mean, title, hacking=True
            )
            if len({e.style for e in results.effects if e.style != ALL}) > 1:
                found[f"styles{more}"] = _styles(results, setting, title)
    return found


def _panels(
    results: "Results",
    some: Sequence[Effect],
    label: str,
    at: Callable[[Effect], float],
    title: str,
    log: bool = False,
    hacking: bool = False,
) -> Figure:
    """A panel for each wording: the judge's gain with its interval over `at`; the strengths of a strategy are joined by a line."""
    wordings = list(dict.fromkeys(e.named for e in some))
    figure = Figure((4.9 * len(wordings) + 0.2, 4.4), layout="constrained", facecolor=GROUND)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(wordings), sharey=True, sharex=True, squeeze=False)[0]
    strategies = list(dict.fromkeys(e.strategy for e in some if e.strategy != "unguided"))
    axes[0].set_ylim(*_limits([e.contrasts[f"{results.judge}_gain"].difference for e in some]))
    handles = {}
    for one, named in zip(axes, wordings, strict=True):
        own = [e for e in some if e.named == named]
        for strategy in dict.fromkeys(e.strategy for e in own if e.strategy != "unguided"):
            k = strategies.index(strategy)
            colour, mark = PALETTE[k % len(PALETTE)], MARKS[k % len(MARKS)]
            points = sorted(
                ((at(e), e.contrasts[f"{results.judge}_gain"].difference, e) for e in own if e.strategy == strategy),
                key=lambda p: (p[2].strength, p[0]),
            )
            points = [point for point in points if not (isnan(point[0]) or isnan(point[1].mean))]
            one.plot([x for x, *_ in points], [y.mean for _, y, _ in points], color=colour, lw=1.1, alpha=0.7, zorder=2)
            for x, y, e in points:
                if not isnan(y.low):
                    one.plot([x, x], [y.low, y.high], color=colour, lw=1.1, alpha=0.45, zorder=2, solid_capstyle="round")
                full = e.chosen
                handle = one.plot(x, y.mean, mark, color=colour, ms=7 if full else 5, mfc=colour if full else GROUND, mew=1.2, zorder=3)[0]
                if full or strategy not in handles:
                    handles[strategy] = handle
        one.axhline(0, color=QUIET, lw=0.9, zorder=1)
        one.set(xlabel=label, title=WORDS[named][0].upper() + WORDS[named][1:] + (f"\n{title}" if title else ""))
        if log:
            _log_seconds(one, [at(e) for e in some])
        if hacking:
            _hacking(one)
        one.tick_params(length=0)
    axes[0].set_ylabel(f"{results.judge}'s gain in log-odds")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 5), handletextpad=0.3)
    return figure


def _limits(gains: Sequence[Interval]) -> tuple[float, float]:
    """Limits that hold 0, all means, and intervals as far as they are not endless, as those of few prompts may be."""
    means = [0.0, *(gain.mean for gain in gains if not isnan(gain.mean))]
    low, high = min(means), max(means)
    room = 1.2 * max(high - low, 0.5)
    ends = [end for gain in gains for end in (gain.low, gain.high) if not isnan(end)]
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    pad = 0.06 * max(high - low, 0.1)
    return low - pad, high + pad


def _log_seconds(axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    low, high = min(values) / 1.3, max(values) * 1.3
    steps = (1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([step * 10.0**k for k in range(-3, 5) for step in steps if low <= step * 10.0**k <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _hacking(axes) -> None:
    """Where the guide sees a gain and the judge a loss is shaded; on the line both see the same."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    left, low = min(left, -0.1), min(low, -0.15)
    axes.fill_between([0, right], low, 0, color=DANGER, lw=0, zorder=0)
    axes.plot([max(left, low), min(right, high)], [max(left, low), min(right, high)], color=QUIET, lw=0.9, ls=(0, (4, 3)), zorder=1)
    axes.axvline(0, color=QUIET, lw=0.9, zorder=1)
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.text(right, low, "hacking: only the guide gains ", ha="right", va="bottom", fontsize=8.5, color=QUIET)


def _styles(results: "Results", setting: str, title: str) -> Figure:
    """A row for each style: the judge's gain with its interval, of the arms that stand for their strategies."""
    some = [e for e in results.effects if e.style != ALL and e.setting == setting and e.contrasts and e.chosen]
    wordings = list(dict.fromkeys(e.named for e in some))
    arms = [arm for arm in dict.fromkeys(e.arm for e in some) if not arm.startswith(("unguided", "interval", "apg", "cfg"))][:MOST_ARMS]
    arms = arms or list(dict.fromkeys(e.arm for e in some))[:MOST_ARMS]
    styles = list(dict.fromkeys(e.style for e in some))[::-1]
    figure = Figure(
        (4.6 * len(wordings) + 1.4, 0.9 + max(len(styles) * (0.16 * len(arms) + 0.14), 1.6)), layout="constrained", facecolor=GROUND
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(wordings), sharey=True, sharex=True, squeeze=False)[0]
    handles = {}
    for one, named in zip(axes, wordings, strict=True):
        seen = []
        for k, arm in enumerate(arms):
            for e in (e for e in some if e.named == named and e.arm == arm):
                gain = e.contrasts[f"{results.judge}_gain"].difference
                if isnan(gain.mean):
                    continue
                y = styles.index(e.style) + 0.8 * ((len(arms) - 1) / 2 - k) / max(len(arms), 2)
                handles[arm] = one.barh(y, gain.mean, height=0.7 / len(arms), color=PALETTE[k], lw=0, zorder=2)
                if not isnan(gain.low):
                    one.plot([gain.low, gain.high], [y, y], color=INK, lw=0.9, zorder=3, solid_capstyle="round")
                seen += [gain.mean, *([gain.low, gain.high] if not isnan(gain.low) else [])]
        one.axvline(0, color=QUIET, lw=0.9, zorder=1)
        one.set(
            xlabel=f"{results.judge}'s gain in log-odds", title=WORDS[named][0].upper() + WORDS[named][1:] + (f"\n{title}" if title else "")
        )
        one.set_yticks(range(len(styles)), styles)
        one.grid(axis="y", visible=False)
        one.tick_params(length=0)
        one.tick_params(axis="y", labelcolor=INK)
    _robust(axes[0], [e.contrasts[f"{results.judge}_gain"].difference for e in some if e.arm in arms])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def _robust(axes, gains: Sequence) -> None:
    """Limits that hold all means; intervals of few prompts may be endless, and are cut at the edge."""
    means = [gain.mean for gain in gains if not isnan(gain.mean)]
    if means:
        most = max(1.0, 1.8 * max(abs(mean) for mean in means))
        axes.set_xlim(-most, most)


def save(results: "Results", folder: Path) -> None:
    """Every figure as PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results).items():
        with replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=160)
        write_text(folder / f"{name}.svg", svg(figure, name))


def svg(figure: Figure, name: str, themed: bool = False) -> str:
    """The figure as SVG, the same bytes for the same figures. `themed`: colours and fonts are the page's, and no background is drawn."""
    held = io.StringIO()
    # The salt keeps the ids of two drawings on one page apart.
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        if themed:
            figure.patch.set_alpha(0)
            for axes in figure.axes:
                axes.patch.set_alpha(0)
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    text = held.getvalue()
    if not themed:
        return text
    text = text[text.index("<svg") :]
    for colour, variable in THEMED.items():
        text = text.replace(colour, f"var({variable})")
    tag, rest = text.split(">", 1)
    wide = f' style="max-width: {6.2 * figure.get_size_inches()[0]:.1f}rem; min-width: {3.4 * figure.get_size_inches()[0]:.1f}rem"'
    return re.sub(r'\s(?:width|height)="[^"]*"', "", tag) + wide + ">" + rest
