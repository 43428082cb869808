"""What the artifact probe says of one picture: how damaged, in which way, where in words, and as a map that lies over the picture."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from probes import image
from probes.artifacts import SMALLEST, ArtifactProbe
from probes.encoders import Encoder
from probes.heads import card, patch

ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")
ACROSS = ("across the top", "across the middle", "across the bottom")
DOWN = ("down the left side", "down the middle", "down the right side")
COLOUR = (226, 61, 40)
TOGETHER = 4  # pictures that a CPU reads in a pass: one alone takes a quarter longer
HIGH, FILLED = 0.2, 0.5  # of a map's maximum, from where a patch counts as damaged; of a part's patches, from where the part does


def head(encoder: Encoder) -> Path | None:
    """Where the head for damage is, without suffix: the encoder's own, else the one that ships, for it reads pixels and no encoder."""
    own = card.shipped("artifacts", encoder) or card.FOLDER / "artifacts"
    return own if own.with_suffix(".json").is_file() else None


def load(encoder: Encoder) -> ArtifactProbe | None:
    """The probe, where a head for it is there."""
    stem = head(encoder)
    return ArtifactProbe(encoder, patch.load(stem, encoder.device)) if stem else None


def fitted(small: Tensor, shape: Sequence[int]) -> tuple[Tensor | None, list[str]]:
    """A picture (1, 3, h, w) of at most 256 pixels a side, and a note if it was shrunk from `shape`; nothing of one that is too narrow."""
    if min(small.shape[-2:]) < SMALLEST:
        return None, ["too narrow to be read for artifacts"]
    return small, [] if small.shape == shape else [f"read for artifacts at {max(small.shape[-2:])} pixels"]


def read(probe: ArtifactProbe, pictures: Sequence[Tensor | None]) -> list[tuple[dict, bytes]]:
    """Of each picture (1, 3, h, w), 8-bit or in [0, 1], `artifacts` in [0, 1], kind and place if it counts as damaged, and its map, a PNG.

    Those of one shape share a pass: all of them on a GPU, a few on a CPU, whose cache holds no more.
    """
    alike: dict[tuple, list[int]] = {}
    for k, picture in enumerate(pictures):
        if picture is not None:
            alike.setdefault((picture.shape, picture.dtype), []).append(k)
    found: list[tuple[dict, bytes]] = [({}, b"")] * len(pictures)
    size = len(pictures) if probe.encoder.device.type != "cpu" else TOGETHER
    for places in (some[start : start + size] for some in alike.values() for start in range(0, len(some), size)):
        seen = probe.look(image.unit(torch.cat([pictures[k] for k in places]).to(probe.encoder.device)))
        maps, scores, kinds = seen["map"].float().cpu().numpy(), seen["severity"].tolist(), seen["kind_probabilities"].argmax(1).tolist()
        for k, severity, score, kind, damaged in zip(places, maps, scores, kinds, seen["damaged"].tolist(), strict=True):
            told = {"artifact_kind": seen["kinds"][kind], "artifact_where": where(severity)} if damaged else {}
            found[k] = {"artifacts": score} | told, overlay(severity)
    return found


def where(severity: np.ndarray) -> str:
    """Where a map (h, w) is high, at least a fifth of its maximum: `everywhere` (half of it, or seven ninths), `across the middle`, `down
    the left side`, else the ninth that holds most damage above the map's median: `upper left`, `lower`, `centre`.

    Of 12 test paintings damaged by blur and noise as a whole, in a third of their height or width and in a ninth (215 alarms) 198 are
    placed right, as a ninth of six photographs is in 63 of 96, which are soft throughout.
    """
    high = severity >= HIGH * severity.max()
    filled = _ninths(high) >= FILLED
    if high.mean() >= FILLED or filled.sum() >= 7:
        return "everywhere"
    rows, columns = np.flatnonzero(filled.all(1)), np.flatnonzero(filled.all(0))
    if len(rows) + len(columns) == 1 and filled.sum() <= 5:
        return ACROSS[rows[0]] if len(rows) else DOWN[columns[0]]
    above = (severity - np.median(severity)).clip(0)
    shares = _ninths(above)
    shares = shares / max(shares.sum(), 1e-12)
    row, column = np.unravel_index(shares.argmax(), shares.shape)
    if shares[row, column] < 0.25:
        return "everywhere"
    return " ".join(filter(None, (ROWS[row], COLUMNS[column]))) or "centre"


def _ninths(values: np.ndarray) -> np.ndarray:
    """Means over the thirds of the rows and of the columns: (3, 3)."""
    return np.array([[part.mean() for part in np.array_split(row, 3, 1)] for row in np.array_split(values, 3, 0)])


def overlay(severity: np.ndarray) -> bytes:
    """A PNG (h, w) of one colour, the more opaque the more damaged."""
    pixels = np.empty((*severity.shape, 4), np.uint8)
    pixels[..., :3] = COLOUR
    pixels[..., 3] = np.rint(severity.clip(0, 1) * 255)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG", compress_level=1)
    return held.getvalue()
