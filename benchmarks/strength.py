"""How hard to steer: gain of guide and referee, and distance from the unguided picture, at several strengths.

    python -m benchmarks.strength --strengths 0.5,1,2,4,8 --styles baroque,ukiyo-e,cubism --seeds 100-103

The default strength in configs/models is chosen from this table: by the referee, never by the verdict, on seeds that no other figure uses.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from guide.brief import Brief, parse_seeds
from guide.compare import compare
from guide.comparison import ALL
from guide.run import Request


def main(
    strengths: Annotated[str, typer.Option(help="Strengths to try.")] = "0.5,1,2,4,8",
    styles: Annotated[str, typer.Option(help="Styles.")] = "baroque,ukiyo-e,cubism,rococo,pointillism",
    seeds: Annotated[str, typer.Option(help="Seeds of every style.")] = "100-103",
    name_style: Annotated[bool, typer.Option(help="Name the style in the prompt, or leave it to guidance.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for pictures and figures.")] = Path("outputs/strength"),
):
    table = Table("strength", "guide gain", "referee gain", "kept by referee", "MS-SSIM to unguided", "s/picture")
    with Progress() as bar:
        for strength in map(float, strengths.split(",")):
            task = bar.add_task(f"strength {strength:g}", total=None)
            request = Request(
                Brief(name_style=name_style), out / f"{strength:g}", parse_seeds(seeds), strength=strength, judge="referee", batch=8
            )
            found = compare(
                request,
                styles.split(","),
                ["unguided", "clean-image"],
                lambda what, done, total, task=task: bar.update(task, total=total or None, completed=done),
            )
            effect = next(e for e in reversed(found.effects) if e.strategy == "clean-image" and e.style in (ALL, styles))
            gains = (str(effect.differences[name]) for name in ("guide_gain", "verdict_gain"))
            means = effect.means
            table.add_row(f"{strength:g}", *gains, f"{means['kept']:.0%}", f"{means['ms_ssim']:.2f}", f"{means['seconds']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
