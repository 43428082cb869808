"""Reads any pictures with the three probes and a judge that did not steer them: a row each, and what it comes to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from probes import encoders, image
from probes import judge as judges
from probes.config import lookup, styles
from probes.content import ContentProbe
from probes.encoders import Encoder
from probes.errors import UserError
from probes.judge import Judge, Opinion
from probes.lineage import Lineage
from probes.paths import printable
from probes.period import PeriodProbe
from probes.probe import Intent, Measure
from probes.provenance import parameters
from probes.report import Report
from probes.style import StyleMeasure, StyleProbe
from probes.summary import summarise

SMALLEST = 32
BUDGET = 4_000_000  # pixels that go through the networks at a time
UNKNOWN, INFINITY = float("nan"), float("inf")
MOST, HEAVIEST = 9999, 1e6  # years and weights that a picture may claim for itself


@dataclass(frozen=True)
class Intention:
    """What a picture was meant to be: the attributes of a brief that the probes read."""

    prompt: str = ""
    styles: tuple[tuple[str, float], ...] = ()
    avoid: tuple[str, ...] = ()
    period: tuple[int, int] | None = None

    @classmethod
    def of(cls, brief: Intent) -> "Intention":
        return cls(brief.prompt, tuple((_key(name), weight) for name, weight in brief.styles), tuple(map(_key, brief.avoid)), brief.period)

    @classmethod
    def written(cls, parameters: dict) -> "Intention":
        """What a PNG's own parameters say; where they make no sense, only its subject."""
        subject, known = printable(str(parameters.get("subject") or "")), styles()
        try:
            wanted = tuple((str(name), float(weight)) for name, weight in parameters.get("styles") or ())
            avoid, period = tuple(map(str, parameters.get("avoid") or ())), tuple(map(int, parameters.get("period") or ()))
        except (TypeError, ValueError, OverflowError):
            return cls(subject)
        names = [*(name for name, _ in wanted), *avoid]
        sensible = len(set(names)) == len(names) and known.keys() >= set(names) and all(0 < weight <= HEAVIEST for _, weight in wanted)
        dated = len(period) == 2 and -MOST <= period[0] <= period[1] <= MOST
        if not sensible or (period and not dated):
            return cls(subject)
        return cls(subject, wanted, avoid, period or None)

    @property
    def target(self) -> str:
        """`baroque`, or `baroque:0.7,ukiyo-e:0.3`."""
        return self.styles[0][0] if len(self.styles) == 1 else ",".join(f"{name}:{weight:g}" for name, weight in self.styles)


def _key(name: str) -> str:
    """A style's key by any of its names; a name that only the head may know stays as it is."""
    try:
        return lookup(styles(), name, "style").key
    except UserError:
        return name


@dataclass(frozen=True)
class _Picture:
    row: dict
    intention: Intention
    pixels: Tensor | None


def audit(
    images: Tensor | str | Path | Sequence[str | Path],
    *,
    intent: Intent | Sequence[Intent] | None = None,
    encoder: str = "embedded",
    judge: str | None = "verdict",
    steered_by: Iterable[str | Lineage] = (),
    device: str = "cpu",
    batch: int = 16,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """A folder (with its subfolders), a glob, files, or a tensor (n, 3, h, w) in [0, 1] -> a Report, a row per image in order.

    `intent`: what all of them, or each, were meant to be; where it asks nothing, the parameters inside a PNG count. `steered_by`: what
    steered or tuned them (encoder sources or lineages): a judge of one of their families refuses with a UserError. One pass of the
    encoder serves all probes. Images that cannot be read get a row with the reason.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    reader, verdict = encoders.load(encoder, device), judges.load(judge, device) if judge else None
    steerers = [entry if isinstance(entry, Lineage) else encoders.load(entry, device).lineage for entry in steered_by]
    sources = [images] if isinstance(images, str | Path) else images
    names = image.find(sources[0]) if isinstance(images, str | Path) else list(sources)
    intents = list(intent) if isinstance(intent, Sequence) else [intent] * len(names)
    if len(intents) != len(names):
        raise UserError(f"There are {len(names)} images and {len(intents)} intentions; give one for each image, or one for all.")
    if verdict:
        verdict.check(steerers)
    reading, rows = _Reading(reader, verdict), []
    for group in _batches(zip(names, intents, strict=True), batch):
        rows += reading.rows(group)
        on_progress(len(rows), len(names))
    measures = [measure for aimed in reading.aims.values() for measure in aimed if measure]
    reliability = {measure.name: measure.reliability for measure in measures}
    return Report.of(rows, summarise(rows, reader, verdict, reliability, steered=reader.lineage in steerers))


def _batches(items: Iterable[tuple[object, Intent | None]], batch: int) -> Iterator[list[_Picture]]:
    """Neighbours of one size together, at most `batch` of them and at most BUDGET pixels; memory does not grow with the folder."""
    group: list[_Picture] = []
    for number, (source, intent) in enumerate(items):
        picture = _open(number, source, intent)
        shapes = {p.pixels.shape[-2:] for p in (*group, picture) if p.pixels is not None}
        pixels = sum(p.pixels[0, 0].numel() for p in (*group, picture) if p.pixels is not None)
        if group and (len(group) >= batch or len(shapes) > 1 or pixels > BUDGET):
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


def _open(number: int, source: object, intent: Intent | None) -> _Picture:
    given = Intention.of(intent) if intent is not None else Intention()
    if isinstance(source, Tensor):
        return _Picture({"image": f"image {number}"}, given, image.check(source[None].float()))
    written = parameters(source) or {}
    variant, seed = written.get("variant"), written.get("seed")
    row = {"image": printable(Path(source)), "variant": printable(variant) if isinstance(variant, str) else None}
    if type(seed) is int and abs(seed) < 2**63:
        row["seed"] = seed
    intention = Intention.written(written) if given == Intention() else given
    try:
        pixels = image.load(source)
    except UserError as error:
        return _Picture(row | {"error": printable(str(error))}, intention, None)
    if written.get("kind") == "contact sheet":
        return _Picture(row | {"error": "a contact sheet, not a picture"}, intention, None)
    if min(pixels.shape[-2:]) < SMALLEST:
        height, width = pixels.shape[-2:]
        return _Picture(row | {"error": f"{width} x {height} pixels are too few to read; {SMALLEST} a side is the least"}, intention, None)
    return _Picture(row, intention, pixels)


class _Reading:
    """Probes aimed once per intention, and a judge, on one batch after another."""

    def __init__(self, encoder: Encoder, judge: Judge | None):
        self.encoder, self.judge = encoder, judge
        self.style, self.period, self.content = StyleProbe(encoder), PeriodProbe(encoder), ContentProbe(encoder)
        self.aims: dict[Intention, tuple[Measure | None, ...]] = {}

    def aimed(self, intention: Intention) -> tuple[Measure | None, ...]:
        """Measures of style, period and content for one intention."""
        if intention not in self.aims:
            self.aims[intention] = tuple(probe.aim(intention) for probe in (self.style, self.period, self.content))
        return self.aims[intention]

    @torch.no_grad()
    def rows(self, group: list[_Picture]) -> list[dict]:
        """One row per picture; those without pixels keep their error."""
        seen = [picture for picture in group if picture.pixels is not None]
        if not seen:
            return [picture.row for picture in group]
        pixels = torch.cat([picture.pixels for picture in seen]).to(self.encoder.device)
        embeddings = self.encoder(pixels)
        opinion = self.judge(pixels) if self.judge else None
        seen_styles, years = self.style.read(embeddings), self.period.read(embeddings)
        labels, filled = list(seen_styles["labels"]), {}
        for k, picture in enumerate(seen):
            one = embeddings[k : k + 1]
            style, period, content = self.aimed(picture.intention)
            row = {"style_target": picture.intention.target, **{name: float(years[name][k]) for name in ("year", "year_low", "year_high")}}
            row |= {name: float(m.score(one)) if m else UNKNOWN for name, m in (("year_error", period), ("content", content))}
            row |= _style(style, one, seen_styles["style_probabilities"][k], labels)
            row |= _judged(self.judge, opinion, k, picture.intention) if opinion else {}
            filled[id(picture)] = picture.row | row | {"reason": _reason(row, picture.intention)}
        return [filled.get(id(picture), picture.row) for picture in group]


def _judged(judge: Judge, opinion: Opinion, k: int, intention: Intention) -> dict:
    """What the judge says of picture k, and whether that is what was intended."""
    targets = [name for name, _ in intention.styles]
    probabilities, top = opinion.styles[k], judge.labels[int(opinion.styles[k].argmax())]
    knows = bool(targets) and all(name in judge.labels for name in targets)
    aimed = [judge.labels.index(name) for name in targets] if knows else [judge.labels.index(top)]
    return {
        "verdict_style": top,
        "verdict_style_probability": float(probabilities[aimed].sum()) if knows or not targets else UNKNOWN,
        "verdict_log_odds": float(judge.log_odds(opinion, intention.styles, intention.avoid)[k]) if targets or intention.avoid else UNKNOWN,
        "verdict_year": float(opinion.years[k]),
        "verdict_severity": float(opinion.severity[k]),
        "kept": top in targets if knows else None,
    }


def _style(measure: StyleMeasure | None, embedding: Tensor, probabilities: Tensor, labels: list[str]) -> dict:
    """Log-odds and probability of the intended styles together (probability of the top one where none is), and the top one."""
    top = int(probabilities.argmax())
    intended = measure.probability(embedding) if measure else None
    return {
        "style_log_odds": float(measure.score(embedding)) if measure else UNKNOWN,
        "style_probability": float(probabilities[top] if intended is None else intended),
        "style_top": labels[top],
    }


def _reason(row: dict, intention: Intention) -> str:
    """A sentence a person can read: `kept baroque .91 (verdict .88); reads 1690, meant 1600-1725`."""
    guide = f"{row['style_probability']:.2f}"
    if not intention.styles:
        parts = [f"reads as {row['style_top']} {guide}" + (f" (verdict {row['verdict_style']})" if "verdict_style" in row else "")]
    elif row.get("kept") is None:
        parts = [f"{intention.target} {guide} in the guide's eyes" + (", a style that the verdict does not know" if "kept" in row else "")]
    else:
        seen = "" if row["kept"] else f", sees {row['verdict_style']}"
        parts = [f"{'kept' if row['kept'] else 'lost'} {intention.target} {guide} (verdict {row['verdict_style_probability']:.2f}{seen})"]
    meant = f", meant {'-'.join(map(str, dict.fromkeys(intention.period)))}" if intention.period else ""
    return "; ".join([*parts, f"reads {row['year']:.0f}{meant}"])
