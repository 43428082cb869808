"""Command-line options that the recipes share, and how a recipe starts."""

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from guide import pipelines
from probes import devices
from probes.errors import UserError
from recipes import training

Data = Annotated[
    Path, typer.Option("--data", help="Folder of images, with a metadata table or class folders: README.md.", exists=True, file_okay=False)
]
Work = Annotated[Path, typer.Option(help="Where caches, checkpoints and results go.")]
Minutes = Annotated[
    float | None, typer.Option(help="Training time; an interrupted run goes on with what is left. Default: the preset's.", min=0.01)
]
Steps = Annotated[int | None, typer.Option(help="Train this many steps instead, repeatable bit for bit on the same machine.", min=1)]
Seed = Annotated[int, typer.Option(help="Of initial weights, batches and augmentation.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; under `accelerate launch` each process has its own.")]
Start = Annotated[
    Path | None, typer.Option(help="Warm start from this folder, for example the shipped weights.", exists=True, file_okay=False)
]
Preset = Annotated[str, typer.Option(help="Size of model, batch and training time: cpu, gpu.")]
Side = Annotated[int, typer.Option(help="Width of the pictures in pixels: 128, or 192 from larger images.", min=64, max=512)]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Images a step and process. Default: the preset's.", min=1)]

Model = TypeVar("Model", bound=nn.Module)

ROOT = Path(__file__).parents[1]
DECIDING = ("--minutes", "--steps", "--batch-size", "--rate", "--seed", "--preset", "--side", "--robust", "--freeze", "--blend")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def device(name: str) -> torch.device:
    """The device by its name; `auto` prefers an accelerator. UserError where it is not here: accelerate would take the CPU instead."""
    try:
        torch.empty(0, device=devices.select(name))
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"The device {name!r} is not to be had here ({str(error).splitlines()[0]}); try --device cpu.") from None
    return torch.device(devices.select(name))


def accelerator(name: str, repeatable: bool = False) -> Accelerator:
    """The process's accelerator on the named device; `repeatable` forbids cuDNN to choose its algorithms by a race, and a CPU to share
    its sums among threads, whose order is another one each time."""
    device(name)
    if ":" in name:
        os.environ["ACCELERATE_TORCH_DEVICE"] = name  # accelerate takes the first one otherwise
    if repeatable:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        if device(name).type == "cpu":
            torch.set_num_threads(1)
    return training.accelerator(device(name))


def chosen(presets: dict[str, dict], name: str, **given) -> dict:
    """The preset with what was given on the command line in its place; UserError where there is no such preset."""
    if name not in presets:
        raise UserError(f"There is no preset {name!r}: choose one of {', '.join(presets)}.")
    return presets[name] | {key: value for key, value in given.items() if value is not None}


@contextmanager
def warm(start: Path | None) -> Iterator[None]:
    """Read the weights of a warm start inside; UserError where the folder holds none that fit the recipe."""
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        if start is None:
            raise
        missing = isinstance(error, FileNotFoundError) and error.filename
        reason = f"{Path(error.filename).name} is not there" if missing else " ".join(str(error).split())[:160].removesuffix(".")
        raise UserError(f"--start {start} holds no weights that this recipe can begin with ({reason}): see README.md.") from error


def whole(model: Model) -> Model:
    """The model as diffusers read it; ValueError where its file lacked weights of it, as another class's does: diffusers only warns."""
    missing = [name for name, value in model.named_parameters() if value.is_meta]
    if missing:
        raise ValueError(f"of the weights of {type(model).__name__} {len(missing)} are missing, the first is {missing[0]}")
    return model


def alike(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two networks have the same weights, to the 16 bits that they are stored in."""
    mine, other = ours.state_dict(), theirs.state_dict()
    return mine.keys() == other.keys() and all(
        value.shape == other[name].shape and torch.allclose(value.float().cpu(), other[name].float(), rtol=2e-3, atol=1e-4)
        for name, value in mine.items()
    )


def tell_start(start: Path | None, run: training.Run):
    """Keep a warm start in the run's log, for the card; say that it does not count where a checkpoint goes on, weights and all."""
    if start and run.kept is None:
        run.state["start"] = place(start)
    elif start and run.main:
        typer.echo(f"{run.checkpoint} goes on, and --start {start} does not count: choose another --work for a new run.")


def place(folder: Path) -> str:
    """A folder by its path in this checkout, or the end of it: where that lies on this machine is nobody's business."""
    folder = folder.resolve()
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else "/".join(("...", *folder.parts[-2:]))


def given(arguments: Sequence[str]) -> str:
    """What of a command line decides what was trained, options and values, as a card repeats it."""
    kept = [f"{name} {value}" for name, value in pairwise(arguments) if name in DECIDING]
    return " ".join(kept + [part for part in arguments if part.split("=")[0] in DECIDING and "=" in part])


def needed(path: Path, recipe: str):
    """UserError naming the recipe that makes `path`, where that is missing."""
    if not path.exists():
        raise UserError(f"{path} is not there: run recipes.{recipe} first, with the same --work.")


def interruptible(main: Callable) -> Callable:
    """`main`, which says after Ctrl-C what the same command will do, unless the training loop has said so."""

    @functools.wraps(main)
    def run(*arguments, **options):
        try:
            return main(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            if interrupt.args != (training.TOLD,):
                typer.echo("Interrupted: the same command begins this step again; decoded images and checkpoints are kept.", err=True)
            raise typer.Exit(130) from None

    return run


def start(main: Callable):
    """Run a recipe from the command line; a mistake in what was asked for, a full disk too, is told in a sentence and exits with 2.
    After Ctrl-C it exits with 130, as shells expect."""
    pipelines.hush()
    training.GIVEN["options"] = given(sys.argv[1:])
    try:
        typer.run(interruptible(main))
    except (UserError, FloatingPointError) as error:
        reason, cause = str(error), error
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) not in FULL and "os error 28" not in str(error):
            raise
        where = f" {error.filename}" if getattr(error, "filename", None) else " results"
        why = getattr(error, "strerror", None) or error
        reason, cause = f"Cannot write{where}: {why}; free some space or choose another folder with --work.", error
    else:
        return
    typer.echo(reason, err=True)
    raise SystemExit(2) from cause
