"""All recipes in order, from a folder of paintings to the folders that ship. What is finished is skipped, what was interrupted goes on.

    python -m recipes.everything --data paintings/ --work work/ --minutes 180 --hardware "2 CPU cores"
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from recipes import options

# Share of the training time; the order is that of what needs what.
SHARES = {"autoencoder": 0.14, "clip": 0.22, "denoiser": 0.46, "decoder": 0.08, "referee": 0.10}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: Annotated[float, typer.Option(help="Training time over all models; fitting and measuring take more.")] = 180.0,
    device: options.Device = "auto",
    hardware: Annotated[str, typer.Option(help="What it runs on, in words, for the cards.")] = "2 CPU cores",
):
    where, on = ["--data", str(folder), "--work", str(work)], ["--device", device]
    for name, share in SHARES.items():
        run(name, *where, *on, "--minutes", f"{share * minutes:g}")
    run("heads", *where, *on)
    run("verdict", *where)
    run("measure_judges", *where, *on)
    run("assemble", "--work", str(work))
    run("measure_pipeline", *where, *on)
    run("cards", "--work", str(work), "--hardware", hardware)
    subprocess.run([sys.executable, "-m", "guide.doctor"], check=True)


def run(recipe: str, *arguments: str):
    """One recipe in a process of its own; its failure ends the whole, and the next call goes on from its checkpoint."""
    typer.echo(f"== {recipe}")
    subprocess.run([sys.executable, "-m", f"recipes.{recipe}", *arguments], check=True)


if __name__ == "__main__":
    typer.run(main)
