"""What `guide plan` predicts against what is then measured, each in a process of its own: python -m benchmarks.plans

Seconds are the guided pictures' alone, on one thread by the process's own time, so that other programs on the machine do not count; memory
is the most that the process held. `--model` may name a folder in diffusers' format.
"""
import argparse
import json
import resource
import subprocess
import sys
import time


def predicted(model: str, strategy: str, size: int, steps: int, batch: int) -> dict:
    from guide.planning.plan import plan
    found = plan(model, strategy, (size, size) if size else None, steps or None, batch, batch, device="cpu")
    return {"seconds": found.seconds, "memory": found.memory, "parts": {part.name: part.rows * part.seconds for part in found.parts}}


def measured(model: str, strategy: str, size: int, steps: int, batch: int) -> dict:
    from dataclasses import replace

    from guide import pipelines, strategies
    from guide.brief import Brief
    from guide.comparing.meter import resident_peak
    from guide.objectives import aimed
    from guide.run import Settings, sample
    from probes import encoders

    known = pipelines.find(model)
    pipeline, encoder = pipelines.load(model), encoders.load("embedded")
    settings = Settings.of(known, steps or None)
    settings = replace(settings, width=size or settings.width, height=size or settings.height)
    brief, chosen = Brief(styles=(("baroque", 1.),), prompt="a still life"), strategies.load(strategy, strength=1.)
    sample(pipeline, brief, tuple(range(batch)), chosen, aimed(brief, encoder), replace(settings, steps=2))  # warms caches
    times = []
    for _ in range(2):
        began = time.process_time()
        sample(pipeline, brief, tuple(range(batch)), chosen, aimed(brief, encoder), settings)
        times.append((time.process_time() - began) / batch)
    # A process inherits the ru_maxrss of the one that began it.
    most = resident_peak() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(times), "memory": most * 1024}


def apart(what: str, *arguments) -> dict:
    """One of the two in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.plans", "--only", what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("predicted", "measured"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--strategies", default="clean-image,dps,unguided")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4)
    asked = parser.parse_args()
    if asked.only:
        import torch
        torch.set_num_threads(1)
        work = predicted if asked.only == "predicted" else measured
        print(json.dumps(work(asked.model, asked.strategies, asked.size, asked.steps, asked.batch)))
        return
    print("| model | strategy | predicted s/picture | measured | ratio | predicted GiB | measured | ratio |\n" + "|---" * 8 + "|")
    for strategy in asked.strategies.split(","):
        rest = ("--model", asked.model, "--strategies", strategy, "--size", asked.size, "--steps", asked.steps, "--batch", asked.batch)
        one, two = apart("predicted", *rest), apart("measured", *rest)
        print(f"| {asked.model} | {strategy} | {one['seconds']:.3f} | {two['seconds']:.3f} | {one['seconds'] / two['seconds']:.2f} "
              f"| {one['memory'] / 2**30:.2f} | {two['memory'] / 2**30:.2f} | {one['memory'] / two['memory']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
