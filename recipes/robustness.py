"""What it costs the CLIP in accuracy that it learned from damaged and adversarial pictures, and what it gains on damaged ones.

    python -m recipes.clip --data paintings/ --work work/ --robust 0 --steps 1300 --freeze .35
    python -m recipes.robustness --data paintings/ --work work/

Beside the CLIP below `--work`, or `--robust`, stands one of undamaged paintings alone, which should have been trained as long. Both get a
style head, fitted as the one that ships, and read the same paintings by artists whom neither has seen, as they are and damaged. Into
`work/robustness.json`, with what is known of how long both were trained.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional as F

from probes import encoders
from probes.atomic import write_text
from probes.errors import UserError
from probes.judges import STYLES
from recipes import card_lines, data, options
from recipes.heads import autoencoder, style
from recipes.heads.features import BATCH, Paintings, embed, kept
from recipes.metrics import gain_figures, softmax, style_figures
from recipes.views import damaged, vae_pass


@dataclass(frozen=True, eq=False)
class Reading:
    """Logits `(n, styles)` of the test paintings, as they are and damaged, and the names of the styles."""

    labels: tuple[str, ...]
    clean: np.ndarray
    damaged: np.ndarray


def read(paintings: Paintings) -> Reading:
    """What the style head says that is fitted to this encoder."""
    head, clean, _ = style.layered(paintings, "style", STYLES)
    rows = paintings.rows("test")

    def hurt() -> Iterator[torch.Tensor]:
        generator, through = torch.Generator().manual_seed(0), vae_pass(paintings.vae)
        side = paintings.encoder.side
        torch.manual_seed(0)  # of the noise on the latents
        for start in range(0, len(rows), BATCH):
            pixels = data.batch(paintings.images, rows[start : start + BATCH], paintings.encoder.device)
            pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
            order = torch.randperm(len(pixels), generator=generator)  # paintings lie in the table by artist; damage goes by place
            worse = torch.empty_like(pixels)
            worse[order] = damaged(pixels[order], generator, through)
            yield worse

    seen = kept(
        paintings.work, paintings.encoder, f"layers-damaged-test-{paintings.coder}", len(rows),
        lambda: embed(paintings.encoder, hurt(), len(rows), "damaged", layers=True),
    )  # fmt: skip
    return Reading(head.labels, clean, head.logits(torch.from_numpy(seen)).numpy())


def trained(folder: Path) -> str:
    """How long, as the log in a run's folder has it."""
    log = folder / "log.json"
    return f"trained for {json.loads(log.read_text())[-1]['step']:,} steps" if log.exists() else "trained for a time that was not kept"


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    robust: Annotated[Path | None, typer.Option(help="The robust CLIP. Default: below --work.", exists=True, file_okay=False)] = None,
    device: options.Device = "auto",
):
    given, plain, robust = robust, work / "plain" / "model", robust or work / "clip" / "model"
    options.needed(plain, "clip --robust 0")
    options.needed(robust, "clip")
    images, table = data.paintings(folder, work)
    vae, where = autoencoder(work).to(options.device(device)), options.device(device)
    readings = {}
    for name, weights in (("robust", robust), ("plain", plain)):
        paintings = Paintings(encoders.load(str(weights), where), images, table, work, vae)
        readings[name] = read(paintings)
    labels, tested = readings["robust"].labels, paintings.tested
    truth = data.codes(tested["style"], labels)
    known = truth >= 0
    if not known.any():
        raise UserError(f"The test split has no painting in a style that the head knows ({', '.join(labels)}).")
    truth, artists = truth[known], tested["artist"][known]
    long = f"in {options.place(given)}" if given else trained(work / "clip")
    figures = {"trained": f"that one {trained(work / 'plain')}, the robust one {long}"}
    for kind in ("clean", "damaged"):
        logits = {name: getattr(reading, kind)[known] for name, reading in readings.items()}
        figures[kind] = {name: style_figures(softmax(values), truth, artists, labels) for name, values in logits.items()}
        guesses = (logits[name].argmax(1) for name in ("robust", "plain"))
        figures[kind]["robust less plain"] = gain_figures(*guesses, truth, artists)
    write_text(work / "robustness.json", json.dumps(figures, indent=1))
    typer.echo(card_lines.robustness(figures))


if __name__ == "__main__":
    options.start(main)
