"""What each strategy costs a picture of the embedded pipeline, in processor time, as a multiple of the plain pipeline.

Other work on the machine does not count. Batches of 1, one thread.

    python -m benchmarks.costs

30 steps, since at 25 the first step of diffusers' DDIM with eta 1 is not a number on this pipeline's schedule, whose first signal is 0.
"""

import platform
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from guide import pipelines, strategies
from guide.brief import Brief
from guide.loops.sample import Sampler
from guide.objectives import aimed
from guide.run import Request
from guide.strategies import presets
from probes import encoders


def seconds(sampler: Sampler, key: str, strength: float, repeats: int) -> float:
    """Processor seconds of one picture, the least of some repeats."""
    loop = bool(presets()[key].loop)
    strategy = strategies.load(key, strength=None if loop or key == "unguided" else strength)
    found = []
    for _ in range(repeats):
        began = time.process_time()
        sampler((0,), strategy)
        found.append(time.process_time() - began)
    return min(found)


def main(steps: Annotated[int, typer.Option(help="Steps a run.")] = 30,
         repeats: Annotated[int, typer.Option(help="Runs of each.")] = 2) -> None:
    torch.set_num_threads(1)
    pipeline, encoder, brief = pipelines.load("embedded"), encoders.load("embedded"), Brief("a woman in a garden", (("baroque", 1.),))
    settings = Request(brief, Path("."), steps=steps).settings()
    tiny = pipelines.load_tiny(settings.tiny, "cpu", pipeline.dtype)
    table, plain = Table("strategy", "times", "s/picture"), None
    for key in track(["unguided", *(key for key in presets() if key not in ("unguided", "reno"))]):
        arguments = {"prompt": brief.text(), "num_inference_steps": steps, "guidance_scale": settings.guidance_scale, "width": 128,
                     "height": 128, **({"eta": 1.} if presets()[key].stochastic else {})}
        took = seconds(Sampler(pipeline, arguments, aimed(brief, encoder), tiny), key, 10., repeats)
        plain = plain or took
        table.add_row(key, f"{took / plain:.1f}", f"{took:.2f}")
    Console().print(table, f"{platform.machine()}, torch {torch.__version__}, one thread, {steps} steps, 128 x 128 pixels, batches of 1")


if __name__ == "__main__":
    typer.run(main)
