"""The loop that all recipes share: a budget in steps or minutes, one or several processes, checkpoints, a moving average, a progress bar.

The learning rate follows progress through the budget, so a run that is slowed by other work still ends annealed. With a budget in steps
the same seed gives the same weights bit for bit on the same machine, also where the run was interrupted in between: every step draws from
streams of its own, seeded by (seed, process, step).
"""

import copy
import json
import math
import random
import shutil
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import typer
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import nn

from probes.atomic import replacing, write_text
from probes.errors import UserError

SAVE_EVERY = 120.0  # seconds between checkpoints
ROOM = 64e6  # bytes; with fewer free, a file that could not be written had no room
TOLD = "where the run goes on has been said"  # of a KeyboardInterrupt
GIVEN: dict[str, str] = {}  # options of this process's command line, for the log
COMMON = 2**31  # stands for "all processes" where a stream is seeded by a process


@dataclass
class Run:
    """State of a training run in `folder`; what is in it survives an interruption.

    The budget is `steps` where they are given, else `minutes`. `generator` and `rng` are this process's random streams, `common` is the
    same in all of them. `state` holds what a recipe wants kept in the checkpoint beside the models: tensors, numbers.
    """

    models: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    folder: Path
    minutes: float
    decay: float = 0.999  # of the moving average, reached gradually
    warmup: float = 0.02  # share of the budget
    steps: int | None = None
    seed: int = 0
    accelerator: Accelerator | None = None
    step: int = 0
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)
    state: dict = field(default_factory=dict)
    average: nn.ModuleDict = None
    kept: int | None = None  # step of the checkpoint on disk

    def __post_init__(self):
        device = next(self.models.parameters()).device
        if self.accelerator is None:
            self.accelerator = accelerator(device)
        self.average = copy.deepcopy(self.models).eval().requires_grad_(False)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.generator, self.common, self.rng = torch.Generator(), torch.Generator(), random.Random()
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            self._load(_read(self.checkpoint, device))
        self.reseed()

    def _load(self, kept: dict):
        try:
            self.models.load_state_dict(kept["models"])
            self.average.load_state_dict(kept["average"])
            self.optimizer.load_state_dict(kept["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.checkpoint} is of another model than this run's (another --preset?): choose another --work or delete it."
            ) from error
        self.kept = kept["step"]
        self.step, self.seconds, self.log = kept["step"], kept["seconds"], kept["log"]
        self.state = kept.get("state", {})

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.accelerator.is_main_process

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        return min(1.0, self.step / self.steps if self.steps else self.seconds / (60 * self.minutes))

    def reseed(self):
        """The random streams of the present step; torch's own among them."""
        processes = self.accelerator.process_index, COMMON
        own, common = (np.random.SeedSequence((self.seed, process, self.step)).generate_state(3) for process in processes)
        torch.manual_seed(int(own[0]))
        self.generator.manual_seed(int(own[1]))
        self.rng.seed(int(own[2]))
        self.common.manual_seed(int(common[0]))

    def save(self):
        """Write the checkpoint, whole or not at all; the main process alone."""
        if not self.main:
            return
        kept = {name: getattr(self, name).state_dict() for name in ("models", "average", "optimizer")}
        kept |= {name: getattr(self, name) for name in ("step", "seconds", "log", "state")}
        with replacing(self.checkpoint) as partial:
            write(kept, partial)
        write_text(self.folder / "log.json", json.dumps(self.log, indent=0))
        self.kept = self.step

    def rate(self) -> float:
        """Factor of the learning rates: a short rise, then a cosine down to 2 %."""
        if self.progress < self.warmup:
            return (self.progress + 1e-3) / self.warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (self.progress - self.warmup) / (1 - self.warmup)))

    @torch.no_grad()
    def follow(self):
        """Move the average toward the models as they are now."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.state_dict().values(), self.models.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


class _Step(nn.Module):
    """The losses as the forward pass of one module, which is what accelerate shares among processes and runs in its precision."""

    def __init__(self, models: nn.ModuleDict, losses: Callable):
        super().__init__()
        self.models, self.losses = models, losses

    def forward(self, step: int, progress: float) -> dict[str, torch.Tensor]:
        return self.losses(step, progress)


def accelerator(device: torch.device | str = "cpu") -> Accelerator:
    """`device`, or this process's share of the devices under `accelerate launch`; in bfloat16 where that is faster."""
    # Parameters that freeze part-way, or that a batch does not touch, get no gradient.
    shared = DistributedDataParallelKwargs(find_unused_parameters=True)
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=4))  # while the main process decodes a large folder
    precision, cpu = "bf16" if short(device) else "no", torch.device(device).type == "cpu"
    return Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[shared, patient])


def short(device: torch.device | str) -> bool:
    """Whether `device` is faster in bfloat16: not every CPU is."""
    return torch.device(device).type != "cpu" or bfloat16_pays()


@cache
def bfloat16_pays() -> bool:
    """Whether this CPU multiplies matrices faster in bfloat16: with AMX several times, with AVX-512 alone an Intel core does so at half the
    speed, and one without either has to imitate it."""
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=kind)
        with torch.no_grad():
            seconds[kind] = min(timeit.repeat(lambda matrix=matrix: matrix @ matrix, number=1, repeat=10))
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]  # by a margin, so that a run that goes on decides the same


def train(run: Run, losses: Callable[[int, float], dict[str, torch.Tensor]], clip: float = 1.0) -> nn.ModuleDict:
    """Minimise the sum of `losses(step, progress)` until the budget is spent; the moving average of the models.

    A loss whose name begins with "_" is watched, not added. Several processes each compute the losses on their own batches and average
    the gradients. Gradients are clipped to the norm `clip`, apart for each value of a parameter group's `player`. A step whose gradient is
    not finite is skipped and counted; more than 100 of them raise FloatingPointError.
    """
    accelerator, groups = run.accelerator, run.optimizer.param_groups
    step = accelerator.prepare_model(_Step(run.models, losses), device_placement=False)
    players = {group.get("player"): [] for group in groups}
    for group in groups:
        players[group.get("player")] += group["params"]
    saved, skipped, means = time.monotonic(), 0, {}
    losses_in_lines = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=False))  # of narrow terminals; cut otherwise
    columns = TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn(), losses_in_lines
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, disable=not run.main))
        before = f"{run.step} steps in {run.seconds / 60:.0f} minutes before"
        note = f"finished, {before}" if run.progress >= 1 else before if run.step else ""
        task = bar.add_task(run.folder.name, total=1.0, note="")
        bar.update(task, completed=run.progress, note=note)
        stack.enter_context(_resumable(run))
        while run.progress < 1:
            start = time.monotonic()
            run.reseed()
            for group, rate in zip(groups, run.rates, strict=True):
                group["lr"] = rate * run.rate()
            terms = step(run.step, run.progress)
            run.optimizer.zero_grad(set_to_none=True)
            accelerator.backward(sum(value for name, value in terms.items() if not name.startswith("_")))
            norms = torch.stack([nn.utils.clip_grad_norm_(parameters, clip) for parameters in players.values()])
            # The same in all processes, since the gradients are.
            if norms.isfinite().all():
                run.optimizer.step()
                run.follow()
                for name, value in terms.items():
                    means[name] = torch.lerp(means.get(name, value.detach()), value.detach(), 0.02)
            else:
                skipped += 1
                if skipped > 100:
                    raise FloatingPointError(f"{skipped} steps without a finite gradient in {run.folder}: lower the learning rate")
            run.step += 1
            run.seconds = _agreed(run.seconds + time.monotonic() - start, accelerator)
            if run.step % 50 == 0 or run.progress >= 1:
                told = {name: float(value) for name, value in means.items()}
                bar.update(task, completed=run.progress, note=f"{run.step} " + " ".join(f"{k} {v:.3f}" for k, v in told.items()))
                kind = {"precision": accelerator.mixed_precision} | GIVEN
                kind |= {key: value for key, value in run.state.items() if key == "start"}
                run.log.append({"step": run.step, "seconds": round(run.seconds)} | kind | {k: round(v, 4) for k, v in told.items()})
            if time.monotonic() - saved > SAVE_EVERY:
                run.save()
                saved = time.monotonic()
    run.save()
    accelerator.wait_for_everyone()
    return run.average


def write(value, path: Path):
    """`torch.save`; a full disk is an OSError, as with any other file, and not a RuntimeError of the archive."""
    try:
        torch.save(value, path)
    except RuntimeError as error:
        full = shutil.disk_usage(path.parent).free < ROOM
        raise OSError(None, "no room is left on the disk" if full else " ".join(str(error).split())[:120]) from error


def _read(path: Path, device: torch.device) -> dict:
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except (RuntimeError, EOFError, OSError, UnpicklingError, LookupError, ValueError, TypeError) as error:  # as the damage has it
        raise UserError(f"{path} is damaged or no checkpoint of a recipe: delete it, and the run starts anew.") from error


def known_mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of `values (n,)` where `known`, 0 where nothing is: a batch may hold no dated painting, a table no genre at all."""
    return values[known].sum() / known.sum().clamp_min(1)


@contextmanager
def _resumable(run: Run) -> Iterator[None]:
    """Say after Ctrl-C where the same command goes on. Nothing is saved then: half a step could not be repeated bit for bit."""
    try:
        yield
    except KeyboardInterrupt:
        if run.main:
            kept = "no checkpoint was due yet: the same command begins anew"
            if run.kept is not None:
                kept = f"{run.checkpoint} holds step {run.kept}: the same command goes on from there"
            typer.echo(f"Interrupted after step {run.step}; {kept}.", err=True)
        raise KeyboardInterrupt(TOLD) from None


def _agreed(seconds: float, accelerator: Accelerator) -> float:
    """The main process's clock: all have to stop after the same step."""
    return broadcast_object_list([seconds])[0] if accelerator.num_processes > 1 else seconds
