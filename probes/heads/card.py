"""Heads on disk: tensors in `<name>.safetensors`, and a card `<name>.json` that says which head it is and how far to trust it."""
from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from probes.atomic import replacing
from probes.errors import UserError
from probes.probe import NOT_VALIDATED

if TYPE_CHECKING:
    from probes.encoders import Encoder
    from probes.heads.head import Head, YearHead

FOLDER = Path(__file__).parents[1] / "embedded" / "heads"
REMEDY = "reinstall the package, or, after another CLIP of your own, run recipes.heads and recipes.brushwork, then recipes.assemble"


def shipped(name: str, encoder: Encoder) -> Path | None:
    """The path without suffix of the head `name` that ships for `encoder`, or None where none does.

    The embedded encoder's lie in `FOLDER`; a card may name the SHA-256 of the weights it was fitted to, and others are an error, not a
    fallback. Those of published encoders lie in a folder each below it, and their cards say in `encoder_name` which sources are theirs.
    """
    if encoder.source == "embedded":
        stem = FOLDER / name
        if not _file(stem, ".json").is_file():
            return None
        if name in unfit(encoder.fingerprint, names=(name,)):
            raise UserError(f"the {name} head in {FOLDER} was fitted to other weights than the embedded encoder's; {REMEDY}.")
        return stem
    for path in sorted(FOLDER.glob(f"*/{name}.json")):
        if _published(encoder.source) in _encoders(path.with_suffix("")):
            return path.with_suffix("")
    return None


def unfit(fingerprint: str, folder: Path | None = None, names: Iterable[str] | None = None) -> list[str]:
    """Which heads of `folder` (None: FOLDER), all or the named ones, say that they were fitted to weights of another fingerprint."""
    folder = folder or FOLDER
    every = sorted(path.stem for path in folder.glob("*.json")) if names is None else names
    fitted = {name: read(folder / name).get("encoder") for name in every}
    return [name for name, weights in fitted.items() if weights and weights != fingerprint]


def read(stem: Path) -> dict:
    """The card as a table."""
    path = _file(stem, ".json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no head at {stem}: its card {path} is missing; name what `guide probe fit` wrote, without .json or .safetensors."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the card {path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise UserError(f"the card {path} cannot be read: it holds no table of keys and values.")
    return found


def reliability(stem: Path | None, key: str = "reliability") -> str:
    """The card's sentence, of several the one by `key`, on what the reading was checked against, or that it was not."""
    return _reliability(read(stem), stem, key) if stem else NOT_VALIDATED


def save(stem: Path, head: Head | YearHead, table: dict) -> None:
    """Write `<stem>.safetensors` and `<stem>.json`, each whole or not at all: the head's tensors, and its other fields beside `table`.

    `table` is what else the card says (encoder, metrics, data); the head's own fields prevail.
    """
    values = {field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
    held = {name: value.detach().cpu().contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    said = {name: value for name, value in values.items() if name not in held}
    text = json.dumps(table | {"head": head.kind} | said, indent=1, ensure_ascii=False) + "\n"
    with replacing(_file(stem, ".safetensors")) as temporary, replacing(_file(stem, ".json")) as temporary_card:
        save_file(held, temporary)
        temporary_card.write_text(text, encoding="utf-8", newline="\n")


def load(stem: Path, device: str | torch.device = "cpu", *, absent: str = "linear") -> Head | YearHead:
    """The head that the card names by its key `head`, `absent` where it names none, with its tensors on `device`.

    UserError where a file cannot be read, or what it holds is no such head: keys or tensors that lack, have another type, another shape, or
    values that are not finite.
    """
    from probes.heads.catalogue import KINDS
    table, stem = read(stem), Path(stem)
    kind = table.get("head", absent)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"the card {stem}.json names the head {kind!r}; there are {', '.join(KINDS)}.")
    hints = typing.get_type_hints(KINDS[kind])
    fields = {field.name: hints[field.name] for field in dataclasses.fields(KINDS[kind])}
    defaults = {field.name for field in dataclasses.fields(KINDS[kind]) if field.default is not dataclasses.MISSING}
    values = tensors(stem, tuple(name for name, hint in fields.items() if hint is Tensor), device)
    for name, hint in fields.items():
        if hint is Tensor or (name in defaults and name not in table):
            continue
        values[name] = _value(table, name, hint, stem)
    values["reliability"] = _reliability(table, stem)
    try:
        return KINDS[kind](**values)
    except UserError as error:
        raise UserError(f"the head {stem} is damaged: {error}") from None


def tensors(stem: Path, names: tuple[str, ...], device: str | torch.device) -> dict[str, Tensor]:
    """The named tensors on `device`, numbers in fp32 and indices as they are."""
    path = _file(stem, ".safetensors")
    try:
        # Not under inference mode: its tensors could not take part in a gradient later.
        with torch.inference_mode(False):
            found = load_file(path)
            held = {name: found[name].to(device, torch.float32 if found[name].is_floating_point() else None) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the head {path} cannot be read: {error}.") from None
    except KeyError as error:
        raise UserError(f"the head {path} lacks the tensor {error}.") from None
    for name, value in held.items():
        if not value.isfinite().all():
            raise UserError(f"the head {path} is damaged: the tensor {name} has values that are not finite.")
    return held


def _file(stem: str | Path, suffix: str) -> Path:
    """`style-0.3` is a name without a suffix too."""
    return Path(stem).with_name(Path(stem).name + suffix)


def _value(table: dict, name: str, hint: type, stem: Path) -> str | float | tuple[str, ...]:
    value = table.get(name)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint not in (float, str) and isinstance(value, list) and value and all(isinstance(label, str) and label for label in value):
        return tuple(value)
    wanted = {float: "a number", str: "text"}.get(hint, "a list of words")
    found = repr(value)[:40] if name in table else "missing"
    raise UserError(f"the card {stem}.json is damaged: {name} has to be {wanted} and is {found}.")


def _reliability(table: dict, stem: Path, key: str = "reliability") -> str:
    return (_value(table, key, str, stem) if key in table else "") or NOT_VALIDATED


def _encoders(stem: Path) -> set[str]:
    """The sources of the encoders that a card names: a name, or several."""
    named = read(stem).get("encoder_name", [])
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(f"the card {stem}.json is damaged: encoder_name has to be the name of an encoder or a list of names.")
    return {_published(name) for name in named}


def _published(source: str) -> str:
    """OpenAI's weights mean QuickGELU, whether the name of the model says so or not."""
    return source.replace("-quickgelu:openai", ":openai")
