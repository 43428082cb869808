"""Adversarial sensitivity of the embedded style head: how small a change of a real painting flips what it reads, for the head's card.

    python -m recipes.sensitivity --data paintings/ --work work/ --count 60

Paintings of the test split, one of each artist in turn, at the encoder's own size. `guide.invert.flip` seeks the smallest change toward any
other style; the card tells its L2 norm, and how many random changes as large flip the reading too. Written into the card that ships, or
the one below `--work` where heads were just fitted; weights are not touched.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from guide.invert.flip import flip
from probes import encoders, image
from probes.atomic import write_text
from probes.heads import card, linear
from recipes import data, options
from recipes.metrics import by, hands, whose


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    count: Annotated[int, typer.Option(help="Paintings.", min=2)] = 60,
    steps: Annotated[int, typer.Option(help="Steps of the search for each.", min=10)] = 60,
    encoder: Annotated[str, typer.Option(help="embedded, or an open_clip folder. Default: below --work, else the one that ships.")] = "",
    device: options.Device = "auto",
    stem: Annotated[Path | None, typer.Option(help="The head without suffix. Default: below --work, else the one that ships.")] = None,
    seed: options.Seed = 0,
):
    """`sensitivity` in the style head's card."""
    images, table = data.paintings(folder, work)
    trained = work / "clip" / "model"
    reader = encoders.load(encoder or (str(trained) if trained.is_dir() else "embedded"), options.device(device))
    fitted = work / "heads" / "style"
    stem = stem or (fitted if fitted.with_suffix(".json").is_file() else card.FOLDER / "style")
    head = linear.load(stem, reader.device)
    rows = np.flatnonzero((table["split"] == "test") & table["style"].isin(head.labels))
    rows = np.random.default_rng(seed).permutation(rows)
    own = hands(table.iloc[rows]["artist"])
    turn = own.groupby(own).cumcount().to_numpy()  # the first of every artist, then the second of each
    rows = rows[np.argsort(turn, kind="stable")][:count]
    found = []
    for row in track(rows, description="flipping"):
        picture = torch.from_numpy(np.array(images[row])).permute(2, 0, 1)[None].float() / 255
        found.append(flip(reader, head, image.resize(picture, reader.side).clamp(0, 1), steps=steps))
    held = [one for one in found if one.found]
    norms, levels = ([getattr(one, name) for one in held] for name in ("norm", "levels"))
    figures = {
        "paintings": len(found), **whose(table.iloc[rows]["artist"]), "flipped": len(held), "steps": steps,
        "pixels": reader.side, "l2_norm_median": float(np.median(norms)), "l2_norm_quartiles": np.quantile(norms, (0.25, 0.75)).tolist(),
        "grey_levels_median": float(np.median(levels)), "random_changes_that_flip": float(np.mean([one.random for one in held])),
    }  # fmt: skip
    figures["sentence"] = sentence(figures)
    write_text(stem.with_suffix(".json"), json.dumps(card.read(stem) | {"sensitivity": figures}, indent=1, ensure_ascii=False) + "\n")
    typer.echo(figures["sentence"])


def sentence(figures: dict) -> str:
    """What a card and the command line say of it."""
    low, high = figures["l2_norm_quartiles"]
    return (
        f"Half of {figures['paintings']} paintings {by(figures)} are read as another style after a change of L2 "
        f"norm {figures['l2_norm_median']:.2f} or less at {figures['pixels']} pixels (quartiles {low:.2f}-{high:.2f}; "
        f"{figures['grey_levels_median']:.1f} grey levels of 256 on average), which nobody sees; of random changes as large "
        f"{figures['random_changes_that_flip']:.0%} do so."
    )


if __name__ == "__main__":
    options.start(main)
