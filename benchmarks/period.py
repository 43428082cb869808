"""What `--period` does within a style: how far it moves a judge's year in the asked direction, and what it costs in style kept.

    python -m benchmarks.period --judge referee --seeds 0-3          # to tune by
    python -m benchmarks.period --judge verdict --seeds 0-7          # the figures

Each picture is made without a period, and with the judge's own year of the style's pictures, plus and minus `--years`, as the target; same
seed, style named, the model's own strength. A target outside of 1450-1935, which neither the paintings behind the models nor the judges
know, is left out and counted. Pictures are kept in `work/period`, and an interrupted run goes on. Prints Markdown.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from torch import Tensor

from guide import pipelines, strategies
from guide.brief import Brief, parse_seeds
from guide.goals import WEIGHTS, Goals
from guide.objectives import aimed
from guide.run import Settings, fingerprint, sample
from guide.statistics import mean_difference
from probes import encoders, judge
from probes.atomic import replacing, write_text
from probes.config import styles
from probes.judges import STYLES
from recipes import options

KNOWN = (1450, 1935)
ENOUGH = 25.0  # years


def pictures(folder: Path, pipeline, encoder, settings: Settings, strategy, brief: Brief, seed: int, weight: float) -> Tensor:
    """One guided picture `(1, 3, h, w)`, from `folder` where it was made before."""
    asked = hashlib.sha256(f"{brief} {seed} {settings} {strategy} {weight if brief.period else ''}".encode()).hexdigest()[:16]
    store = folder / f"{asked}.npy"
    if not store.exists():
        objective = aimed(brief, encoder, Goals(weights=(("period", weight),) if brief.period else ()))
        images, _, _ = sample(pipeline, brief, (seed,), strategy, objective, settings)
        with replacing(store) as partial, partial.open("wb") as file:
            np.save(file, images.half().numpy())
    return torch.from_numpy(np.load(store)).float()


def main(
    work: options.Work = Path("work"),
    judged: Annotated[str, typer.Option("--judge", help="referee to tune by, verdict for the figures.")] = "verdict",
    seeds: Annotated[str, typer.Option(help="Seeds of every style.")] = "0-3",
    keys: Annotated[str, typer.Option("--styles", help="Styles; default all that the embedded models know.")] = ",".join(STYLES),
    years: Annotated[int, typer.Option(help="How much earlier and later.", min=1)] = 100,
    weight: Annotated[float, typer.Option(help="Of the period beside the style.", min=0)] = WEIGHTS["period"],
    strength: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
):
    """Years moved, seeds that moved enough, and style kept with a period less without, by direction."""
    model, pipeline, encoder, judge_ = pipelines.find("embedded"), pipelines.load("embedded"), encoders.load("embedded"), judge.load(judged)
    settings, strategy = Settings.of(model), strategies.load("clean-image", strength=strength or model.strength)
    folder = work / "period" / f"{fingerprint(pipeline)[:8]}-{encoder.fingerprint[:8]}"
    rows, left_out = [], 0
    for key in track(keys.split(","), description="painting"):
        prompts = styles()[key].prompts
        briefs = {seed: Brief(prompts[seed % len(prompts)], ((key, 1.0),)) for seed in parse_seeds(seeds)}
        made = partial(pictures, folder, pipeline, encoder, settings, strategy, weight=weight)
        plain = {seed: judge_(made(brief=brief, seed=seed)) for seed, brief in briefs.items()}
        middle = float(np.mean([float(opinion.years) for opinion in plain.values()]))
        for sign, direction in ((-1, "earlier"), (1, "later")):
            target = round(middle + sign * years)
            if not KNOWN[0] <= target <= KNOWN[1]:
                left_out += len(briefs)
                continue
            for seed, brief in briefs.items():
                asked = Brief(brief.prompt, brief.styles, period=(target, target))
                before = plain[seed]
                after = judge_(made(brief=asked, seed=seed))
                kept = [float(judge_.labels[int(opinion.styles.argmax())] == key) for opinion in (before, after)]
                odds = [float(judge_.log_odds(opinion, brief.styles)) for opinion in (before, after)]
                rows.append({"style": key, "seed": seed, "direction": direction, "target": target, "odds": odds[1] - odds[0],
                             "years": sign * float(after.years - before.years), "kept": kept[1], "kept before": kept[0]})
    print("| direction | pictures | years moved as asked | by 25 years or more | style kept, before | after | difference | log-odds |")
    print("|---" * 8 + "|")
    for name in ("earlier", "later", "both"):
        some = [row for row in rows if name in (row["direction"], "both")]
        if len(some) > 1:
            print(_line(name, some))
    print(f"\nJudge: {judged}. Left out, since their target lies outside of {KNOWN[0]}-{KNOWN[1]}: {left_out} pictures.")
    write_text(work / "period" / f"{judged}.json", json.dumps({"weight": weight, "strength": strategy.strength, "rows": rows}, indent=1))


def _line(name: str, rows: list[dict]) -> str:
    """Intervals over styles, since seeds of one style share their target."""
    def column(what: str) -> np.ndarray:
        return np.array([row[what] for row in rows])
    groups, moved = [row["style"] for row in rows], column("years")
    difference = mean_difference(column("kept") - column("kept before"), groups)
    cells = (name, len(rows), mean_difference(moved, groups), f"{(moved >= ENOUGH).mean():.0%}", f"{column('kept before').mean():.0%}",
             f"{column('kept').mean():.0%}", difference, f"{column('odds').mean():+.2f}")
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    options.start(main)
