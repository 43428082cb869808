"""All recipes in order, from a folder of paintings to the folders that ship. Training goes on where it was interrupted; fits and
measurements are done anew, from embeddings and pictures that are kept.

    python -m recipes.everything --data paintings/ --work work/ --minutes 180 --hardware "2 CPU cores"
    python -m recipes.everything --data paintings/ --work work/ --smoke

The results replace the embedded weights of this checkout, or those of a copy of its code where `--into` names one; `--smoke` trains each
model for a few steps, into a copy below `--work`, to see whether everything runs. The CLIP is trained in one run; the one that ships took
two, which recipes/README.md has.
"""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from probes.errors import UserError
from probes.judges import STYLES
from recipes import options

ROOT = Path(__file__).parents[1]
CODE = ("cli.py", "configs", "guide", "probes", "recipes")
# Share of the training time; the order is that of what needs what.
SHARES = {"autoencoder": 0.13, "clip": 0.2, "denoiser": 0.4, "decoder": 0.07, "preview": 0.02, "referee": 0.09, "baseline": 0.09}
JUDGED = ("referee", "baseline")  # learn the judges' styles alone
# What a smoke run trains: long enough for every branch of a recipe (crops of both sizes, the frozen text tower, attacks) to have run.
SMOKE = {
    "autoencoder": ("--steps", "10", "--batch-size", "4"),
    "clip": ("--steps", "10", "--batch-size", "16"),
    "denoiser": ("--steps", "10", "--batch-size", "8"),
    "decoder": ("--steps", "5", "--batch-size", "4"),
    "preview": ("--steps", "5", "--batch-size", "4"),
    "referee": ("--steps", "10", "--batch-size", "16"),
    "baseline": ("--steps", "5", "--batch-size", "16"),
    "heads": ("--count", "30"),
    "sensitivity": ("--count", "3", "--steps", "10"),
    "measure_pipeline": ("--most", "2", "--fewest", "2", "--steps", "2", "--repeats", "1"),
    "measure_agreement": ("--most", "2", "--fewest", "2", "--steps", "2"),
    "measure_diversity": ("--most", "2", "--fewest", "2", "--steps", "2"),
    "measure_words": ("--seeds", "1", "--steps", "2"),
    "sample_grids": ("--seeds", "1", "--steps", "2"),
}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: Annotated[float, typer.Option(help="Training time over all models; fitting and measuring take more.", min=1)] = 180.0,
    device: options.Device = "auto",
    hardware: Annotated[str, typer.Option(help="What it runs on, in words, for the cards.")] = "2 CPU cores",
    preset: options.Preset = "cpu",
    seed: options.Seed = 0,
    processes: Annotated[int, typer.Option(help="GPUs (or CPU processes) to train on.", min=1)] = 1,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few steps of everything, into a copy of the code below --work.")] = False,
    into: Annotated[
        Path | None, typer.Option("--into", "--root", help="Copy the code here and put the weights there, instead of into this checkout.")
    ] = None,
):
    """Everything from paintings to shipped folders."""
    into = into or (work / "checkout" if smoke else ROOT)
    if into.resolve() != ROOT.resolve():
        copy(into)
        given = {"data": folder.resolve(), "work": work.resolve(), "minutes": minutes, "device": device, "hardware": hardware,
                 "preset": preset, "seed": seed, "processes": processes, "into": into.resolve()}  # fmt: skip
        arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))] + ["--smoke"] * smoke
        done = subprocess.run([sys.executable, "-m", "recipes.everything", *arguments], cwd=into, check=False)
        raise SystemExit(done.returncode)
    for recipe, arguments in stages(folder, work, minutes, device, hardware, preset, seed, smoke):
        typer.echo(f"== {recipe}")
        if recipe in SHARES and processes > 1:
            # What `accelerate launch` runs on GPUs; on CPUs that command wants MPI, this does not.
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
            run(*launch, f"recipes.{recipe}", *arguments)
        elif smoke:
            call(recipe, arguments)
        else:
            run("-m", f"recipes.{recipe}", *arguments)
    typer.echo("== known answers")
    run("-m", "guide.doctor")


def run(*arguments: str):
    """Python with these arguments; where that fails, this ends as it ended: what went wrong it has said itself."""
    done = subprocess.run([sys.executable, *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def stages(folder: Path, work: Path, minutes: float, device: str, hardware: str, preset: str, seed: int, smoke: bool):
    """Every recipe with its arguments, as they are to be run; what needs styles that the judges know is left out where there are none."""
    where, on = ["--data", str(folder), "--work", str(work)], ["--device", device]
    for name, share in SHARES.items():
        if name not in JUDGED or judged(folder, work):
            budget = SMOKE[name] if smoke else ("--minutes", f"{share * minutes:g}")
            yield name, [*where, *on, "--preset", preset, "--seed", str(seed), *budget]
    if not judged(folder, work):
        typer.echo(
            "Heads, judges, measurements and cards are left out: they need paintings in styles that the judges know, at least two of those "
            f"in split guide and some in judge and test ({', '.join(STYLES)}). What was trained is in {work}; recipes.assemble puts it "
            "into the shipped folders."
        )
        return
    small = SMOKE if smoke else {}
    installed = "assemble", ["--work", str(work)]
    yield "verdict", where
    yield "measure_judges", [*where, *on]
    yield installed  # the origin head learns from pictures of the installed pipeline
    yield "heads", [*where, *on, *small.get("heads", ())]
    yield "brushwork", [*where, *on, "--seed", str(seed)]
    yield "sensitivity", [*where, *on, *small.get("sensitivity", ())]
    yield installed
    for name in ("measure_pipeline", "measure_agreement"):
        yield name, [*where, *on, *small.get(name, ())]
    for name in ("measure_diversity", "measure_words"):
        yield name, [*where, *small.get(name, ())]
    yield "sample_grids", ["--work", str(work), *small.get("sample_grids", ())]
    yield "cards", ["--work", str(work), "--hardware", hardware]


def judged(folder: Path, work: Path) -> bool:
    """Whether each split has paintings in styles that the judges know, and the guide in two of them: a head tells them apart."""
    from recipes import data

    _, table = data.paintings(folder, work)
    table = table[table["style"].isin(STYLES)]
    return set(table["split"]) == {"guide", "judge", "test"} and table["style"][table["split"] == "guide"].nunique() > 1


def copy(target: Path):
    """The code without the weights; files that are there already are replaced."""
    if target.exists() and any(target.iterdir()) and not (target / "recipes" / "everything.py").is_file():
        raise UserError(f"{target} is there and no copy of this project: choose another folder for --into.")
    target.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, target / name)


def call(recipe: str, arguments: list[str]):
    """A recipe in this process, by the arguments of its command line: a smoke run would spend half its time importing torch again."""
    app = typer.Typer()
    app.command()(importlib.import_module(f"recipes.{recipe}").main)
    app(arguments, standalone_mode=False)


if __name__ == "__main__":
    options.start(main)
