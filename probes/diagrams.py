"""Pictures of what probes say and how well: confusion, reliability, relevance, deletion; PNG by matplotlib, drawn without a screen."""
from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.atomic import replacing
from probes.errors import UserError
from probes.reliability import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.relevance import Check

INK, ACCENT, PALE, AGAINST = "#222222", "#b5442e", "#c9c5be", "#2f6690"


def confusion(matrix: np.ndarray, labels: Sequence[str], title: str = "") -> Figure:
    """Counts `(k, k)`, true labels down and read ones across, shaded by the share of each true label; the diagonal is recall."""
    count = len(labels)
    side = min(max(4., .48 * count + 2.4), 16.)
    figure, axes = _figure((side + .6, side))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=_reds(), vmin=0, vmax=1)
    size = 9 if count <= 12 else 7 if count <= 24 else 0
    for true in range(count if size else 0):
        for read in range(count):
            if matrix[true, read]:
                shade = "white" if shares[true, read] > .75 else INK
                axes.text(read, true, f"{shares[true, read]:.0%}".rstrip("%"), ha="center", va="center", fontsize=size, color=shade)
    axes.set_xticks(range(count), [*map(_plain, labels)], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), [f"{_plain(label)} ({int(total)})" for label, total in zip(labels, matrix.sum(1), strict=True)])
    axes.set(xlabel="read as", ylabel="labelled", title=title or "Percent of each label, by what it is read as")
    axes.tick_params(length=0)
    return figure


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10, title: str = "") -> Figure:
    """Confidence `(n,)` in [0, 1] against the share that is right, over equal bins, with 95 % Wilson intervals; below, how many."""
    figure, axes = _figure((4.6, 5.2), rows=(4, 1))
    above, below = axes
    place = np.clip((np.asarray(confidence) * bins).astype(int), 0, bins - 1)
    above.plot([0, 1], [0, 1], color=PALE, lw=1.5, zorder=1)
    for number in range(bins):
        inside = place == number
        if inside.any():
            low, high = wilson(float(right[inside].mean()), int(inside.sum()))
            at = float(confidence[inside].mean())
            above.plot([at, at], [low, high], color=ACCENT, lw=1.2)
            above.plot(at, right[inside].mean(), "o", color=ACCENT, ms=5)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right", title=title or "Says how sure, and is right how often")
    below.hist(confidence, bins=bins, range=(0, 1), color=PALE)
    below.set(xlim=(0, 1), xlabel="confidence in the first label", ylabel="pictures")
    above.tick_params(labelbottom=False)
    return figure


def years(truth: np.ndarray, read: np.ndarray, title: str = "") -> Figure:
    """Years `(n,)` read over true ones, on one scale; on the line they agree."""
    figure, axes = _figure((4.8, 4.8))
    low, high = (float(edge(np.concatenate([truth, read]))) for edge in (np.min, np.max))
    room = .03 * (high - low) + 1
    axes.plot([low - room, high + room], [low - room, high + room], color=PALE, lw=1.5, zorder=1)
    axes.plot(truth, read, "o", color=ACCENT, ms=4, alpha=.5, mew=0)
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), xlabel="true year", ylabel="read as",
             title=title or "Years read, over true ones")
    axes.set_aspect("equal")
    return figure


def relevance(picture: np.ndarray, values: np.ndarray, label: str) -> Figure:
    """Picture `(h, w, 3)` in [0, 1] beside itself in grey under its relevance `(h, w)`: red speaks for the label, blue against it."""
    figure, (left, right) = _figure((7.6, 4.1), columns=2)
    left.imshow(picture)
    left.set_title("what the encoder sees", fontsize=10)
    right.imshow(picture.mean(-1), cmap="gray", vmin=-.3, vmax=1.3)
    bound = float(np.abs(values).max()) or 1.
    # Alpha by size, so that a place that says nothing shows the picture.
    right.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, alpha=.85 * (np.abs(values) / bound) ** .6)
    right.set_title(f"red speaks for {_plain(label)}, blue against", fontsize=10)
    for axes in (left, right):
        axes.set_axis_off()
    return figure


def damage(picture: np.ndarray, severity: np.ndarray) -> Figure:
    """Picture `(h, w, 3)` in [0, 1] beside itself in grey under a map of severity `(h, w)`, in [0, 1], on one scale for all pictures."""
    figure, (left, right) = _figure((7.6, 4.1), columns=2)
    left.imshow(picture)
    left.set_title("the picture", fontsize=10)
    right.imshow(picture.mean(-1), cmap="gray", vmin=-.3, vmax=1.3)
    right.imshow(severity, cmap="Reds", vmin=0, vmax=1, alpha=.9 * severity.clip(0, 1) ** .5)
    right.set_title("damage: the redder the more severe", fontsize=10)
    for axes in (left, right):
        axes.set_axis_off()
    return figure


def deletion(found: Check, unit: str) -> Figure:
    """The score while the map's places are taken away, over the same for maps that chance has shifted (5 to 95 %, and their mean)."""
    figure, axes = _figure((4.6, 3.4))
    shares, chance = np.array([0, *found.shares]), np.array(found.random)
    chance = np.concatenate([np.full((len(chance), 1), found.whole), chance], 1)
    axes.fill_between(100 * shares, *np.quantile(chance, [.05, .95], axis=0), color=PALE, alpha=.6, lw=0, label="shifted by chance, 5-95 %")
    axes.plot(100 * shares, chance.mean(0), color="#8a857c", lw=1.2, label="their mean")
    axes.plot(100 * shares, [found.whole, *found.kept], "o-", color=ACCENT, ms=4, label="most relevant first")
    axes.set(xlabel="percent of the picture taken away", ylabel=unit, title="Occlusion check")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _plain(label: str) -> str:
    """A label as it is, on one line: matplotlib takes what stands between two dollars for a formula."""
    return " ".join(label.split()).replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """The figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def png(figure: Figure) -> bytes:
    """The figure as PNG, for a page that holds its own pictures."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=130)
    return held.getvalue()


def _figure(size: tuple[float, float], rows: Sequence[float] = (1,), columns: int = 1):
    """A figure that belongs to no window, and its axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("diagrams need matplotlib; pip install matplotlib.") from None
    figure = Figure(size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, height_ratios=list(rows))
    for one in np.ravel(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8, colors=INK)
        one.xaxis.label.set_size(9)
        one.yaxis.label.set_size(9)
        one.title.set_size(10)
    return figure, axes


def _reds():
    from matplotlib.colors import LinearSegmentedColormap
    return LinearSegmentedColormap.from_list("paper to red", ["#ffffff", "#f0cfc6", ACCENT])
