"""Fit the heads of an encoder on its embeddings, and measure them on artists that no model here has seen.

    python -m recipes.heads --data paintings/ --work work/
    python -m recipes.heads --data paintings/ --work work/ --made pictures/ --only origin

Weights come from guide-split artists; temperatures and the recalibration of years from one half of the test artists; every figure on a
card from the other half or, where nothing was fitted, from all of them. For the origin head the installed pipeline paints `--count`
pictures (kept in `work/samples`), and `--made` adds other generators' and people's pictures by label.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from diffusers import AutoencoderTiny

from guide import pipelines
from probes import calibration, encoders
from probes import domain as near
from probes.atomic import write_text
from probes.config import offer
from probes.errors import UserError
from probes.heads import card
from recipes import data, options
from recipes.heads import content, domain, origin, period, pictures, scene, style
from recipes.heads.features import Paintings

HEADS = ("style", "period", "content", "scene", "origin", "domain")
PEOPLE = "person,people,human,real,authentic,replica,other-impressionist"


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    device: options.Device = "auto",
    only: Annotated[str, typer.Option(help="Some of style, period, content, scene, origin, domain.")] = ",".join(HEADS),
    encoder: Annotated[str, typer.Option(help="embedded, or a folder in open_clip's format. Default: the one below --work.")] = "",
    made: Annotated[Path | None, typer.Option(help="Pictures by label (class folders or a table) for origin.", exists=True)] = None,
    people: Annotated[str, typer.Option(help="Labels of --made that are people's; the others are generators.")] = PEOPLE,
    count: Annotated[int, typer.Option(help="Pictures that the installed pipeline paints for origin.", min=2)] = 240,
):
    """The heads and their cards, in `work/heads`."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in HEADS]:
        raise UserError(f"There is no head {unknown[0]!r}{offer(list(HEADS), complete=True)}.")
    if not encoder:
        options.needed(work / "clip" / "model", "clip")
    images, table = data.paintings(folder, work)
    reader = encoders.load(encoder or str(work / "clip" / "model"), options.device(device))
    paintings = Paintings(reader, images, table, work, autoencoder(work).to(reader.device))
    fits = {"style": style.fit, "period": period.fit, "scene": scene.fit, "origin": lambda paintings: origin.fit(
        paintings, pictures.piles(paintings, made, (name.strip() for name in people.split(",")), count))}  # fmt: skip
    for name in wanted:
        stem = work / "heads" / name
        try:
            fitted = fits[name](paintings) if name in fits else None
        except UserError as reason:
            if only != ",".join(HEADS):  # asked for by name
                raise
            typer.echo(f"{name}: left out. {reason}")
            continue
        if name == "content":
            said = {"encoder": reader.fingerprint, **content.measure(paintings)}
            write_text(stem.with_suffix(".json"), json.dumps(said, indent=1) + "\n")
        elif name == "domain":
            found, said = domain.fit(paintings)
            near.save(stem, found, {"encoder": reader.fingerprint, **said})
        else:
            head, said = fitted
            card.save(stem, head, {"encoder": reader.fingerprint, **said})
            if calibration.at_an_end(head.temperature):
                typer.echo(
                    f"{name}: its temperature is {head.temperature:.3g}, an end of what is searched: the half of the test artists that it "
                    "comes from tells too little of how sure the head may be."
                )
        typer.echo(f"{name}: {card.reliability(stem)}")


def autoencoder(work: Path) -> AutoencoderTiny:
    """The one below `work`, else the one that ships."""
    here = work / "autoencoder" / "vae"
    return AutoencoderTiny.from_pretrained(here if here.is_dir() else pipelines.EMBEDDED / "vae").eval()
