"""Fit the artifact probe's head: a small convolutional network on the frozen encoder's maps, from damage of known kind, place and severity.

    python -m recipes.artifacts --data paintings/ --work work/

Weights come from nine tenths of the guide-split artists, scale, temperature and alarm from the others, every figure on the card from
test-split artists (`recipes/artifact_figures.py`). Codecs are no damage: a third of what it learns from went through one.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from rich.progress import track
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from probes import encoders
from probes.atomic import replacing, write_text
from probes.calibration import temperature
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads.patch import POOLED, Patch, Weights, attended, initial, outputs, pool, textures
from recipes import artifact_figures, data, options
from recipes.corruptions import CORRUPTIONS, FULL, LEAST, Kind, adversarial, change, inject, patches, region
from recipes.round_trips import Trip, trips

STAGES = ("conv1", "conv3")
SIDE, WIDTH = 128, 40
VIEWS = 3  # of a painting: damaged a little or not at all, damaged more, and one of the two through a round trip
ALARM = 0.95  # share of clean paintings below the alarm


@dataclass(frozen=True)
class Examples:
    """Textures `(n, d, h, w)` in fp16, their truth `(n, h, w)` (NaN: neither hit nor spared), kind and severity `(n,)`."""

    seen: Tensor
    truth: Tensor
    kind: Tensor
    severity: Tensor


def kinds(encoder: Encoder) -> dict[str, Kind]:
    """Every kind of damage; the adversarial one against this encoder."""
    return CORRUPTIONS | {"adversarial": adversarial(lambda moved, clean: 1 - (encoder(moved) * encoder(clean).detach()).sum(-1))}


@torch.no_grad()
def seen(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Textures of images, as the head reads them."""
    return textures(encoder.maps(pixels, STAGES, native=True), STAGES)


@torch.no_grad()
def examples(encoder: Encoder, images: np.ndarray, rows: np.ndarray, through: dict[str, Trip], seed: int) -> Examples:
    """`VIEWS` views of each row, one after the other."""
    generator, every, found = Generator().manual_seed(seed), kinds(encoder), {"seen": [], "truth": [], "kind": [], "severity": []}
    # The adversarial kind and the autoencoder cost ten times as much as any other.
    chances = torch.tensor([0.4 if name == "adversarial" else 1.0 for name in every])
    ways = torch.tensor([0.5 if name == "autoencoder" else 1.0 for name in through])
    for row in track(rows, description="damaging"):
        clean = data.random_crop(data.batch(images, np.array([row])), SIDE, generator)
        which, mask = int(torch.multinomial(chances, 1, generator=generator)), region(SIDE, SIDE, generator)
        if torch.rand(1, generator=generator) < 0.12:
            mask = torch.ones_like(mask)
        high = float(torch.rand(1, generator=generator)) * 0.8 + 0.2
        low = high * max(0.0, float(torch.rand(1, generator=generator)) - 0.4)
        again, kind = int(torch.randint(2**31, (1,), generator=generator)), list(every.values())[which]
        views = [clean if s == 0 else inject(clean, kind, s, mask, Generator().manual_seed(again)) for s in (low, high)]
        masks = (mask if low else torch.zeros_like(mask), mask)
        truth = [patches(clean, view, there, 2 * POOLED) for view, there in zip(views, masks, strict=True)]
        severity = [(change(clean, view, mask) / FULL).clamp(max=1) for view in views]
        same = int(torch.randint(2, (1,), generator=generator))
        way = list(through.values())[int(torch.multinomial(ways, 1, generator=generator))]
        found["seen"].append(seen(encoder, torch.cat([*views, way(views[same], generator)])).half())
        found["truth"] += [*truth, truth[same]]
        found["severity"] += [*severity, severity[same]]
        found["kind"].append(torch.tensor([which] * VIEWS))
    return Examples(**{name: torch.cat(held) for name, held in found.items()})


def fit(train: Examples, count: int, epochs: int, seed: int, triples: int = 12) -> Weights:
    """The weights for `count` kinds, by AdamW on batches of `triples` times `VIEWS` images."""
    generator = Generator().manual_seed(seed)
    some = train.seen[::5].float()
    held = initial(some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp_min(1e-3), count, WIDTH, generator)
    learned = {name: value.requires_grad_() for name, value in held.items() if name not in ("centre", "spread")}
    total = len(train.truth) // VIEWS
    optimizer = torch.optim.AdamW(learned.values(), 4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * -(-total // triples), pct_start=0.1)
    for _ in track(range(epochs), description="fitting"):
        sums: dict[str, list[float]] = {}
        for chosen in torch.randperm(total, generator=generator).split(triples):
            index = (chosen[:, None] * VIEWS + torch.arange(VIEWS)).flatten()
            losses = objective(*outputs(held, train.seen[index].float()), train.truth[index], train.kind[index], train.severity[index])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            schedule.step()
            for name, value in losses.items():
                sums.setdefault(name, []).append(float(value.detach()))
        typer.echo("  ".join(f"{name} {np.nanmean(values):.3f}" for name, values in sums.items()))
    return {name: value.detach() for name, value in held.items()}


def objective(read: Tensor, logits: Tensor, truth: Tensor, kind: Tensor, severity: Tensor) -> dict[str, Tensor]:
    """Patches and images by their measured severity, the order of two severities, what a round trip must leave alone, and the kind."""
    known, damaged = ~truth.isnan(), severity > LEAST / FULL
    score = pool(read).sqrt()
    low, high, tripped = score.view(-1, VIEWS).unbind(1)
    small, large, same = severity.view(-1, VIEWS).unbind(1)
    rising = large > small + 0.02
    order = F.softplus((low - high) / 0.05)[rising]
    named = F.cross_entropy(attended(read.detach(), logits)[damaged], kind[damaged], reduction="none")
    return {
        "patches": 3 * F.binary_cross_entropy(read[known].sqrt(), truth[known].sqrt()),
        "image": (score - severity.sqrt()).square().mean(),
        "order": 0.3 * order.sum() / max(1, len(order)),
        "trips": (tripped - torch.where(same == large, high, low)).abs().mean(),
        "kind": 0.3 * named.sum() / max(1, len(named)),
    }


@torch.no_grad()
def scaled(head: Patch, held: Examples) -> Patch:
    """The head with the exponent that fits the measured severities best, the temperature of its kinds, and the alarm."""
    found = [outputs(head.weights, part.float()) for part in held.seen.split(64)]
    read, logits = (torch.cat(part) for part in zip(*found, strict=True))
    damaged = held.severity > LEAST / FULL
    exponents = torch.logspace(-1, 1.5, 101)
    errors = [(1 - (1 - pool(read)) ** exponent - held.severity)[damaged].square().mean() for exponent in exponents]
    heat = temperature(attended(read, logits)[damaged], held.kind[damaged]) if damaged.any() else 1.0
    head = replace(head, exponent=float(exponents[int(torch.stack(errors).argmin())]), temperature=heat)
    clean = head.pooled(read)[held.severity == 0]
    return replace(head, alarm=float(clean.quantile(ALARM))) if len(clean) else head


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    paintings: Annotated[int, typer.Option(help="How many to learn from.", min=8)] = 600,
    tested: Annotated[int, typer.Option(help="How many to measure each kind of damage on.", min=4)] = 60,
    epochs: Annotated[int, typer.Option(help="Passes over what is learned from.", min=1)] = 10,
    clip: Annotated[Path | None, typer.Option(help="The encoder's folder. Default: what recipes.clip left in --work.")] = None,
    seed: options.Seed = 0,
):
    """The head with its card, in `work/heads/artifacts.*`, on the CPU in minutes."""
    started, source = time.time(), clip or work / "clip" / "model"
    images, table = data.paintings(folder, work)
    encoder, vae = encoders.load(str(source)), work / "autoencoder" / "vae"
    through = trips(AutoencoderTiny.from_pretrained(vae).eval() if vae.exists() else None)
    guide, rng = np.flatnonzero(table["split"] == "guide"), np.random.default_rng(seed)
    if len(guide) < 2:
        raise UserError(f"{folder} has {len(guide)} images of split guide: an artifact head needs at least some to learn from.")
    chosen = rng.choice(guide, min(paintings, len(guide)), replace=False)
    artists = table["artist"].iloc[chosen].to_numpy()
    names = np.unique(artists)
    apart = np.isin(artists, rng.choice(names, max(1, len(names) // 10), replace=False))
    every = list(kinds(encoder))
    fitted = examples(encoder, images, chosen[~apart], through, seed)
    head = Patch(fit(fitted, len(every), epochs, seed), STAGES, tuple(every), side=SIDE)
    head = scaled(head, examples(encoder, images, chosen[apart], through, seed + 1))
    figures = artifact_figures.figures(encoder, head, kinds(encoder), images, table, through, tested, seed)
    told = {
        "encoder": encoder.fingerprint, "stages": STAGES, "kinds": every, "side": SIDE, "exponent": head.exponent,
        "temperature": head.temperature, "alarm": head.alarm, "reliability": artifact_figures.sentence(figures), "metrics": figures,
        "training": {"paintings": int((~apart).sum()), "seed": seed, "minutes": round((time.time() - started) / 60, 1)},
    }  # fmt: skip
    stem = work / "heads" / "artifacts"
    with replacing(stem.with_suffix(".safetensors")) as partial:
        save_file({name: value.contiguous() for name, value in head.weights.items()}, partial)
    write_text(stem.with_suffix(".json"), json.dumps(told, indent=1))
    typer.echo(told["reliability"])


if __name__ == "__main__":
    options.start(main)
