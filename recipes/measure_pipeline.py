"""Measure the small pipeline: the autoencoder on test paintings, and unguided pictures by the verdict, beside its recall on real paintings.

python -m recipes.measure_pipeline --data paintings/ --work work/
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import StableDiffusionXLPipeline
from rich.progress import track

from probes import judge
from probes.config import styles
from probes.distance import ms_ssim
from probes.judges import STYLES
from recipes import data, options
from recipes.assemble import ROOT


@torch.no_grad()
def autoencoder(vae, images: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """PSNR in dB and MS-SSIM of test paintings through the autoencoder, 128 pixels."""
    psnr, similarity = [], []
    for index in track(range(0, len(rows), 32), description="autoencoder"):
        target = data.centre_crop(data.batch(images, rows[index : index + 32], vae.device), 128)
        out = (vae.decode(vae.encode(target * 2 - 1).latents).sample / 2 + 0.5).clamp(0, 1)
        psnr.append(-10 * (out - target).square().mean((1, 2, 3)).log10())
        similarity.append(ms_ssim(out, target))
    return {"images": len(rows), "psnr": float(torch.cat(psnr).mean()), "ms_ssim": float(torch.cat(similarity).mean())}


def unguided(pipeline, seeds: int, scale: float, steps: int) -> dict:
    """Share of unguided pictures whose style the verdict puts first, per style, and divided by its recall on real paintings."""
    verdict = judge.load("verdict", str(pipeline.device))
    kept, start = {}, time.monotonic()
    for name in track(STYLES, description="painting"):
        style = styles()[name]
        prompts = [f"a {style.adjective} painting of {style.prompts[seed % len(style.prompts)]}" for seed in range(seeds)]
        with torch.no_grad():
            images = pipeline(
                prompts,
                num_inference_steps=steps,
                guidance_scale=scale,
                output_type="pt",
                generator=[torch.Generator().manual_seed(1000 + seed) for seed in range(seeds)],
            ).images
        guess = verdict(images.float().clamp(0, 1)).styles.argmax(1)
        kept[name] = float((guess == verdict.labels.index(name)).float().mean())
    recall = {name: verdict.recall[name] for name in STYLES}
    mean = float(np.mean(list(kept.values())))
    return {
        "pictures per style": seeds,
        "guidance scale": scale,
        "steps": steps,
        "kept": kept,
        "mean kept": mean,
        "verdict's recall on real": recall,
        "kept over recall": mean / float(np.mean(list(recall.values()))),
        "seconds per picture": (time.monotonic() - start) / seeds / len(STYLES),
    }


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    device: options.Device = "auto",
    seeds: Annotated[int, typer.Option(help="Pictures per style.")] = 16,
    steps: int = 25,
    scale: float = 4.0,
):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    pipeline = StableDiffusionXLPipeline.from_pretrained(ROOT / "guide" / "embedded").to(device)
    pipeline.set_progress_bar_config(disable=True)
    rows = np.flatnonzero(table["split"] == "test")[::4]
    figures = {"autoencoder": autoencoder(pipeline.vae, images, rows), "unguided": unguided(pipeline, seeds, scale, steps)}
    (work / "pipeline.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
