"""Reads pictures, one encoder pass for all probes and one of the judge: prepared one by one in workers, read in batches."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from json import dumps
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probes import domain, image
from probes.auditing import damage, looks, opening, reasons
from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.ledger import Entry
from probes.auditing.pairing import UNGUIDED
from probes.content import ContentProbe
from probes.encoders import Encoder
from probes.errors import UserError
from probes.folding import folded
from probes.heads import card
from probes.judge import Judge, Opinion
from probes.origin import OriginProbe
from probes.paths import printable
from probes.period import PeriodProbe
from probes.probe import Measure
from probes.scene import SceneProbe
from probes.style import StyleProbe

MOST_AIMS = 4096  # intentions whose measures are kept: a million prompts would fill the memory
HEADS = ("style", "period", "content", "scene", "origin", "artifacts", "domain")
SCHEMA = 8  # of the rows: raise it when a reading changes its meaning


@dataclass(slots=True)
class Picture:
    """A picture at the sizes that encoder and judge see, (1, 3, h, w), 8-bit or floats in [0, 1]; none where it could not be opened,
    or was read before."""

    key: bytes
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
        self.eyes = folded(encoder)
        self.style, self.period, self.content = StyleProbe(encoder), PeriodProbe(encoder), ContentProbe(encoder)
        self.scene, self.origin, self.artifacts = SceneProbe(encoder), OriginProbe(encoder), damage.load(encoder)
        self.domain = domain.shipped(encoder)
        self.aims: dict[Intention, tuple[Measure | None, ...]] = {}
        self.salt = "\0".join((encoder.fingerprint, judge.identity if judge else "", _heads(encoder)))

    def unasked(self) -> dict[str, str]:
        """By the name of what is read in any case, how far to trust it."""
        heads = {"style": self.style.head, "period": self.period.head, "origin": self.origin.head}
        heads |= {"artifacts": self.artifacts.head} if self.artifacts else {}
        return {name: head.reliability for name, head in heads.items()} | self.scene.reliabilities

    def alarms(self) -> dict[str, float]:
        """By style, the share of real, undamaged paintings that the artifact head takes for damaged, says its card."""
        stem = damage.head(self.encoder)
        known = card.read(stem).get("metrics", {}).get("false alarms", {}) if stem else {}
        return {style: said["alarmed"] for style, said in known.items()}

    def heads(self) -> dict[str, dict]:
        """The heads that ship for the encoder, by name: which kind each is, and its hash."""
        return {name: {"kind": card.read(stem).get("head", "linear"), "sha256": _hash(stem)} for name, stem in _stems(self.encoder).items()}

    def aimed(self, intention: Intention) -> tuple[Measure | None, ...]:
        """Measures of style, period and content for one intention; only the last few thousand are kept."""
        if intention not in self.aims:
            if len(self.aims) >= MOST_AIMS:
                self.aims.clear()
            self.aims[intention] = tuple(probe.aim(intention) for probe in (self.style, self.period, self.content))
        return self.aims[intention]

    @torch.no_grad()
    def prepare(self, item: Item, intention: Intention | None, known: Container[bytes]) -> Picture:
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
        row["sha256"] = sha256(data).digest()
        told = sorted((name, str(value)) for name, value in item.cells.items())
        identity = repr((self.salt, item.name, row["sha256"], intention, told)).encode("utf-8", "replace")
        key = blake2b(identity, digest_size=16).digest()
        if key in known:
            return Picture(key, row)
        found = found or opening.opened(data, item.name)
        meant = intention if intention is not None else Intention.written(found.said)
        row |= _said(found.said, row)
        row["notes"] += found.notes
        if found.pixels is None:
            return Picture(key, row | {"error": printable(found.error)}, meant)
        shape = found.pixels.shape
        less = looks.shrunk(found.pixels, looks.SIDE)  # once, for all that reads it
        measured = looks.looks(less)
        row["notes"] += [looks.COLOURLESS_NOTE] if measured["saturation"] < looks.COLOURLESS else []
        row["notes"] += [looks.BLANK_NOTE] if measured["contrast"] <= looks.BLANK else []
        row |= measured | {"prompt": meant.prompt}
        row |= {"width": shape[-1], "height": shape[-2]}
        small = looks.thumbnail(less) if self.thumbnails else b""
        judged = None if self.judge is None else self.judge.fit(found.pixels)
        # Fitted twice is fitted once: what the encoder's own preprocessing gives passes through it unchanged.
        picture = Picture(key, row, meant, self.encoder.fit(found.pixels), judged, thumbnail=small)
        if self.artifacts:
            picture.whole, notes = damage.fitted(less, shape)
            row["notes"] += notes
        return picture

    def thumbnail(self, item: Item) -> bytes:
        """Of a picture that was read before; nothing where it is gone, or no longer opens."""
        try:
            found = opening.Opened(item.source[None]) if isinstance(item.source, Tensor) else opening.opened(item.read(), item.name)
        except UserError:
            return b""
        return looks.thumbnail(looks.shrunk(found.pixels, looks.SIDE)) if found.pixels is not None else b""

    @torch.no_grad()
    def entries(self, group: Sequence[Picture]) -> list[Entry]:
        """An entry per picture, in order; those without pixels keep their error."""
        seen = [picture for picture in group if picture.seen is not None]
        filled = dict(zip(map(id, seen), self._read(seen), strict=True)) if seen else {}
        return [filled.get(id(picture)) or Entry(picture.key, picture.row) for picture in group]

    def _read(self, pictures: list[Picture]) -> list[Entry]:
        """One pass of each network; every number leaves the device once a batch, not once a picture."""
        seen = self.eyes.describe(self._batch([picture.seen for picture in pictures]))
        opinion = self._opinion(pictures)
        features = (self.encoder.cut(seen, self.encoder.dim) if opinion is None else opinion.features).cpu().numpy().astype(np.float16)
        styles = self.style.read(seen)["style_probabilities"]
        cells = self._unasked(seen)
        asked = [{} for _ in pictures]
        for intention, at in _alike(pictures).items():
            for k, found in zip(at, self._asked(intention, at, seen, styles, opinion), strict=True):
                asked[k] = found
        damages = damage.read(self.artifacts, [picture.whole for picture in pictures]) if self.artifacts else [({}, b"")] * len(pictures)
        entries = []
        for k, (picture, (damaged, where)) in enumerate(zip(pictures, damages, strict=True)):
            row = picture.row | {name: values[k] for name, values in cells.items()} | asked[k] | damaged
            row["reason"] = reasons.reason(row, picture.intention)
            entries.append(Entry(picture.key, row, picture.thumbnail, where, features[k].tobytes()))
        return entries

    def _unasked(self, seen: Tensor) -> dict[str, list]:
        """What is read whatever was meant: columns of n values."""
        years, scenes, origins = self.period.read(seen), self.scene.read(seen), self.origin.read(seen)
        found = {name: years[name].tolist() for name in ("year", "year_low", "year_high")}
        found["scene"] = [scenes["scene_labels"][place] for place in scenes["scene_probabilities"].argmax(1).tolist()]
        found |= {name: scenes[name].tolist() for name in ("figures", "indoor") if name in scenes}
        found["made_by_model"] = origins["made_by_model"].tolist()
        if self.domain:
            found["domain_percentile"] = self.domain.percentile(seen).tolist()
            found["out_of_domain"] = [percentile >= domain.FARTHEST for percentile in found["domain_percentile"]]
        return found

    def _asked(self, intention: Intention, at: list[int], seen: Tensor, styles: Tensor, opinion: Opinion | None) -> list[dict]:
        """What guide and judge say against one intention, of the pictures `at`: a row's cells each."""
        some, (style, period, content) = seen[at], self.aimed(intention)
        found = {"style_target": [intention.target] * len(at)}
        found |= {name: [year] * len(at) for name, year in zip(("period_low", "period_high"), intention.period or (), strict=False)}
        found |= {"year_error": period.score(some).tolist()} if period else {}
        found |= {"content": content.score(self.encoder.cut(some, self.encoder.dim)).tolist()} if content else {}
        found |= reasons.styled(style, some, styles[at], self.style.labels)
        found |= reasons.judged(self.judge, opinion, at, intention) if opinion else {}
        found["trust"] = [dumps({measure.name: measure.reliability for measure in (style, period, content) if measure})] * len(at)
        return [dict(zip(found, cells, strict=True)) for cells in zip(*found.values(), strict=True)]

    def _opinion(self, pictures: list[Picture]) -> Opinion | None:
        if self.judge is None:
            return None
        return self.judge(self._batch([picture.judged for picture in pictures]), [picture.intention.prompt for picture in pictures])

    def _batch(self, pictures: list[Tensor]) -> Tensor:
        """(n, 3, h, w) in [0, 1] on the device; 8-bit pictures, which nearly all are, travel as such."""
        same = len({picture.dtype for picture in pictures}) == 1
        return image.unit(torch.cat(pictures if same else list(map(image.unit, pictures))).to(self.encoder.device, non_blocking=True))


def _alike(pictures: list[Picture]) -> dict[Intention, list[int]]:
    """Intention -> which pictures of a batch were meant to be so."""
    found: dict[Intention, list[int]] = {}
    for k, picture in enumerate(pictures):
        found.setdefault(picture.intention, []).append(k)
    return found


def _said(said: dict, row: dict) -> dict:
    """Variant, strategy, generator and seed as the file says them, where nothing else did."""
    texts, seed = {"variant": "variant", "strategy": "strategy", "generator": "model"}, said.get("seed")
    found = {cell: printable(said[name]) for cell, name in texts.items() if isinstance(said.get(name), str) and cell not in row}
    if isinstance(said.get("encoder"), str) and said.get("strategy") != UNGUIDED:
        found["steered"] = printable(said["encoder"])
    return found | ({"seed": seed} if type(seed) is int and abs(seed) < 2**63 and "seed" not in row else {})


def _heads(encoder: Encoder) -> str:
    """A hash of every head that ships for the encoder, its card included: another head reads anew."""
    return sha256("".join((str(SCHEMA), *map(_hash, _stems(encoder).values()))).encode()).hexdigest()


def _stems(encoder: Encoder) -> dict[str, Path]:
    """Where the heads that read are, by name, those that there are."""
    found = {name: card.shipped(name, encoder) for name in HEADS} | {"artifacts": damage.head(encoder)}
    return {name: stem for name, stem in found.items() if stem}


def _hash(stem: Path) -> str:
    """Of a head's card and tensors."""
    digest = sha256()
    for file in (stem.with_name(stem.name + suffix) for suffix in (".json", ".safetensors")):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
