"""What the artifact probe says of one picture: how damaged, in which way, where in words, and as a map that lies over the picture."""

import io

import numpy as np
from PIL import Image
from torch import Tensor

from probes.artifacts import LARGEST, SMALLEST, ArtifactProbe
from probes.artifacts import fitted as shrunk
from probes.encoders import Encoder
from probes.heads import card

ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")
COLOUR = (226, 61, 40)


def load(encoder: Encoder) -> ArtifactProbe | None:
    """The probe, where a head for it ships with the encoder."""
    return ArtifactProbe(encoder) if card.shipped("artifacts", encoder) else None


def fitted(pixels: Tensor) -> tuple[Tensor | None, list[str]]:
    """The picture (1, 3, h, w) as it is, or shrunk with a note; nothing of one so narrow that too little of it is left."""
    small = shrunk(pixels)
    if min(small.shape[-2:]) < SMALLEST:
        return None, ["too narrow to be read for artifacts"]
    return small, [] if small is pixels else [f"read for artifacts at {LARGEST} pixels"]


def cells(probe: ArtifactProbe, pixels: Tensor) -> tuple[dict, bytes]:
    """`artifacts` in [0, 1], and `artifact_kind` and `artifact_where` if it counts as damaged; the map as a PNG, one pixel a patch."""
    seen = probe.look(pixels)
    severity = seen["map"][0].float().cpu().numpy()
    found = {"artifacts": float(seen["severity"][0])}
    if bool(seen["damaged"][0]):
        kind = seen["kinds"][int(seen["kind_probabilities"][0].argmax())]
        found |= {"artifact_kind": kind, "artifact_where": where(severity)}
    return found, overlay(severity)


def where(severity: np.ndarray) -> str:
    """The third of a map (h, w) that holds most damage: `upper left`, `centre`; `everywhere` where no third holds a quarter of it."""
    total = severity.sum()
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
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()
