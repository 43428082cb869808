"""What all probes of an encoder say about pictures, and how far each can be trusted: one pass for all of them."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes import domain, image
from probes.artifacts import ArtifactProbe
from probes.artifacts import fitted as shrunk
from probes.embeddings import embed
from probes.errors import UserError
from probes.heads import card
from probes.heads.head import Head, YearHead, width
from probes.objective import PROBES
from probes.paths import printable
from probes.period import dated
from probes.probe import NOT_VALIDATED, Probe, seen_by

if TYPE_CHECKING:
    from probes.encoders import Encoder

CHUNK = 64


@dataclass(frozen=True)
class Available:
    """A probe as `guide probe list` shows it; `labels` is 0 where it reads none, `missing` says why it cannot be read here."""

    name: str
    head: str
    labels: int
    reliability: str
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head from a file, as `guide probe fit` writes it: it reads the column `name` that it was fitted to."""

    name: str
    head: Head | YearHead
    encoder: Encoder

    def read(self, embeddings: Tensor) -> dict[str, Tensor | list]:
        """`<name>_probabilities` `(n, k)` over `labels`, or `year` and its span, see `period.dated`."""
        embeddings = seen_by(self.head, self.encoder, embeddings)
        if hasattr(self.head, "expected"):
            return dated(self.head, embeddings)
        return {f"{self.name}_probabilities": self.head.probabilities(embeddings), "labels": list(self.head.labels)}


def fitted(stem: Path | str, encoder: Encoder) -> Fitted:
    """The head `<stem>.safetensors` with its card, for this encoder; UserError where it was fitted to the embeddings of another."""
    stem = bare(stem)
    table = card.read(stem)
    if table.get("encoder") and table["encoder"] != encoder.fingerprint:
        named = table.get("encoder_name") or "another encoder"
        raise UserError(f"the head {stem} was fitted to embeddings of {named} and not of {encoder.name}; choose that with --encoder.")
    head = card.load(stem, encoder.device)
    if width(head) not in (encoder.dim, encoder.described):
        layered = f", {encoder.described} with its layers" if encoder.described > encoder.dim else ""
        raise UserError(f"the head {stem} reads {width(head)} values, and the encoder {encoder.name} gives {encoder.dim}{layered}; take a "
                        "head fitted to this encoder.")
    return Fitted(str(table.get("label") or stem.name), head, encoder)


def bare(stem: Path | str) -> Path:
    """A head's path without the suffix of its card or tensors."""
    return Path(str(stem).removesuffix(".json").removesuffix(".safetensors"))


def available(encoder: Encoder, stems: Sequence[Path | str] = ()) -> dict[str, Probe | Fitted]:
    """Every probe by name; a head from a file stands in for the probe of the label that it reads."""
    found: dict[str, Probe | Fitted] = {name: probe(encoder) for name, probe in PROBES.items()}
    if card.shipped(ArtifactProbe.name, encoder):
        found[ArtifactProbe.name] = ArtifactProbe(encoder)
    for stem in stems:
        one = fitted(stem, encoder)
        found[one.name] = one
    return found


def listed(encoder: Encoder, stems: Sequence[Path | str] = ()) -> list[Available]:
    """Every probe with its head, for this encoder."""
    rows = []
    for name, probe in available(encoder, stems).items():
        head, missing = _head(probe)
        rows.append(Available(name, _kind(head), len(getattr(head, "labels", ())), NOT_VALIDATED if missing else _trust(probe), missing))
    return rows


def readings(files: Sequence[Path | str], encoder: Encoder, stems: Sequence[Path | str] = (), cache: Path | None = None) -> Iterator[dict]:
    """One row per picture, in order: `image`, and `probes` by name, or the `error` for which it could not be read.

    `domain_percentile`: the percentage of real paintings, unknown to the encoder, that lie nearer to what its heads learned from.
    A probe's row has its numbers under their names, probabilities by label, and its `reliability`.
    """
    known = {name: probe for name, probe in available(encoder, stems).items() if not _head(probe)[1]}
    trust, near = {name: _trust(probe) for name, probe in known.items()}, domain.shipped(encoder)
    for start in range(0, len(files), CHUNK):
        part = files[start:start + CHUNK]
        seen = embed(part, encoder, cache=cache, layers=True)
        place, said, far = {int(row): k for k, row in enumerate(seen.rows)}, {}, None
        if place:
            with torch.no_grad():
                features = torch.from_numpy(seen.features).to(encoder.device)
                said = {name: values for name, probe in known.items() if (values := probe.read(features))}
                far = near.percentile(features) if near else None
        for row, file in enumerate(part):
            one = {"image": printable(Path(file))}
            if row not in place:
                yield one | {"error": seen.errors[row]}
                continue
            found = {name: _plain(values, place[row]) for name, values in said.items()} | _looked(known, file, encoder)
            one |= {"domain_percentile": float(far[place[row]])} if far is not None else {}
            yield one | {"probes": {name: values | {"reliability": trust[name]} for name, values in found.items()}}


def words(probe: dict, top: int = 3) -> str:
    """A probe's row in a line: `baroque 0.61, rococo 0.22`, `1712 (1650-1780)`, `figures 0.91`.

    A span ends where the head's years do: `1873 (1790-1940 or later)`.
    """
    parts = []
    for name, value in probe.items():
        if isinstance(value, dict) and name != "year_probabilities":
            parts += [f"{label} {share:.2f}" for label, share in sorted(value.items(), key=lambda item: -item[1])[:top]]
        elif name == "year":
            parts.append(f"{value:.0f} ({_span(probe)})")
        elif isinstance(value, float) and name != "damaged" and not name.startswith("year_"):
            doubt = probe.get("reliability", "") if name == "made_by_model" else ""  # which accuses somebody: never without its doubt
            parts.append(f"{name.replace('_', ' ')} {value:.2f}" + (f" ({doubt})" if doubt.startswith(NOT_VALIDATED) else ""))
    return ", ".join(parts)


def _span(probe: dict) -> str:
    low, high = probe["year_low"], probe["year_high"]
    first, last = probe.get("year_first", low), probe.get("year_last", high)
    return f"{max(low, first):.0f}{' or earlier' if low < first else ''}-{min(high, last):.0f}{' or later' if high > last else ''}"


def _plain(values: dict[str, Tensor | list], k: int) -> dict:
    """Row k: tables of probabilities by their labels, numbers as they are."""
    found: dict = {}
    for name, value in values.items():
        if isinstance(value, Tensor) and value.dim() == 2:
            own = values.get(f"{name.removesuffix('_probabilities')}_labels", values.get("labels"))
            labels = own or next(other for other in values.values() if isinstance(other, list) and len(other) == value.shape[1])
            said = [label if isinstance(label, str) else f"{label:.1f}" for label in labels]
            found[name] = dict(zip(said, value[k].tolist(), strict=True))
        elif isinstance(value, Tensor) and value.dim() == 1:
            found[name] = float(value[k])
    return found


def _head(probe: Probe | Fitted) -> tuple[Head | YearHead | None, str]:
    """The probe's head, None for one without; or why there is none for this encoder."""
    try:
        return getattr(probe, "head", None), ""
    except UserError as error:
        return None, str(error)


def _looked(probes: dict[str, Probe | Fitted], file: Path | str, encoder: Encoder) -> dict[str, dict]:
    """What probes say that read a picture in its own pixels, not its embedding; nothing of one too small for them."""
    found = {}
    for name, probe in probes.items():
        if hasattr(probe, "look"):
            with torch.no_grad(), suppress(UserError):
                seen = probe.look(shrunk(image.load(file)).to(encoder.device))
                found[name] = _plain({key: seen[key] for key in seen if seen["damaged"][0] or not key.startswith("kind")}, 0)
    return found


def _kind(head: Head | YearHead | None) -> str:
    if head is None:
        return "words"
    return "zero-shot" if getattr(head, "prototypes", "") == "text" and head.kind == "linear" else head.kind


def _trust(probe: Probe | Fitted) -> str:
    several = getattr(probe, "reliabilities", None)
    if several:
        return "; ".join(f"{name}: {said}" for name, said in several.items())
    head = _head(probe)[0]
    return head.reliability if head else card.reliability(card.shipped(probe.name, probe.encoder))
