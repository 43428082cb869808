"""The heads that ship: tensors in `<name>.safetensors`, and a card `<name>.json` that says how far to trust them."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from probes.errors import UserError
from probes.probe import NOT_VALIDATED

if TYPE_CHECKING:
    from probes.encoders import Encoder

FOLDER = Path(__file__).parents[1] / "embedded" / "heads"


def shipped(name: str, encoder: Encoder) -> Path | None:
    """The path without suffix of the head `name` for `encoder`, or None: only the embedded encoder has heads of its own.

    A card may name the SHA-256 of the weights it was fitted to; a head that was fitted to others is an error, not a fallback.
    """
    stem = FOLDER / name
    if encoder.source != "embedded" or not stem.with_suffix(".json").is_file():
        return None
    fitted = read(stem).get("encoder")
    if fitted and fitted != encoder.fingerprint:
        raise UserError(f"the {name} head in {FOLDER} was fitted to other weights than the embedded encoder's; reinstall the package.")
    return stem


def read(stem: Path) -> dict:
    """The card as a table."""
    path = stem.with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the card {path} cannot be read: {error}.") from None


def reliability(stem: Path | None) -> str:
    """The card's sentence on what the reading was checked against, or that it was not."""
    return (read(stem).get("reliability") if stem else "") or NOT_VALIDATED


def tensors(stem: Path, names: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    """The named tensors in fp32 on `device`."""
    path = stem.with_suffix(".safetensors")
    try:
        found = load_file(path)
        return {name: found[name].to(device, torch.float32) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the head {path} cannot be read: {error}.") from None
    except KeyError as error:
        raise UserError(f"the head {path} lacks the tensor {error}.") from None
