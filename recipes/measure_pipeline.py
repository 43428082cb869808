"""Measure the small pipeline: its autoencoder, how often the verdict sees the style that was asked for, and what a picture costs.

    python -m recipes.measure_pipeline --data paintings/ --work work/

Pictures come from `recipes/samples.py` and are painted once; an interrupted run goes on. Into `work/pipeline.json`.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from guide import pipelines, strategies
from guide.brief import Brief
from guide.run import Settings, aimed, sample
from probes import encoders, judge
from probes.atomic import write_text
from probes.distance import ms_ssim
from probes.judges import STYLES
from recipes import data, options, samples
from recipes.assemble import ROOT
from recipes.autoencoder import colours

CARICATURE = 1.1  # kept more often than the verdict recognises real paintings: the picture overstates the style
STEPS = 30  # of the timed pictures


@torch.no_grad()
def autoencoder(vae, images: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """PSNR in dB and MS-SSIM of test paintings through the autoencoder, 128 pixels, and how far the colours of
    blocks correlate with those before."""
    psnr, similarity, before, after = [], [], [], []
    for index in track(range(0, len(rows), 32), description="autoencoder"):
        target = data.centre_crop(data.batch(images, rows[index : index + 32], vae.device), 128)
        out = (vae.decode(vae.encode(target * 2 - 1).latents).sample / 2 + 0.5).clamp(0, 1)
        psnr.append(-10 * (out - target).square().mean((1, 2, 3)).log10())
        similarity.append(ms_ssim(out, target))
        before.append(colours(target))
        after.append(colours(out))
    green, red = (
        float(torch.corrcoef(torch.stack([torch.cat(side)[:, axis].flatten() for side in (before, after)]))[0, 1]) for axis in (0, 1)
    )
    return {"images": len(rows), "psnr": float(torch.cat(psnr).mean()), "ms_ssim": float(torch.cat(similarity).mean()),
            "green": green, "red": red}  # fmt: skip


def kept(studio: samples.Studio, wishes: Sequence[samples.Wish]) -> dict:
    """How often the verdict puts the wanted style first in unguided pictures, per style, beside its recall on real paintings."""
    verdict = judge.load("verdict")
    guess = np.concatenate([verdict(part).styles.argmax(1).numpy() for part in samples.tensor(studio.paint(wishes)).split(128)])
    wanted = np.array([verdict.labels.index(wish.style) for wish in wishes])
    hits = {name: (guess == wanted)[wanted == verdict.labels.index(name)] for name in STYLES if any(w.style == name for w in wishes)}
    rates, recall = {name: float(hit.mean()) for name, hit in hits.items()}, {name: verdict.recall[name] for name in hits}
    rng = np.random.default_rng(0)
    draws = [np.mean([rng.choice(hit, len(hit)).mean() for hit in hits.values()]) for _ in range(500)]
    mean, real = float(np.mean(list(rates.values()))), float(np.mean(list(recall.values())))
    low, high = (float(value) for value in np.percentile(draws, (2.5, 97.5)))
    return {
        "pictures": {name: len(hit) for name, hit in hits.items()},
        "guidance scale": studio.model.guidance_scale,
        "steps": studio.steps,
        "kept": rates,
        "mean kept": mean,
        "mean kept interval": (low, high),
        "verdict's recall on real": recall,
        "kept over recall": mean / real if real else None,
        "kept over recall interval": (low / real, high / real) if real else None,
        "kept over recall by style": {name: rate / recall[name] if recall[name] else None for name, rate in rates.items()},
        "caricature": [name for name, rate in rates.items() if rate > CARICATURE * recall[name]],
    }


def cost(repeats: int) -> dict[str, float]:
    """Seconds of one picture of 128 pixels, 30 steps with classifier-free guidance, the quickest of `repeats`; everything's size in MB."""
    pipeline, model = pipelines.load("embedded"), pipelines.find("embedded")
    brief = Brief(prompt="still life with lemons and a silver jug", styles=(("baroque", 1.0),))
    objective = aimed(brief, encoders.load("embedded"))
    settings = Settings.of(model, STEPS)

    def seconds(name: str) -> float:
        strategy, times = strategies.load(name, strength=model.strength if name != "unguided" else None), []
        for _ in range(repeats + 1):  # the first one warms up
            began = time.perf_counter()
            sample(pipeline, brief, [0], strategy, objective, settings)
            times.append(time.perf_counter() - began)
        return min(times[1:])

    plain, guided = seconds("unguided"), seconds("clean-image")
    shipped = [path for folder in ("guide", "probes") for path in (ROOT / folder / "embedded").rglob("*") if path.is_file()]
    return {
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "seconds unguided": plain,
        "seconds guided": guided,
        "guided over unguided": guided / plain,
        "megabytes": sum(path.stat().st_size for path in shipped) / 1e6,
    }


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    device: options.Device = "auto",
    most: samples.Most = samples.MOST,
    fewest: samples.Fewest = samples.FEWEST,
    steps: samples.Steps = None,
    repeats: Annotated[int, typer.Option(help="Timed pictures, guided and unguided.", min=1)] = 3,
):
    images, table = data.paintings(folder, work)
    studio = samples.Studio(work, device=str(options.device(device)), steps=steps)
    rows = np.flatnonzero(table["split"] == "test")[::4]
    figures = {"autoencoder": autoencoder(studio.pipeline.vae, images, rows), "cost": cost(repeats)}
    figures["unguided"] = kept(studio, samples.of_titles(table, most, fewest))
    write_text(work / "pipeline.json", json.dumps(figures, indent=1))


if __name__ == "__main__":
    options.start(main)
