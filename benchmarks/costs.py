"""What each strategy costs a picture of the embedded pipeline, in processor time, as a multiple of the plain pipeline.

Other work on the machine does not count. Batches of 1, one thread, the pipeline's own number of steps, DDIM, with eta 1 where a strategy
shapes noise; noise optimisation in runs of one step, which is what it is for. The ratios depend on the networks' sizes, not on their
weights. `--write` puts them where `guide strategies` reads them, and each row as it is measured, so that an interrupted run goes on.

    python -m benchmarks.costs --write
"""
import json
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from guide import pipelines, strategies
from guide.brief import Brief
from guide.comparing.publishing import processor
from guide.loops.sample import Sampler
from guide.objectives import aimed
from guide.run import Request
from guide.strategies import presets
from guide.strategies.listing import MEASURED, measured
from probes import encoders
from probes.atomic import write_text


def seconds(sampler: Sampler, key: str, strength: float) -> float:
    """Processor seconds of one picture: the lesser of two runs, of one where that takes long."""
    preset = presets()[key]
    strategy = strategies.load(key, strength=None if preset.loop or preset.unit != "guidance" else strength)
    found = []
    while len(found) < 2 and sum(found) < 8:
        began = time.process_time()
        sampler((0,), strategy)
        found.append(time.process_time() - began)
    return min(found)


def main(steps: Annotated[int, typer.Option(help="Steps a run; 0: the pipeline's own.")] = 0,
         only: Annotated[str, typer.Option(help="These strategies alone, with commas.")] = "",
         write: Annotated[bool, typer.Option(help="Keep them for `guide strategies`.")] = False) -> None:
    torch.set_num_threads(1)
    pipeline, encoder, brief = pipelines.load("embedded"), encoders.load("embedded"), Brief("a woman in a garden", (("baroque", 1.),))
    settings = Request(brief, Path("."), steps=steps or None).settings()
    tiny, objective = pipelines.load_tiny(settings.tiny, "cpu", pipeline.dtype), aimed(brief, encoder)

    def of(key: str, count: int) -> float:
        arguments = {"prompt": brief.text(), "num_inference_steps": count, "guidance_scale": settings.guidance_scale, "width": 128,
                     "height": 128, **({"eta": 1.} if presets()[key].stochastic else {})}
        return seconds(Sampler(pipeline, arguments, objective, tiny), key, 10.)

    of("unguided", 2)  # warms caches
    told = {"date": date.today().isoformat(), "machine": f"one thread of {processor()}, torch {torch.__version__}",
            "model": f"embedded, 128 x 128, {settings.steps} steps, batches of 1"}
    before = measured()
    ratios = dict(before["ratios"]) if before and all(before[name] == value for name, value in told.items()) else {}
    table, plain = Table("strategy", "times", "s/picture"), {count: of("unguided", count) for count in (settings.steps, 1)}
    for key in [key.strip() for key in only.split(",")] if only else ["unguided", *(key for key in presets() if key != "unguided")]:
        count = 1 if presets()[key].loop == "reno" else settings.steps
        if key not in ratios or only:
            ratios[key] = 1. if key == "unguided" else round(of(key, count) / plain[count], 2)
            if write:
                write_text(MEASURED, json.dumps(told | {"ratios": ratios}, indent=1) + "\n")
        table.add_row(key, f"{ratios[key]:.2f}", f"{ratios[key] * plain[count]:.2f}")
        print(f"{key}: {ratios[key]:.2f}", flush=True)
    Console().print(table, ", ".join(told.values()))


if __name__ == "__main__":
    typer.run(main)
