"""What years in a style's real paintings make of a reading: the ceiling of what `--period` can show a judge within a style.

    python -m benchmarks.period_real --data paintings/ --work work/

Dated paintings of the test split, by artists that no reader has seen, in the styles that the judges know. Each reader's year is compared
with the true one inside each style: the slope of reading on year with the styles' means taken out, and pairs of paintings of one style that
lie 75 to 125 years apart. Beside them stand pairs at most 10 years apart in either order, since one painting differs from another in more
than its date. Readings are kept in `work/period`. Prints Markdown.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from benchmarks.period import ENOUGH, KNOWN
from probes import encoders, judge
from probes.atomic import write_text
from probes.judges import STYLES
from probes.period import PeriodProbe
from recipes import data, options

BATCH = 64
APART, ALIKE = (75.0, 125.0), (0.0, 10.0)  # years between the paintings of a pair, both ends included
DRAWS = 1000


def reader(name: str):
    """A function from images (n, 3, h, w) to their years (n,), and its weights: the guide's head, or a judge by name."""
    if name != "guide":
        judge_ = judge.load(name)
        return lambda images: judge_(judge_.fit(images)).years, judge_.identity
    encoder = encoders.load("embedded")
    probe = PeriodProbe(encoder)
    return lambda images: probe.read(encoder.describe(images))["year"], encoder.fingerprint


@torch.no_grad()
def years_read(name: str, images: np.ndarray, rows: np.ndarray, work: Path) -> np.ndarray:
    """The reader's year (n,) of each of these rows, from `work` where it was read before."""
    read, weights = reader(name)
    store = work / "period" / f"real-{name}-{weights[:8]}-{len(rows)}.json"
    if not store.exists():
        parts = np.array_split(rows, -(-len(rows) // BATCH))
        found: list[Tensor] = [read(data.batch(images, part)) for part in track(parts, description=name)]
        write_text(store, json.dumps(torch.cat(found).tolist()))
    return np.array(json.loads(store.read_text(encoding="utf-8")))


def pairs(styles: np.ndarray, years: np.ndarray, apart: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the earlier and of the later painting of each pair of one style that lie so far apart; equal years in both orders."""
    found = []
    for style in sorted(set(styles)):
        rows = np.flatnonzero(styles == style)
        between = years[rows][None] - years[rows][:, None]
        first, second = np.nonzero((between >= apart[0]) & (between <= apart[1]) & ~np.eye(len(rows), dtype=bool))
        found.append((rows[first], rows[second]))
    first, second = (np.concatenate(part) for part in zip(*found, strict=True))
    return first, second


def figures(table: pd.DataFrame, read: np.ndarray, weights: np.ndarray, sets: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """With a weight (n,) for each painting: the slope, then of each set of pairs the mean that the later one reads later, and the share of
    those that read `ENOUGH` years later or more."""
    years, codes = table["year"].to_numpy(), pd.Categorical(table["style"]).codes
    held = np.maximum(np.bincount(codes, weights), 1e-9)
    inside = [values - (np.bincount(codes, weights * values) / held)[codes] for values in (years, read)]
    out = [float((weights * inside[0] * inside[1]).sum() / max((weights * inside[0] ** 2).sum(), 1e-9))]
    for first, second in sets:
        both, later = weights[first] * weights[second], read[second] - read[first]
        total = max(both.sum(), 1e-9)
        out += [float((both * later).sum() / total), float((both * (later >= ENOUGH)).sum() / total)]
    return out


def drawn(artists: pd.Series) -> Iterator[np.ndarray]:
    """How often each painting occurs where its artists are drawn with replacement."""
    rng, (codes, names) = np.random.default_rng(0), pd.factorize(artists)
    for _ in range(DRAWS):
        yield np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[codes].astype(float)


def main(folder: options.Data, work: options.Work = Path("work"), readers: str = "guide,referee,verdict"):
    """Slope within a style and what pairs of paintings read, by reader, with 95 % intervals over artists."""
    images, table = data.paintings(folder, work)
    known = table["style"].isin(STYLES) & table["year"].astype(float).between(*KNOWN) & (table["split"] == "test")
    rows = np.flatnonzero(known)
    table = table.iloc[rows].assign(year=table["year"].iloc[rows].astype(float)).reset_index(drop=True)
    sets = [pairs(table["style"].to_numpy(), table["year"].to_numpy(), apart) for apart in (APART, ALIKE)]
    print("| reader | slope within a style | a century apart: later by | 25 years or more later | 10 years apart at most: so much later |")
    print("|---" * 5 + "|")
    for name in readers.split(","):
        read = years_read(name, images, rows, work)
        found = figures(table, read, np.ones(len(read)), sets)
        low, high = np.percentile([figures(table, read, weights, sets) for weights in drawn(table["artist"])], (2.5, 97.5), axis=0)
        slope, later, enough = (f"{one:.{n}f} [{a:.{n}f}, {b:.{n}f}]" for one, a, b, n in zip(found, low, high, (2, 0, 2), strict=False))
        print(f"| {name} | {slope} | {later} years | {enough} | {found[4]:.2f} |", flush=True)
    print(f"\n{len(table)} paintings by {table['artist'].nunique()} artists; {len(sets[0][0])} pairs a century apart, in "
          f"{table['style'].iloc[sets[0][0]].nunique()} styles: {_told(table['style'].iloc[sets[0][0]])}.")


def _told(styles: pd.Series) -> str:
    """`romanticism 63 %, baroque 20 %`, the largest first."""
    return ", ".join(f"{style} {share:.0%}" for style, share in styles.value_counts(normalize=True).items())


if __name__ == "__main__":
    options.start(main)
