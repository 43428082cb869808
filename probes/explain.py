"""Why a probe reads a picture as it does: where in it, near to which words, near to which labelled pictures; as PNG and HTML."""
from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from probes import diagrams, image, relevance
from probes.artifacts import ArtifactProbe, fitted
from probes.atomic import write_text
from probes.concepts import Concept, Neighbour, concepts, neighbours
from probes.errors import UserError
from probes.heads.contrast import Contrast
from probes.heads.head import Head, YearHead
from probes.heads.patch import EDGE
from probes.labelled import Labelled
from probes.paths import printable
from probes.probe import NOT_VALIDATED
from probes.relevance import Check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.encoders import Encoder

THUMBNAIL, SEVERITY = 160, "severity"
EDGE_OF_HOLE = .03  # of the side: a hard edge would be damage itself
FELT = .02  # of a severity from 0 to 1: less than that is no evidence, however seldom chance gives more


@dataclass(frozen=True, eq=False)
class Target:
    """What is explained: `score` of embeddings `(n, d)` `(n,)` in `unit`; `said` is the reading in words."""

    name: str
    label: str
    unit: str
    said: str
    score: Callable[[Tensor], Tensor]
    reliability: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """A reading of the picture `file`, and its reasons.

    `picture` `(h, w, 3)` in [0, 1] is what the encoder sees, `relevance` `(h, w)` what each place holds of the score, in its unit for the
    method `occlusion`, or how damaged it is, and `check` whether that is so.
    """

    file: str
    encoder: str
    target: Target
    score: float
    method: str
    picture: np.ndarray
    relevance: np.ndarray
    check: Check
    concepts: tuple[Concept, ...]
    neighbours: tuple[Neighbour, ...]
    thumbnails: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    undamaged: bool = False  # of damage: nothing set the probe off

    @property
    def verdict(self) -> str:
        """What the check found."""
        if self.target.unit != SEVERITY:
            return self.check.sentence(self.target.unit)
        if self.undamaged:
            return "It reads as undamaged, so there is no damage to explain."
        found = (f"Replacing what the map marks by clean places of the picture changes the severity by {-self.check.effect:+.2f} against "
                 f"replacing as much elsewhere, more than {self.check.beaten:.0%} of {len(self.check.random)} maps shifted by chance "
                 f"(p {self.check.p:.2f})")
        if self.check.causal and self.check.effect >= FELT:
            return f"{found}: the map shows what the reading rests on."
        return f"{found}: too little to confirm the map, and no sign against it: damage all over, or a faint one, cannot be repaired so."

    def sentences(self) -> list[str]:
        """What was found, for a terminal."""
        said = [f"{self.file}: {self.target.said} ({self.target.name}; {self.target.reliability}).", self.verdict]
        for kind in dict.fromkeys(concept.kind for concept in self.concepts):
            named = [f"{concept.words} {concept.cosine:.2f}" for concept in self.concepts if concept.kind == kind]
            said.append(f"Nearest in words, {kind} (cosine; {NOT_VALIDATED}): {', '.join(named)}.")
        if self.neighbours:
            said.append("Nearest labelled pictures: "
                        + ", ".join(f"{other.label} {other.cosine:.2f} ({other.name})" for other in self.neighbours) + ".")
        return [*said, *self.notes]

    def table(self) -> dict:
        """Everything but the pictures, as JSON holds it."""
        target = {"probe": self.target.name, "label": self.target.label, "unit": self.target.unit, "reliability": self.target.reliability}
        check = asdict(self.check) | {"causal": self.check.causal}
        return {"file": self.file, "encoder": self.encoder, **target, "score": self.score, "method": self.method, "check": check,
                "concepts": [asdict(concept) for concept in self.concepts],
                "neighbours": [asdict(other) for other in self.neighbours], "notes": list(self.notes)}

    def to_png(self, path: Path) -> None:
        """The picture and its relevance."""
        diagrams.save(self._where(), path)

    def _where(self) -> Figure:
        if self.target.unit == SEVERITY:
            return diagrams.damage(self.picture, self.relevance)
        return diagrams.relevance(self.picture, self.relevance, self.target.label)

    def to_html(self, path: Path) -> None:
        """One page that holds its own pictures and loads nothing; text from files and labels is escaped."""
        from jinja2 import Environment, FileSystemLoader
        page = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
                           lstrip_blocks=True).get_template("explain.html")
        where = _inline(diagrams.png(self._where()))
        curve = _inline(diagrams.png(diagrams.deletion(self.check, self.target.unit)))
        kinds = {kind: [concept for concept in self.concepts if concept.kind == kind]
                 for kind in dict.fromkeys(concept.kind for concept in self.concepts)}
        beside = zip(self.neighbours, self.thumbnails or [""] * len(self.neighbours), strict=True)
        write_text(path, page.render(found=self, where=where, curve=curve, kinds=kinds, neighbours=list(beside),
                                     verdict=self.verdict))


def target(probe: str, head: Head | YearHead, embedding: Tensor, label: str = "") -> Target:
    """The reading of `embedding` `(1, d)` by a head, of its first label unless `label` names another.

    Labels are scored in log-odds against all others, which do not saturate as a probability does; years as years, where positive
    relevance makes the picture later.
    """
    if hasattr(head, "expected"):
        if label:
            raise UserError(f"the {probe} head reads years, so there is no label {label!r} to explain; leave it out.")
        year = float(head.expected(embedding)[0])
        return Target(probe, "a later year", "years", f"reads as painted in {year:.0f}", head.expected, head.reliability)
    probabilities = head.probabilities(embedding)[0]
    label = label or head.labels[int(probabilities.argmax())]
    if label not in head.labels:
        raise UserError(f"the {probe} head has no label {label!r}; it has {', '.join(head.labels)}.")
    said = f"reads as {label} with probability {float(probabilities[head.labels.index(label)]):.2f}"
    return Target(probe, label, "log-odds", said, Contrast.rest(head, (label,)), head.reliability)


def contrast(probe: str, label: str, aim: Contrast, embedding: Tensor, reliability: str) -> Target:
    """The reading of `embedding` `(1, d)` by one group of a head's labels against another, in log-odds."""
    said = f"reads as {label} with probability {float(aim.probability(embedding)[0]):.2f}"
    return Target(probe, label, "log-odds", said, aim, reliability)


def words(encoder: Encoder, phrase: str, embedding: Tensor, reliability: str) -> Target:
    """How near `embedding` `(1, d)` is to a phrase: 100 times the cosine, so that a step of one can be seen."""
    aim = encoder.text([phrase])[0]

    def score(embeddings: Tensor) -> Tensor:
        return 100 * embeddings @ aim
    return Target("content", phrase, "100 x cosine", f"is near to {phrase!r} by a cosine of {float(score(embedding)[0]) / 100:.3f}", score,
                  reliability)


def explain(file: Path | str, encoder: Encoder, aim: Callable[[Tensor], Target], *, method: str = "occlusion",
            labelled: Labelled | None = None, count: int = 6, layers: bool = False) -> Explanation:
    """The reading that `aim` takes from the embedding `(1, d)` of a picture file, and its reasons.

    `layers`: it reads the encoder's description `(1, described)` instead; nearest are words and pictures by the embedding in it.
    `labelled`: pictures with features of the same encoder, among which the `count` nearest are found.
    """
    picture = image.load(file).to(encoder.device)
    with torch.no_grad():
        read = encoder.describe(picture) if layers else encoder(picture)
    embedding, rest = read[:, :encoder.dim], read[:, encoder.dim:]
    found, pixels = aim(read), relevance.seen(encoder, picture)
    if labelled is not None and labelled.features.shape[1] != encoder.dim:
        raise UserError(f"the labelled features have {labelled.features.shape[1]} values, and the encoder {encoder.name} gives "
                        f"{encoder.dim}; embed the pictures with it.")
    values = relevance.relevance(encoder, picture, found.score, method, layers)
    checked = relevance.check(encoder, pixels, found.score, values, layers=layers)
    near = neighbours(embedding, labelled, count) if labelled is not None else []

    def pulled(embeddings: Tensor) -> Tensor:
        return found.score(torch.cat([embeddings, rest.expand(len(embeddings), -1)], 1))

    thumbnails = tuple(_thumbnail(labelled.files[other.row]) for other in near) if near and labelled.files else ()
    return Explanation(printable(Path(file)), encoder.name, found, float(found.score(read)[0]), method,
                       pixels[0].permute(1, 2, 0).cpu().numpy(), values.detach().cpu().numpy(), checked,
                       tuple(concepts(encoder, embedding, pulled)), tuple(near), thumbnails, labelled.notes if labelled else ())


def damage(file: Path | str, probe: ArtifactProbe) -> Explanation:
    """Where the artifact probe sees damage in a picture file: its map over the picture, the kind it takes it for, and whether the score
    falls when the places that the map marks are replaced by clean ones of the same picture."""
    pixels = fitted(image.load(file)).to(probe.encoder.device)
    with torch.no_grad():
        seen = probe.look(pixels)
    score, kind = float(seen["severity"][0]), int(seen["kind_probabilities"][0].argmax())
    likely = f", most likely {seen['kinds'][kind]} ({float(seen['kind_probabilities'][0, kind]):.0%})" if seen["damaged"][0] else ""
    known = "as damaged" if seen["damaged"][0] else "no more damaged than 95 % of whole paintings do"
    said = f"reads {known}, severity {score:.2f} of 1{likely}"
    aim = Target(probe.name, "damage", SEVERITY, said, probe.head.score, probe.head.reliability)
    pixels = pixels[..., :pixels.shape[-2] // EDGE * EDGE, :pixels.shape[-1] // EDGE * EDGE]
    where = F.interpolate(seen["map"][:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    checked = relevance.deleted(probe.head.score, pixels, _clean(pixels, where), where, soft=EDGE_OF_HOLE, apart=True)
    picture, undamaged = pixels[0].permute(1, 2, 0).cpu().numpy(), not bool(seen["damaged"][0])
    return Explanation(printable(Path(file)), probe.encoder.name, aim, score, "severity of each patch", picture, where.cpu().numpy(),
                       checked, (), (), undamaged=undamaged)


def _clean(pixels: Tensor, damaged: Tensor) -> Tensor:
    """What else could stand at each place of `pixels` `(1, 3, h, w)`: of the picture shifted by quarters, what is least `damaged` `(h, w)`.

    Not a flat colour or a blur, which are damage themselves; a copy the probe hardly sees.
    """
    height, width = damaged.shape
    shifts = [(k // 4 * height // 4, k % 4 * width // 4) for k in range(1, 16)]
    least = torch.stack([damaged.roll(shift, (0, 1)) for shift in shifts]).argmin(0)
    found = torch.zeros_like(pixels)
    for k, shift in enumerate(shifts):
        found = torch.where(least == k, pixels.roll(shift, (-2, -1)), found)
    return found


def _thumbnail(file: Path) -> str:
    picture = image.to_pil(image.load(file))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=85)
    return _inline(held.getvalue(), "jpeg")


def _inline(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
