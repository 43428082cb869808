"""Command-line options that the recipes share."""

from pathlib import Path
from typing import Annotated

import torch
import typer

Data = Annotated[Path, typer.Option("--data", help="Folder of paintings with metadata.csv.", exists=True, file_okay=False)]
Work = Annotated[Path, typer.Option(help="Where caches, checkpoints and results go.")]
Minutes = Annotated[float, typer.Option(help="Training time; a run that was interrupted goes on with what is left of it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Start = Annotated[Path | None, typer.Option(help="Warm start from this folder, for example the shipped weights.")]


def device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)
