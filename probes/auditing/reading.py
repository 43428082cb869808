"""Reads pictures, one encoder pass for all probes and one of the judge: prepared one by one in workers, read in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256

import numpy as np
import torch
from torch import Tensor

from probes import domain, image, relevance
from probes.auditing import damage, looks, opening, reasons
from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.ledger import Entry
from probes.content import ContentProbe
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card
from probes.judge import Judge, Opinion
from probes.judges.readout import prepare
from probes.origin import OriginProbe
from probes.paths import printable
from probes.period import PeriodProbe
from probes.probe import Measure
from probes.scene import SceneProbe
from probes.style import StyleProbe

UNKNOWN = float("nan")
HEADS = ("style", "period", "content", "scene", "origin", "artifacts", "domain")
SCHEMA = 1  # of the rows: raise it when a reading changes its meaning


@dataclass(slots=True)
class Picture:
    """A picture at the sizes that encoder and judge see, (1, 3, h, w); no pixels where it could not be opened, or was read before."""

    key: str
    row: dict
    intention: Intention = field(default_factory=Intention)
    seen: Tensor | None = None
    judged: Tensor | None = None
    whole: Tensor | None = None
    thumbnail: bytes = b""


class Reading:
    """Probes aimed once per intention, and a judge. `prepare` may run in threads; `entries` is the pass through the networks."""

    def __init__(self, encoder: Encoder, judge: Judge | None, *, thumbnails: bool = False):
        self.encoder, self.judge, self.thumbnails = encoder, judge, thumbnails
        self.style, self.period, self.content = StyleProbe(encoder), PeriodProbe(encoder), ContentProbe(encoder)
        self.scene, self.origin, self.artifacts = SceneProbe(encoder), OriginProbe(encoder), damage.load(encoder)
        shipped = card.shipped("domain", encoder)
        self.domain = domain.load(shipped, encoder.device) if shipped else None
        self.aims: dict[Intention, tuple[Measure | None, ...]] = {}
        self.side = getattr(judge.network, "side", None) if judge else None  # a judge without one sees pictures as they are, one at a time
        self.salt = "\0".join((encoder.fingerprint, judge.lineage.weights if judge else "", _heads(encoder), str(thumbnails)))

    def unasked(self) -> dict[str, str]:
        """By the name of what is read in any case, how far to trust it."""
        heads = {"style": self.style.head, "period": self.period.head, "origin": self.origin.head}
        heads |= {"artifacts": self.artifacts.head} if self.artifacts else {}
        return {name: head.reliability for name, head in heads.items()} | self.scene.reliabilities

    def aimed(self, intention: Intention) -> tuple[Measure | None, ...]:
        """Measures of style, period and content for one intention."""
        if intention not in self.aims:
            self.aims[intention] = tuple(probe.aim(intention) for probe in (self.style, self.period, self.content))
        return self.aims[intention]

    @torch.no_grad()
    def prepare(self, item: Item, intention: Intention | None, known: Sequence[str]) -> Picture:
        """Opens, measures and shrinks one picture; `known` keys are not opened. Never raises for what a file holds."""
        row = {"image": item.name, **item.cells}
        row["notes"] = list(row.get("notes", []))
        if isinstance(item.source, Tensor):
            pixels = image.check(item.source[None].float())
            found, data = opening.Opened(pixels), pixels.cpu().numpy().tobytes()
        else:
            try:
                found, data = None, item.read()
            except UserError as error:
                found, data = opening.Opened(error=str(error)), b"\0" + str(error).encode()
        row["sha256"] = sha256(data).hexdigest()
        told = sorted((name, str(value)) for name, value in item.cells.items())
        identity = repr((self.salt, item.name, row["sha256"], intention, told)).encode("utf-8", "replace")
        key = blake2b(identity, digest_size=16).hexdigest()
        if key in known:
            return Picture(key, row)
        found = found or opening.opened(data, item.name)
        meant = intention if intention is not None else Intention.written(found.said)
        row |= _said(found.said, row)
        row["notes"] += found.notes
        if found.pixels is None:
            return Picture(key, row | {"error": printable(found.error)}, meant)
        measured = looks.looks(found.pixels)
        row["notes"] += ["without colour"] if measured["saturation"] < looks.COLOURLESS else []
        row |= measured | {"fingerprint": looks.fingerprint(found.pixels), "prompt": meant.prompt}
        height, width = found.pixels.shape[-2:]
        row |= {"width": width, "height": height}
        small = looks.thumbnail(found.pixels) if self.thumbnails else b""
        judged = None if self.judge is None else (prepare(found.pixels, self.side) + 1) / 2 if self.side else found.pixels
        # Fitted twice is fitted once: what the encoder's own preprocessing gives passes through it unchanged.
        picture = Picture(key, row, meant, relevance.seen(self.encoder, found.pixels).cpu(), judged, thumbnail=small)
        if self.artifacts:
            picture.whole, notes = damage.fitted(found.pixels)
            row["notes"] += notes
        return picture

    @torch.no_grad()
    def entries(self, group: Sequence[Picture]) -> list[Entry]:
        """An entry per picture, in order; those without pixels keep their error."""
        seen = [picture for picture in group if picture.seen is not None]
        filled = dict(zip(map(id, seen), self._read(seen), strict=True)) if seen else {}
        return [filled.get(id(picture)) or Entry(picture.key, picture.row) for picture in group]

    def _read(self, pictures: list[Picture]) -> list[Entry]:
        embeddings = self.encoder(torch.cat([picture.seen for picture in pictures]).to(self.encoder.device))
        opinion = self._opinion(pictures)
        features = (embeddings if opinion is None else opinion.features).cpu().numpy().astype(np.float16)
        seen_styles, years = self.style.read(embeddings), self.period.read(embeddings)
        scenes, origins = self.scene.read(embeddings), self.origin.read(embeddings)
        labels, entries = list(seen_styles["labels"]), []
        for k, picture in enumerate(pictures):
            one, (style, period, content) = embeddings[k : k + 1], self.aimed(picture.intention)
            row = {"style_target": picture.intention.target}
            row |= {name: float(years[name][k]) for name in ("year", "year_low", "year_high")}
            row |= dict(zip(("period_low", "period_high"), picture.intention.period or (), strict=False))
            row |= {name: float(m.score(one)) if m else UNKNOWN for name, m in (("year_error", period), ("content", content))}
            row |= reasons.styled(style, one, seen_styles["style_probabilities"][k], labels)
            row |= {"scene": scenes["scene_labels"][int(scenes["scene_probabilities"][k].argmax())], "figures": float(scenes["figures"][k])}
            row |= {"indoor": float(scenes["indoor"][k])} if "indoor" in scenes else {}
            row |= {"made_by_model": float(origins["made_by_model"][k])}
            row |= {"domain_percentile": float(self.domain.percentile(one)[0])} if self.domain else {}
            row |= reasons.judged(self.judge, opinion, k, picture.intention) if opinion else {}
            damaged, where = damage.cells(self.artifacts, picture.whole.to(self.encoder.device)) if self.artifacts else ({}, b"")
            row = picture.row | row | damaged
            row["reason"] = reasons.reason(row, picture.intention)
            row["trust"] = {measure.name: measure.reliability for measure in (style, period, content) if measure}
            entries.append(Entry(picture.key, row, picture.thumbnail, where if self.thumbnails else b"", features[k].tobytes()))
        return entries

    def _opinion(self, pictures: list[Picture]) -> Opinion | None:
        if self.judge is None:
            return None
        if self.side:
            return self.judge(torch.cat([picture.judged for picture in pictures]).to(self.encoder.device))
        said = [self.judge(picture.judged.to(self.encoder.device)) for picture in pictures]
        return Opinion(**{name: torch.cat([getattr(one, name) for one in said]) for name in Opinion.__dataclass_fields__})


def _said(said: dict, row: dict) -> dict:
    """Variant and seed as the file says them, where nothing else did."""
    variant, seed = said.get("variant"), said.get("seed")
    found = {"variant": printable(variant)} if isinstance(variant, str) and "variant" not in row else {}
    return found | ({"seed": seed} if type(seed) is int and abs(seed) < 2**63 and "seed" not in row else {})


def _heads(encoder: Encoder) -> str:
    """A hash of every head that ships for the encoder, its card included: another head reads anew."""
    digest = sha256(str(SCHEMA).encode())
    for stem in filter(None, (card.shipped(name, encoder) for name in HEADS)):
        for file in (stem.with_suffix(suffix) for suffix in (".json", ".safetensors")):
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
