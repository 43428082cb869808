"""Photographs as they are repainted: at the size asked for, with the region's mask; those of several that cannot be read are skipped."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from PIL import Image, ImageOps
from torch import Tensor

from guide import pipelines
from guide.transfer.request import SIDE, Request
from guide.transfer.sources import Sources
from probes import image
from probes.errors import UserError

SHAPE = .02  # by which the ratio of a region's sides may differ from the photograph's
Read = TypeVar("Read")


@dataclass(frozen=True, eq=False)
class Opened:
    """A photograph as it is repainted: `pixels` `(1, 3, h, w)` at the size asked for, and the region's `mask` `(1, 1, h, w)`; `size` of
    the file, height and width."""

    path: str
    pixels: Tensor
    sha256: str
    mask: Tensor | None
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)


def photographs(sources: Sources, request: Request, device: str) -> tuple[dict[str, Opened], list[str]]:
    """The inputs by name, and why others were skipped. UserError where none is left, or where the region fits none."""
    region = _region(request.region) if request.region else None

    def read(name: str, path: str) -> Opened:
        photo = _opened(path, request, sources.sha256(name))
        mask = None if region is None else _mask(region, request.region, photo).to(device)
        return replace(photo, pixels=photo.pixels.to(device), mask=mask)
    return readable(sources.inputs, read)


def readable(inputs: dict[str, str], read: Callable[[str, str], Read]) -> tuple[dict[str, Read], list[str]]:
    """What `read` makes of each name and path, and a sentence for each of several that it refuses. UserError where none is left."""
    found, refused = {}, []
    for name, path in inputs.items():
        try:
            found[name] = read(name, path)
        except UserError as error:
            if len(inputs) == 1:
                raise
            refused.append(str(error))
    if not found:
        raise UserError(f"None of the {len(inputs)} pictures can be used; of the first: {refused[0]}")
    return found, [f"Skipped: {sentence}" for sentence in refused]


def _opened(path: str, request: Request, digest: str) -> Opened:
    """The photograph at the size asked for, with notes on what that changed. UserError where it is none, or too small to be read."""
    pixels, notes = image.load(path), _stored(path)
    height, width = pixels.shape[-2:]
    longer = request.size or min(max(height, width), _made_for(request))
    if longer != max(height, width):
        share = longer / max(height, width)
        size = max(round(height * share), 1), max(round(width * share), 1)
        pixels = image.resize(pixels, size).clamp(0, 1)
        how = "enlarged" if share > 1 else "shrunk"
        notes.append(f"{how} from {width} x {height} to {size[1]} x {size[0]} pixels" + ("" if request.size else "; --size keeps more"))
    if min(pixels.shape[-2:]) < 32:
        raise UserError(f"{path} is repainted at {pixels.shape[3]} x {pixels.shape[2]} pixels, too few to be read; 32 a side is the least: "
                        f"--size {-(-32 * max(height, width) // min(height, width))} enlarges it.")
    return Opened(path, pixels, digest, None, tuple(notes), (height, width))


def _made_for(request: Request) -> int:
    """Pixels of the longer side where none are asked for: those a diffusion model was made for."""
    return (pipelines.find(request.model).size or SIDE) if request.engine == "diffusion" else SIDE


def _stored(path: str) -> list[str]:
    """Notes on what the file holds and a picture of it does not."""
    with Image.open(path) as file:
        notes = [f"the first of {frames} frames is painted"] if (frames := image.frames(file)) > 1 else []
        if file.has_transparency_data and file.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            notes.append("transparent places were laid over white, and are painted as such")
    return notes


def _region(path: str) -> Tensor:
    """`(1, 1, h, w)` of the file: white is repainted, black and transparent are left alone, grey is in between."""
    mask = image.load(path).mean(1, keepdim=True)
    with Image.open(path) as file:
        if file.has_transparency_data:  # which `load` lays over white
            alpha = ImageOps.exif_transpose(file).convert("RGBA").getchannel("A")
            mask = (mask - 1 + image.from_pil(alpha)[:, :1]).clamp(0, 1)
    return mask


def _mask(mask: Tensor, path: str, photo: Opened) -> Tensor:
    """The region at the photograph's size, `(1, 1, h, w)`. UserError where nothing is white, or where it has another shape."""
    (height, width), size = mask.shape[-2:], tuple(photo.pixels.shape[-2:])
    if abs(width * photo.size[0] / (height * photo.size[1]) - 1) > SHAPE:
        raise UserError(f"the region in {path} has {width} x {height} pixels, another shape than {photo.path} with {photo.size[1]} x "
                        f"{photo.size[0]}; draw it over the photograph, so that both are as wide and as high.")
    if (height, width) != size:
        mask = image.resize(mask.expand(-1, 3, -1, -1), size, "bilinear")[:, :1].clamp(0, 1)
    if not bool((mask > .5).any()):
        raise UserError(f"the region in {path} is empty: it holds nothing brighter than middle grey; paint white what is to be repainted.")
    return mask
