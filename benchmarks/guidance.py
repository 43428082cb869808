"""Guided against unguided, every style that the embedded models know, with the style in the prompt and by guidance alone.

    python -m benchmarks.guidance --seeds 0-15 --out outputs/benchmark

Writes results.json and prints a Markdown table. An interrupted run goes on where it stopped.
"""

import json
import platform
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress

from guide.brief import Brief, parse_seeds
from guide.compare import compare
from guide.comparison import ALL, Effect
from guide.run import Request
from probes.judges import STYLES

FACTORS = {"style in the prompt": True, "guidance alone": False}


def cells(effect: Effect) -> dict[str, str]:
    """The figures of one strategy that the table shows."""
    gains = {
        name: str(effect.differences[name]) if effect.differences else "" for name in ("guide_gain", "verdict_gain", "kept_difference")
    }
    return {
        "kept": f"{effect.means['kept']:.0%}",
        **gains,
        "transfer": str(effect.transfer or ""),
        "MS-SSIM": f"{effect.means['ms_ssim']:.2f}",
        "s/picture": f"{effect.means['seconds']:.2f}",
    }


def main(
    seeds: Annotated[str, typer.Option(help="Seeds of every style.")] = "0-15",
    strategies: Annotated[str, typer.Option(help="Strategies, the baseline first.")] = "unguided,clean-image",
    strength: Annotated[float | None, typer.Option(help="Strength of guidance; default the model's.")] = None,
    styles: Annotated[str, typer.Option(help="Styles; default all that the embedded models know.")] = ",".join(STYLES),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for pictures and figures.")] = Path("outputs/benchmark"),
):
    found, lines = {}, []
    with Progress() as bar:
        for factor, name_style in FACTORS.items():
            task = bar.add_task(factor, total=None)
            request = Request(
                Brief(name_style=name_style), out / factor.replace(" ", "-"), parse_seeds(seeds), strength=strength, device=device, batch=8
            )
            result = compare(
                request,
                styles.split(","),
                strategies.split(","),
                lambda what, done, total, task=task: bar.update(task, total=total or None, completed=done),
            )
            found[factor] = [
                vars(effect)
                | {
                    "differences": {k: vars(v) for k, v in effect.differences.items()},
                    "transfer": effect.transfer and vars(effect.transfer),
                }
                for effect in result.effects
            ]
            for effect in result.effects:
                if effect.style == ALL or len(styles.split(",")) == 1:
                    row = cells(effect)
                    lines = lines or ["| factor | strategy | " + " | ".join(row) + " |", "|---" * (len(row) + 2) + "|"]
                    lines.append(f"| {factor} | {effect.strategy} | " + " | ".join(row.values()) + " |")
    told = {
        "date": date.today().isoformat(),
        "hardware": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "effects": found,
    }
    (out / "results.json").write_text(json.dumps(told, indent=1, default=str))
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
