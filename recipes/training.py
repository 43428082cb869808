"""The loop that all recipes share: a budget in minutes, checkpoints, a moving average, a progress bar, resumption.

The learning rate follows progress through the budget, so a run that is slowed by other work still ends annealed.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn


@dataclass
class Run:
    """State of a training run; what is in it survives an interruption."""

    models: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    folder: Path
    minutes: float
    decay: float = 0.999  # of the moving average, reached gradually
    warmup: float = 0.02  # share of the budget
    save_every: float = 120.0  # seconds
    step: int = 0
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)
    average: nn.ModuleDict = None

    def __post_init__(self):
        self.average = copy.deepcopy(self.models).eval().requires_grad_(False)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, map_location=next(self.models.parameters()).device)
            self.models.load_state_dict(state["models"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (60 * self.minutes))

    def save(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "models": self.models.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "log": self.log,
            },
            partial,
        )
        partial.replace(self.checkpoint)
        (self.folder / "log.json").write_text(json.dumps(self.log, indent=0))

    def rate(self) -> float:
        if self.progress < self.warmup:
            return (self.progress + 1e-3) / self.warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (self.progress - self.warmup) / (1 - self.warmup)))

    @torch.no_grad()
    def _average(self):
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.state_dict().values(), self.models.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


def train(run: Run, losses: Callable[[int, float], dict[str, torch.Tensor]], clip: float = 1.0) -> nn.ModuleDict:
    """Minimise the sum of `losses(step, progress)` until the budget is spent; the moving average of the models.

    A loss whose name begins with "_" is watched, not added. A step whose loss is not finite is skipped and counted.
    """
    saved = time.monotonic()
    skipped, means = 0, {}
    device = next(run.models.parameters()).device.type
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")) as bar:
        task = bar.add_task(run.folder.name, total=1.0, completed=run.progress, note="")
        while run.progress < 1:
            start = time.monotonic()
            for group, rate in zip(run.optimizer.param_groups, run.rates, strict=True):
                group["lr"] = rate * run.rate()
            with torch.autocast(device, torch.bfloat16):
                terms = losses(run.step, run.progress)
            total = sum(value for name, value in terms.items() if not name.startswith("_"))
            run.optimizer.zero_grad(set_to_none=True)
            if torch.isfinite(total):
                total.backward()
                nn.utils.clip_grad_norm_([p for group in run.optimizer.param_groups for p in group["params"]], clip)
                run.optimizer.step()
                run._average()
            else:
                skipped += 1
                if skipped > 100:
                    raise FloatingPointError(f"{skipped} steps without a finite loss in {run.folder}: lower the learning rate")
            run.step += 1
            run.seconds += time.monotonic() - start
            for name, value in terms.items():
                value = float(value.detach())
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            if run.step % 50 == 0:
                bar.update(task, completed=run.progress, note=f"{run.step} " + " ".join(f"{k} {v:.3f}" for k, v in means.items()))
                run.log.append({"step": run.step, "seconds": round(run.seconds), **{k: round(v, 4) for k, v in means.items()}})
            if time.monotonic() - saved > run.save_every:
                run.save()
                saved = time.monotonic()
    run.save()
    return run.average
