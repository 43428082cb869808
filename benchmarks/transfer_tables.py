"""Tables and a sheet of `benchmarks.transfer`: each method's means, and ours less each baseline with intervals over contents."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from guide import sheet as sheets
from guide.statistics import mean_difference

MEASURED = ("structure", "ms-ssim")  # distances in which ours may be no farther than the baseline it is compared with
SHOWN = 8  # pairs on the sheet


def means(cells: pd.DataFrame) -> list[str]:
    """A row a method. The product is made like ArtFID (arXiv:2207.12280), of the embedded encoder's distances: lower is better."""
    lines = ["| method | pairs | gain | kept | structure | ms-ssim | damage | ArtFID-like, embedded features | processor s/picture |",
             "|---" * 9 + "|"]
    for method, group in cells.groupby("method", sort=False):
        mean = group.mean(numeric_only=True)
        product = ((1 + group.structure) * (1 + group.brushwork)).mean()
        lines.append(f"| {method} | {len(group)} | {mean.gain:+.2f} | {mean.kept:.0%} | {mean.structure:.3f} | {mean['ms-ssim']:.3f} | "
                     f"{mean.damage:+.3f} | {product:.3f} | {mean.processor_seconds:.1f} |")
    return lines


def paired(cells: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of content and style at which a method that is held to a baseline and that baseline are both there, side by side."""
    baseline = method.split(" within ")[1]
    own, other = (cells[cells.method == name].set_index(["photograph", "style"]) for name in (method, baseline))
    return own.join(other.add_suffix(" of baseline"), how="inner").reset_index()


def at_equal_distance(cells: pd.DataFrame) -> list[str]:
    """Ours less the baseline, no farther from the photograph in either distance; 95 % intervals over contents."""
    lines = ["| ours | baseline | pairs | gain | baseline's | difference | ahead | farther | damage, difference |", "|---" * 9 + "|"]
    for method in [name for name in cells.method.unique() if " within " in name]:
        found = paired(cells, method)
        if found.empty:
            continue
        apart, contents = found.gain - found["gain of baseline"], found.photograph.tolist()
        damage = mean_difference(found.damage - found["damage of baseline"], contents)
        ours, baseline = method.split(" within ")
        lines.append(f"| {ours} | {baseline} | {len(found)} | {found.gain.mean():+.2f} | {found['gain of baseline'].mean():+.2f} | "
                     f"{mean_difference(apart, contents)} | {(apart > 0).mean():.0%} | {farther(found).mean():.0%} | {damage} |")
    return lines


def farther(found: pd.DataFrame) -> pd.Series:
    """Where ours is more than a fiftieth, and .002, beyond the baseline in one of the distances."""
    beyond = [found[metric] > 1.02 * found[f"{metric} of baseline"] + .002 for metric in MEASURED]
    return beyond[0] | beyond[1]


def sheet(out: Path, pairs: Sequence[tuple[str, str]], methods: Sequence[str], stem: Callable[..., Path]) -> None:
    """Some pairs, of different contents and styles as far as there are, a column a method."""
    rows = []
    for name, style in pairs[::max(1, len(pairs) // SHOWN)][:SHOWN]:
        cells = [sheets.Cell(Image.open(stem(out, name, style, method).with_suffix(".png")), (method,)) for method in methods]
        rows.append(sheets.Row(style, tuple(cells), name))
    if rows:
        sheets.save(out / "sheet.png", "Transfer", [sheets.Block("", tuple(rows))], side=128)
