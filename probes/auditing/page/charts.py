"""Histograms and scatter plots as plain geometry, in the pixels of an SVG that a template draws; no text is made into markup here."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import numpy as np

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 24


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    series: int
    said: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    row: int
    kind: str
    said: str


@dataclass(frozen=True)
class Chart:
    """`ticks` below and `steps` at the left are (pixel, label); `names` are the series; `width` and `height` the view box."""

    title: str
    about: str
    ticks: tuple[tuple[float, str], ...]
    steps: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    names: tuple[str, ...] = ()
    reliability: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    line: tuple[float, float, float, float] | None = None


def histogram(title: str, series: dict[str, Sequence[float]], about: str = "", reliability: str = "",
              span: tuple[float, float] | None = None, bins: int = 20, least: float = 0.0) -> Chart | None:  # fmt: skip
    """Counts of each series' values side by side in equal bins; None where there is no value."""
    finite = {name: (every := np.asarray(values, float))[np.isfinite(every)] for name, values in series.items()}
    found = {name: kept for name, kept in finite.items() if len(kept)}
    if not found:
        return None
    whole = np.concatenate(list(found.values()))
    low, high = span or round_span(float(whole.min()), float(whole.max()), least)
    step = (high - low) / bins
    places = {name: ((kept - low) / step).astype(int).clip(0, bins - 1) for name, kept in found.items()}
    counts = {name: np.bincount(at, minlength=bins).tolist() for name, at in places.items()}
    most = max(max(some) for some in counts.values())
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot, each = wide / bins, wide / bins / len(found)
    bars = []
    for number, (name, some) in enumerate(counts.items()):
        for k, count in enumerate(some):
            if count:
                tip = f"{name + ': ' if len(found) > 1 else ''}{count} between {label(low + k * step)} and {label(low + (k + 1) * step)}"
                high_as = tall * count / most
                bars.append(Bar(LEFT + k * slot + number * each, TOP + tall - high_as, max(each - 0.8, 0.6), high_as, number, tip))
    ticks = tuple((LEFT + wide * share, label(low + share * (high - low))) for share in (0, 0.25, 0.5, 0.75, 1))
    return Chart(title, about, ticks, ((TOP, str(most)), (TOP + tall, "0")), tuple(bars), names=tuple(found), reliability=reliability)


def scatter(title: str, points: Sequence[tuple[float, float, int, str, str]], about: str = "", reliability: str = "",
            least: float = 0.0) -> Chart | None:  # fmt: skip
    """Points (x, y, row, kind, said) on axes of one scale, `least` long or more, with the line of agreement; None without any."""
    kept = [point for point in points if isfinite(point[0]) and isfinite(point[1])]
    if not kept:
        return None
    values = [value for point in kept for value in point[:2]]
    low, high = round_span(min(values), max(values), least)
    width, height = 460, 320
    wide, tall = width - LEFT - 10 - RIGHT, height - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + 10 + wide * (x - low) / (high - low), TOP + tall * (1 - (y - low) / (high - low))

    dots = tuple(Dot(*at(x, y), row, kind, said) for x, y, row, kind, said in kept)
    places = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    ticks = tuple((at(place, low)[0], label(place)) for place in places)
    steps = tuple((at(low, place)[1], label(place)) for place in places)
    line = (*at(low, low), *at(high, high))
    return Chart(title, about, ticks, steps, dots=dots, reliability=reliability, width=width, height=height, line=line)


def round_span(low: float, high: float, least: float = 0.0) -> tuple[float, float]:
    """A span around both ends, `least` wide or more, whose quarters are short numbers."""
    least = max(least, 0.0 if high > low else max(abs(low), 1.0 if low == 0 else 1e-3))
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    unit = 10 ** floor(log10((high - low) / 4))
    for step in (unit, 2 * unit, 2.5 * unit, 5 * unit, *([7.5 * unit] if unit >= 10 else []), 10 * unit, 20 * unit):
        first = floor(low / step) * step
        if first + 4 * step >= high - 1e-12:
            return first, first + 4 * step
    return low, high


def label(value: float) -> str:
    """At most four digits."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
