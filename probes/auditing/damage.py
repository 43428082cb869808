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
COLOUR = (226, 61, 40)
TOGETHER = 4  # pictures that a CPU reads in a pass: one alone takes a quarter longer
PLACED = 0.1  # of all damage, what a place has to add


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
    """The third of a map (h, w) that holds most damage above its median: `upper left`, `centre`.

    `everywhere` where no third holds a quarter of that, or it is less than a tenth of all: a soft photograph is soft throughout, and what
    a place adds to it is what is looked for (of 44 alarms at defects planted in photographs 23 are placed right, 18 without the median).
    """
    whole = severity.sum()
    severity = (severity - np.median(severity)).clip(0)
    total = severity.sum()
    if total < PLACED * whole:
        return "everywhere"
    rows, columns = np.array_split(np.arange(severity.shape[0]), 3), np.array_split(np.arange(severity.shape[1]), 3)
    shares = np.array([[severity[np.ix_(row, column)].sum() for column in columns] for row in rows]) / max(total, 1e-12)
    row, column = np.unravel_index(shares.argmax(), shares.shape)
    if shares[row, column] < 0.25:
        return "everywhere"
    return " ".join(filter(None, (ROWS[row], COLUMNS[column]))) or "centre"


def overlay(severity: np.ndarray) -> bytes:
    """A PNG (h, w) of one colour, the more opaque the more damaged."""
    pixels = np.empty((*severity.shape, 4), np.uint8)
    pixels[..., :3] = COLOUR
    pixels[..., 3] = np.rint(severity.clip(0, 1) * 255)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG", compress_level=1)
    return held.getvalue()
