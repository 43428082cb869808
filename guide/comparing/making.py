"""Making the pictures of a comparison: jobs in a fixed order, every picture written as it comes, with what it cost."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from guide import png, record
from guide.brief import Brief
from guide.comparing.asked import Arm, Asked, Cell, Setting, cells
from guide.comparing.meter import Meter, metered
from guide.loops import sample as loops
from guide.loops.best_of import BestOf
from guide.objectives import aimed
from guide.run import _tiny, picture, sample
from guide.samplers import using
from guide.strategies import Strategy, load, presets
from probes.encoders import Encoder
from probes.errors import UserError

END = b"\0\0\0\0IEND\xaeB`\x82"  # a PNG's last chunk


@dataclass(frozen=True)
class Job:
    """One batch: a prompt, seeds, an arm."""

    cell: Cell
    brief: Brief
    seeds: tuple[int, ...]
    arm: Arm

    def paths(self, out: Path) -> list[Path]:
        return [picture(out / self.cell.folder, seed, self.arm.slug) for seed in self.seeds]


def strategy_of(arm: Arm) -> Strategy:
    """The arm's strategy, with its candidates around it: a particle method has them itself, another is put into best-of-N."""
    if arm.strategy == "unguided":
        return load("unguided")
    if arm.strategy == "best-of":
        return BestOf(n=max(arm.candidates, 1))
    strategy = load(arm.strategy, strength=arm.strength)
    if arm.candidates == 1:
        return strategy
    if hasattr(strategy, "n"):
        return replace(strategy, n=strategy.n * arm.candidates)
    if isinstance(strategy, loops.Loop):
        raise UserError(f"{arm.strategy} makes one picture a seed and cannot be given several candidates.")
    return BestOf(n=arm.candidates, inner=strategy)


def jobs(asked: Asked, setting: Setting, arms: Sequence[Arm], seeds: Sequence[int]) -> Iterator[Job]:
    """All batches in their order: every arm of a batch of seeds before the next batch, so that what is there at any time is paired.

    Arms that go by the prompt alone are left out where the prompt does not name the style.
    """
    for cell in cells(asked, setting):
        for brief, own in cell.per_prompt(seeds):
            for start in range(0, len(own), asked.batch):
                for arm in arms:
                    if cell.named or presets()[arm.strategy].unit != "guidance scale":
                        yield Job(cell, brief, own[start : start + asked.batch], arm)


def missing(found: Sequence[Job], out: Path) -> list[Job]:
    """The jobs of which a picture is not there, or not whole: whole batches are made again, so that going on changes no digit."""
    return [job for job in found if not all(path.is_file() for path in job.paths(out)) or broken(job, out)]


def broken(job: Job, out: Path) -> list[Path]:
    """The job's pictures that a crash, or a full disk, left unreadable."""
    return [path for path in job.paths(out) if path.is_file() and not _whole(path, path.stat().st_mtime_ns, path.stat().st_size)]


@lru_cache(maxsize=100_000)
def _whole(path: Path, changed: int, size: int) -> bool:
    """Whether a PNG is there to its end, every chunk with its checksum; a file that has not changed is not looked at twice."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
        with path.open("rb") as file:
            file.seek(-len(END), os.SEEK_END)
            return file.read() == END
    except (OSError, SyntaxError, ValueError):  # what Pillow says of one that is not
        return False


def made(job: Job, pipeline: Any, encoder: Encoder, on_step: Callable[[], None] = lambda: None) -> tuple[Any, list[dict], Meter]:
    """Images (n, 3, h, w) in [0, 1], the trace, and what they cost."""
    settings = replace(job.cell.setting.settings, steps=job.arm.steps or job.cell.setting.settings.steps)
    objective = aimed(job.brief, encoder)
    tiny = [_tiny(settings.tiny, str(pipeline.device), pipeline.dtype)] if settings.tiny else []
    with using(pipeline, job.arm.sampler) as more, metered(pipeline, encoder, tiny) as meter:
        images, trace, _ = sample(pipeline, job.brief, job.seeds, strategy_of(job.arm), objective, settings, on_step, more=more)
    return images, trace, meter


def write(job: Job, asked: Asked, images: Any, trace: list[dict], meter: Meter, traces: Path) -> None:
    """A PNG for each seed that says how it was made and what it cost; the trace as lines of JSON."""
    settings = replace(job.cell.setting.settings, steps=job.arm.steps or job.cell.setting.settings.steps)
    costs = meter.per_picture(len(job.seeds))
    costs = {name: value for name, value in costs.items() if value == value}
    told = {"style": job.cell.style, "named": job.cell.named, "arm": job.arm.label, "seeds": job.seeds}
    with traces.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record.plain({**told, **step})) + "\n" for step in trace)
    for seed, image, path in zip(job.seeds, images, job.paths(asked.out), strict=True):
        if path.is_file():
            continue  # of a batch that was interrupted; the picture would be the same, its costs are those of then
        said = png.described(
            job.brief,
            settings,
            seed=seed,
            variant=job.arm.label,
            strategy=job.arm.strategy,
            strength=job.arm.strength,
            model=job.cell.setting.model,
            encoder=asked.encoder,
            **costs,
        )
        png.save(image, path, said | {"size": f"{image.shape[2]}x{image.shape[1]}", "candidates": job.arm.candidates})
