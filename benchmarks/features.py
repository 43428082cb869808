"""How good heads on real CLIP ViT-L/14@336 features are, beside simple baselines, with artists or prompts held out. No images, no network.

python -m benchmarks.features --data clip-features/ [--repeats 10] [--draws 20] [--only style,year,origin,ratings,shots] [--out x.json]

Every split that is done is kept in `--work`, so that a call of at most `--minutes` can be repeated until all are there.
"""
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import feature_heads
from benchmarks.feature_heads import OutOfTime, Run
from benchmarks.labelled_features import read
from probes.atomic import write_text
from probes.reliability import Interval


def main(data: Annotated[Path, typer.Option(help="Folder with nga.parquet and ai_pastiche.parquet.")], repeats: int = 10, draws: int = 20,
         only: str = "style,year,origin,ratings,shots", out: Path | None = None,
         work: Annotated[Path, typer.Option(help="Where splits that are done are kept.")] = Path("work"),
         minutes: Annotated[float, typer.Option(help="Stop after so long; the same command goes on.")] = 10.):
    files = data / "nga.parquet", data / "ai_pastiche.parquet"
    nga, made = read(files[0], "artist"), read(files[1], "prompt")
    until = time.monotonic() + 60 * minutes
    parts = {"style": (feature_heads.style, nga), "year": (feature_heads.year, nga), "origin": (feature_heads.origin, nga, made),
             "ratings": (feature_heads.ratings, made), "shots": (feature_heads.shots, nga)}
    figures = {}
    for part in only.split(","):
        began = time.perf_counter()
        function, *features = parts[part]
        kept = work / "features" / f"{part}-{feature_heads.digest(function, *files)}"
        try:
            figures[part] = function(*features, Run(draws if part == "shots" else repeats, kept, until))
        except OutOfTime:
            typer.echo(f"{minutes:g} minutes are over during {part}; the same command goes on from there.")
            raise typer.Exit(3) from None
        splits = f"{draws} draws" if part == "shots" else f"{repeats} repeats"
        print(f"\n{part}: {time.perf_counter() - began:.0f} s, {splits}", flush=True)
        show(figures[part])
        if out:
            write_text(out, json.dumps(figures, indent=1) + "\n")


def show(found: dict) -> None:
    for name, rows in found.items():
        print(f"  {name}")
        if isinstance(rows, dict):
            print("".join(f"    {key}: {value}\n" for key, value in rows.items()), end="")
            continue
        for row in rows:
            figure, gain = Interval(**row["figure"]), row["gain"]
            more = "".join(f" {key} {row[key]:.3f}" for key in ("slope", "spearman") if key in row)
            print(f"    {row['candidate']:28} {figure}{more}" + (f"  over {row['over']}: {Interval(**gain)}" if gain else ""))


if __name__ == "__main__":
    typer.run(main)
