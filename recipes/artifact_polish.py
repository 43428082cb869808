"""Train the last layers of an artifact head on: what a codec does to whole and to damaged paintings is to move its score less.

    python -m recipes.artifact_polish --data paintings/ --work work/ --paintings 500 --steps 1200

What the network sees of each patch is computed once and kept; only the layers that judge it learn, which takes a minute. Pictures are those
of `recipes.artifacts`, but each painting comes with two kinds of damage at two severities, and through every round trip.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderTiny
from rich.progress import track
from torch import Generator, Tensor
from torch.nn import functional as F

from guide import pipelines
from probes import encoders
from probes.heads import card, patch
from probes.heads.patch import EDGE, Network, attended, pool
from recipes import artifact_figures, data, options
from recipes.artifacts import CHANCES, SIDE, WHOLE, Examples, examples, held_out, kinds, placed, scaled
from recipes.corruptions import FULL, LEAST, Kind, change, inject, patches, region
from recipes.round_trips import Trip, trips

VIEWS = 11  # whole, two kinds at two severities each, the whole through three trips, the two severe ones through one each, one twice
DAMAGED = ((1, 2), (3, 4))  # places of the lower and the higher severity of each kind
TRIPPED = ((5, 0), (6, 0), (7, 0), (8, 2), (9, 4), (10, 2))  # places of a round trip, and of what went through it


@torch.no_grad()
def views(clean: Tensor, every: dict[str, Kind], through: dict[str, Trip], generator: Generator) -> Examples:
    """`VIEWS` of one painting `(1, 3, h, w)`."""
    def number() -> float:
        return float(torch.rand(1, generator=generator))

    chances, pixels, masks, which = torch.tensor([CHANCES.get(name, 1.0) for name in every]), [clean], [None], [0]
    for kind in torch.multinomial(chances, 2, generator=generator).tolist():
        mask = region(SIDE, SIDE, generator)
        mask = torch.ones_like(mask) if number() < WHOLE else mask
        low, again = 0.1 + 0.5 * number(), int(torch.randint(2**31, (1,), generator=generator))
        for strength in (low, min(1.0, low + 0.15 + 0.4 * number())):
            pixels.append(inject(clean, list(every.values())[kind], strength, mask, Generator().manual_seed(again)))
            masks.append(mask)
            which.append(kind)
    ways = list(through.values())
    for (_, source), way in zip(TRIPPED, [*ways, *ways], strict=True):
        pixels.append(way(pixels[source], generator))
        masks.append(masks[source])
        which.append(which[source])
    sources = [*range(5), *(source for _, source in TRIPPED)]
    nothing = torch.zeros(1, 1, SIDE, SIDE)
    truth = [patches(clean, pixels[s], nothing if mask is None else mask, EDGE) for s, mask in zip(sources, masks, strict=True)]
    severity = [torch.zeros(1) if mask is None else (change(clean, pixels[s], mask) / FULL).clamp(max=1)
                for s, mask in zip(sources, masks, strict=True)]
    return Examples(torch.cat(pixels), torch.cat(truth), torch.tensor(which), torch.cat(severity))


def objective(read: Tensor, logits: Tensor, seen: Examples) -> Tensor:
    """As in `recipes.artifacts`, over `VIEWS` of each painting: places and severities as they were, order and round trips above all."""
    truth, severity = seen.truth, seen.severity
    known, damaged = ~truth.isnan(), severity > LEAST / FULL
    root, score = read.clamp(1e-6, 1 - 1e-5).sqrt(), pool(read)
    of, known_severity = score.sqrt().view(-1, VIEWS), severity.view(-1, VIEWS)
    order = torch.cat([F.softplus((of[:, low] - of[:, high]) / 0.03)[known_severity[:, high] > known_severity[:, low] + 0.02]
                       for low, high in DAMAGED])
    moved = torch.cat([(of[:, place] - of[:, source]).abs() for place, source in TRIPPED])
    named = F.cross_entropy(attended(read.detach(), logits)[damaged], seen.kind[damaged])
    return (3 * F.binary_cross_entropy(root[known], truth[known].sqrt()) + 0.3 * placed(root.logit(), truth)
            + (score.sqrt() - severity.sqrt()).square().mean() + order.sum() / max(1, len(order)) + 4 * moved.mean() + 0.3 * named)


def batches(kept: Examples, count: int, steps: int, generator: Generator) -> Iterator[Examples]:
    """`count` paintings a step, all views of each."""
    paintings = len(kept.kind) // VIEWS
    for _ in range(steps):
        rows = (torch.randperm(paintings, generator=generator)[:count, None] * VIEWS + torch.arange(VIEWS)).flatten()
        yield Examples(*(getattr(kept, name)[rows] for name in Examples.__dataclass_fields__))


def polished(network: Network, kept: Examples, steps: int, seed: int = 0) -> Network:
    """The network with its last layers trained on; `kept.pixels` is what it sees of the views."""
    network = copy.deepcopy(network).float().requires_grad_(False)
    learned = [*network.coarse.parameters(), *network.out.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(learned, 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for seen in track(batches(kept, 8, steps, Generator().manual_seed(seed)), description="training", total=steps):
        loss = objective(*network.judge(seen.pixels.float()), seen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False)


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    paintings: Annotated[int, typer.Option(help="Of the guide split to learn from.", min=8)] = 500,
    steps: Annotated[int, typer.Option(help="Of eight paintings.", min=1)] = 1200,
    start: Annotated[str, typer.Option(help="The head to go on from. Default: the one that ships.")] = "",
    held: Annotated[int, typer.Option(help="Paintings that scale, temperature and alarm come from.", min=8)] = 200,
    tested: Annotated[int, typer.Option(help="How many to measure each kind of damage on.", min=4)] = 60,
    seed: options.Seed = 0,
):
    """The head with its card, in `work/heads/artifacts.*`, on the CPU."""
    begun = time.time()
    images, table = data.paintings(folder, work)
    stem = Path(start) if start else card.FOLDER / "artifacts"
    head, before, encoder = patch.load(stem), card.read(stem), encoders.load("embedded")
    vae = work / "autoencoder" / "vae"
    through = trips(AutoencoderTiny.from_pretrained(vae if vae.exists() else pipelines.EMBEDDED / "vae").eval())
    every, (learning, apart), rng = kinds(encoder), held_out(table, 0), np.random.default_rng(seed + 11)
    store = work / "artifacts" / f"seen-{paintings}-{seed}.pt"
    if not store.exists():
        kept, generator = [], Generator().manual_seed(seed)
        for row in track(rng.choice(learning, min(paintings, len(learning)), replace=False), description="damaging"):
            found = views(data.random_crop(data.batch(images, np.array([row])), SIDE, generator), every, through, generator)
            kept.append(replace(found, pixels=head.network.see(found.pixels).half()))
        store.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: torch.cat([getattr(part, name) for part in kept]) for name in Examples.__dataclass_fields__}, store)
    network = polished(head.network, Examples(**torch.load(store, weights_only=True)), steps, seed).half().float()
    chosen = rng.choice(apart, min(held, len(apart)), replace=False)
    parts = [examples(data.batch(images, rows), every, through, Generator().manual_seed(seed + 1 + k))
             for k, rows in enumerate(np.array_split(chosen, -(-len(chosen) // 50)))]  # fmt: skip
    joined = Examples(**{name: torch.cat([getattr(part, name) for part in parts]) for name in Examples.__dataclass_fields__})
    head = scaled(replace(head, network=network), joined, through)
    figures = artifact_figures.figures(head, every, images, table, through, tested, seed)
    told = {"encoder_name": encoder.source, "metrics": figures, "training": before["training"] | {
        "polished on": paintings, "polishing steps": steps, "polishing minutes in all": round((time.time() - begun) / 60, 1)}}  # fmt: skip
    head = replace(head, reliability=artifact_figures.sentence(figures))
    patch.save(work / "heads" / "artifacts", head, told)
    typer.echo(head.reliability)


if __name__ == "__main__":
    options.start(main)
