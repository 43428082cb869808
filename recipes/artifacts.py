"""Fit the artifact probe's head: a small convolutional network on pixels, from damage of known kind, place and severity.

    python -m recipes.artifacts --data paintings/ --work work/ --minutes 15

Weights come from nine tenths of the guide-split artists, scale, temperature and alarm from the others, every figure on the card from
test-split artists (`recipes/artifact_figures.py`). Codecs are no damage: whole paintings and damaged ones alike go through them, before
the damage and after it. The adversarial kind is aimed at the CLIP of `--clip`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from diffusers import AutoencoderTiny
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from guide import pipelines
from probes import encoders
from probes.calibration import temperature
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card, patch
from probes.heads.patch import EDGE, Network, Patch, attended, pool
from recipes import artifact_figures, data, options, training
from recipes.corruptions import CORRUPTIONS, FULL, LEAST, Kind, adversarial, change, inject, patches, region
from recipes.metrics import hands
from recipes.round_trips import Trip, trips

SIDE = 128
VIEWS = 3  # of a painting: damaged a little or not at all, damaged more, and one of the two through a round trip
PAINTINGS = 8  # a step
WHOLE = 0.12  # share of damage that covers the whole picture
CHANCES = {"adversarial": 0.25, "duplicate": 2.0, "warp": 2.0, "seam": 1.5, "blur": 1.5, "smear": 1.5,
           "blocks": 2.0, "noise": 1.5, "checkerboard": 2.0}  # the first is dear, the next are hard, the last are many  # fmt: skip
WAYS = {"autoencoder": 0.5}  # as dear as ten others
CLEAN = 60  # whole pictures that round trips are tried on
ALARM = 0.95  # share of clean paintings below the alarm
TOES = np.arange(1.0, 3.01, 0.25)
MOST = 0.08  # of the clean-to-severe range: what a round trip may move the score of a whole picture (.1, less a margin for other artists)


@dataclass(frozen=True)
class Examples:
    """Pixels `(n, 3, h, w)`, their truth by patch (NaN: neither hit nor spared), kind and severity `(n,)`; `VIEWS` of each painting."""

    pixels: Tensor
    truth: Tensor
    kind: Tensor
    severity: Tensor


def kinds(encoder: Encoder) -> dict[str, Kind]:
    """Every kind of damage; the adversarial one against this encoder."""
    return CORRUPTIONS | {"adversarial": adversarial(lambda moved, clean: 1 - (encoder(moved) * encoder(clean).detach()).sum(-1))}


@torch.no_grad()
def examples(paintings: Tensor, every: dict[str, Kind], through: dict[str, Trip], generator: Generator) -> Examples:
    """`VIEWS` views of each painting `(m, 3, h, w)`, one after the other."""
    def number() -> float:
        return float(torch.rand(1, generator=generator))

    def tripped(image: Tensor) -> Tensor:
        return list(through.values())[int(torch.multinomial(ways, 1, generator=generator))](image, generator)

    chances, ways = torch.tensor([CHANCES.get(name, 1.0) for name in every]), torch.tensor([WAYS.get(name, 1.0) for name in through])
    found: dict[str, list[Tensor]] = {"pixels": [], "truth": [], "kind": [], "severity": []}
    for clean in data.random_crop(paintings, SIDE, generator).split(1):
        clean = tripped(clean) if number() < 0.4 else clean
        which, mask = int(torch.multinomial(chances, 1, generator=generator)), region(SIDE, SIDE, generator)
        mask = torch.ones_like(mask) if number() < WHOLE else mask
        high = number() * 0.8 + 0.2
        low = high * max(0.0, number() - 0.4)
        again, kind = int(torch.randint(2**31, (1,), generator=generator)), list(every.values())[which]
        views = [clean if s == 0 else inject(clean, kind, s, mask, Generator().manual_seed(again)) for s in (low, high)]
        masks = (mask if low else torch.zeros_like(mask), mask)
        truth = [patches(clean, view, there, EDGE) for view, there in zip(views, masks, strict=True)]
        severity = [(change(clean, view, mask) / FULL).clamp(max=1) for view in views]
        same = int(torch.randint(2, (1,), generator=generator))
        found["pixels"] += [*views, tripped(views[same])]
        found["truth"] += [*truth, truth[same]]
        found["severity"] += [*severity, severity[same]]
        found["kind"].append(torch.tensor([which] * VIEWS))
    return Examples(**{name: torch.cat(held) for name, held in found.items()})


def objective(read: Tensor, logits: Tensor, seen: Examples) -> dict[str, Tensor]:
    """Patches and images by their severity, places by being hit, two severities in order, what a trip must leave, the kind."""
    truth, severity = seen.truth, seen.severity
    known, damaged = ~truth.isnan(), severity > LEAST / FULL
    root = read.clamp(1e-6, 1 - 1e-5).sqrt()
    score = pool(read).sqrt()
    low, high, trip = score.view(-1, VIEWS).unbind(1)
    small, large, same = severity.view(-1, VIEWS).unbind(1)
    rising = large > small + 0.02
    order = F.softplus((low - high) / 0.05)[rising]
    named = F.cross_entropy(attended(read.detach(), logits)[damaged], seen.kind[damaged], reduction="none")
    return {
        "patches": 3 * F.binary_cross_entropy(root[known], truth[known].sqrt()),
        "places": 0.3 * placed(root.logit(), truth),
        "image": (score - severity.sqrt()).square().mean(),
        "order": order.sum() / max(1, len(order)),
        "trips": 3 * (trip - torch.where(same == large, high, low)).abs().mean(),
        "kind": 0.3 * named.sum() / max(1, len(named)),
    }


def placed(logits: Tensor, truth: Tensor) -> Tensor:
    """What stands in for `1 - AUC` of each map: hit patches against spared ones of the same image, softplus of their difference."""
    hit, spared = (truth > 0).flatten(1).float(), (truth == 0).flatten(1).float()
    there = (hit.sum(1) > 0) & (spared.sum(1) > 0)
    z = logits.flatten(1)
    worse = F.softplus(z[:, None, :] - z[:, :, None])  # (n, hit, spared)
    pairs = hit[:, :, None] * spared[:, None, :]
    each = (worse * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
    return each[there].sum() / there.sum().clamp_min(1)


def fit(images: np.ndarray, rows: np.ndarray, weights: np.ndarray, every: dict[str, Kind], through: dict[str, Trip],
        run: training.Run) -> Network:  # fmt: skip
    """The network, on freshly damaged paintings in every step, drawn by `weights`, until the run's budget is spent."""
    network, chances = run.models["network"], torch.from_numpy(weights)

    def losses(_step: int, _progress: float) -> dict[str, Tensor]:
        chosen = rows[data.draw(chances, PAINTINGS, run.generator).numpy()]
        with torch.autocast("cpu", enabled=False):
            seen = examples(data.batch(images, chosen), every, through, run.generator)
        read, logits = network(seen.pixels)
        with torch.autocast("cpu", enabled=False):
            return objective(read, logits, seen)

    return training.train(run, losses)["network"]


def started(count: int, folder: Path, minutes: float, steps: int | None = None, seed: int = 0, network: Network | None = None
            ) -> training.Run:  # fmt: skip
    """A run that starts from `network`, by default from random weights for `count` kinds, or goes on in `folder`."""
    torch.manual_seed(seed)
    rate = 2e-3 if network else 4e-3
    network = (network or Network(count)).requires_grad_().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    return training.Run(nn.ModuleDict({"network": network}), optimizer, folder, minutes, steps=steps, seed=seed)


@torch.no_grad()
def scaled(head: Patch, held: Examples, clean: Tensor, every: dict[str, Kind], through: dict[str, Trip], seed: int = 0) -> Patch:
    """The head with the scale that fits the measured severities best, the temperature of its kinds, and the alarm.

    Of several toes the smallest is taken under which no kind of round trip moves the whole pictures `clean` by more than `MOST` of the mean
    range to the same pictures at their severest, each by another kind: slight readings are given up for that, since a codec gives them too.
    """
    read, logits = (torch.cat(part) for part in zip(*(head.network(part) for part in held.pixels.split(64)), strict=True))
    damaged, whole, generator = held.severity > LEAST / FULL, held.severity == 0, Generator().manual_seed(seed)
    ways = [lambda one, kind=kind: inject(one, kind, 1.0, region(*one.shape[-2:], generator), generator) for kind in every.values()]
    severest = torch.cat([ways[place % len(ways)](one) for place, one in enumerate(clean.split(1))])
    tripped = [way(clean, generator) for way in through.values()]
    before, after, *tripped = (head.network(pixels)[0] for pixels in (clean, severest, *tripped))
    exponents, found = torch.logspace(-1, 3, 241), head
    for toe in TOES:
        pooled = pool(read) ** float(toe)
        errors = [(1 - (1 - pooled) ** exponent - held.severity)[damaged | whole].square().mean() for exponent in exponents]
        found = replace(head, toe=float(toe), exponent=float(exponents[int(torch.stack(errors).argmin())]))
        start = found.pooled(before)
        moves = [float((found.pooled(moved) - start).abs().mean()) for moved in tripped]
        if not moves or max(moves) <= MOST * float((found.pooled(after) - start).mean()):
            break
    heat = temperature(attended(read, logits)[damaged], held.kind[damaged]) if damaged.any() else 1.0
    found = replace(found, temperature=heat)
    return replace(found, alarm=float(found.pooled(read)[whole].quantile(ALARM))) if whole.any() else found


def held_out(table: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the guide split to learn from, and those of a tenth of its artists, whom scale and alarm come from."""
    guide, rng = np.flatnonzero(table["split"] == "guide"), np.random.default_rng(seed)
    if len(guide) < 2:
        raise UserError(f"there are {len(guide)} images of split guide: an artifact head needs at least some to learn from.")
    artists = hands(table["artist"].iloc[guide]).to_numpy()
    names = np.unique(artists)
    apart = np.isin(artists, rng.choice(names, max(1, len(names) // 10), replace=False))
    return guide[~apart], guide[apart]


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    minutes: Annotated[float, typer.Option(help="Training time; an interrupted run goes on with what is left.", min=0.01)] = 15,
    steps: options.Steps = None,
    held: Annotated[int, typer.Option(help="Paintings that scale, temperature and alarm come from.", min=8)] = 400,
    tested: Annotated[int, typer.Option(help="How many to measure each kind of damage on.", min=4)] = 60,
    clip: Annotated[str, typer.Option(help="The encoder that adversarial damage is aimed at. Default: the one below --work.")] = "",
    start: Annotated[str, typer.Option(help="Start from this head (no suffix) instead of random weights.")] = "",
    only_measure: Annotated[bool, typer.Option("--only-measure", help="Train nothing: measure the head of --start again.")] = False,
    seed: options.Seed = 0,
):
    """The head with its card, in `work/heads/artifacts.*`, on the CPU."""
    if not clip:
        options.needed(work / "clip" / "model", "clip")
    if only_measure and not start:
        raise UserError("--only-measure needs the head to measure: give it with --start.")
    known, before = (patch.load(Path(start)), card.read(Path(start))["training"]) if start else (None, None)
    images, table = data.paintings(folder, work)
    encoder, vae = encoders.load(clip or str(work / "clip" / "model")), work / "autoencoder" / "vae"
    through = trips(AutoencoderTiny.from_pretrained(vae if vae.exists() else pipelines.EMBEDDED / "vae").eval())
    learning, apart = held_out(table, seed)
    every = kinds(encoder)
    if known and known.kinds != tuple(every):
        raise UserError(f"the head {start} tells other kinds of damage apart ({', '.join(known.kinds)}); train without --start.")
    if only_measure:
        network, training_said = known.network, before
    else:
        run = started(len(every), work / "artifacts", minutes, steps, seed, known and known.network)
        network = fit(images, learning, data.balance(table.iloc[learning], style=0.5, artist=0.35), every, through, run)
        minutes = round(run.seconds / 60, 1)
        training_said = {"paintings": len(learning), "seen": run.step * PAINTINGS, "seed": seed, "minutes": minutes}
        training_said |= {"before": before} if before else {}
    chosen = np.random.default_rng(seed + 1).choice(apart, min(held, len(apart)), replace=False)
    kept = [examples(data.batch(images, rows), every, through, Generator().manual_seed(seed + 1 + k))
            for k, rows in enumerate(np.array_split(chosen, -(-len(chosen) // 64)))]  # fmt: skip
    joined = Examples(**{name: torch.cat([getattr(part, name) for part in kept]) for name in Examples.__dataclass_fields__})
    # What ships is in 16 bits, so that is what is scaled and measured.
    whole = data.centre_crop(data.batch(images, chosen[:CLEAN]), SIDE)
    head = scaled(Patch(network.half().float(), tuple(every), side=SIDE), joined, whole, every, through, seed)
    figures = artifact_figures.figures(head, every, images, table, through, tested, seed)
    told = {"encoder_name": encoder.source, "metrics": figures, "training": training_said}
    head = replace(head, reliability=artifact_figures.sentence(figures))
    patch.save(work / "heads" / "artifacts", head, told)
    typer.echo(head.reliability)


if __name__ == "__main__":
    options.start(main)
