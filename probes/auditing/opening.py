"""Opens the bytes of any file as a picture, or says why not; what had to be done to it is noted."""

import io
import os
from dataclasses import dataclass, field

from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from probes import image, provenance
from probes.errors import UserError

SMALLEST = 32
ORIENTATION = 0x0112
CONVERTED = {
    "CMYK": "CMYK colours were converted without a profile", "YCbCr": "YCbCr colours were converted", "LAB": "Lab colours were converted",
    "HSV": "HSV colours were converted", "1": "black and white", "L": "grey", "LA": "grey", "P": "palette colours",
}  # fmt: skip
FOREIGN = {
    b"%pdf": "it is a PDF, pages and no pixels; export them as PNG", b"<svg": "it is an SVG, lines and no pixels; export it as PNG",
    b"<?xml": "it is XML, perhaps an SVG, which has lines and no pixels; export it as PNG",
}  # fmt: skip


@dataclass
class Opened:
    """`pixels` (1, 3, h, w), 8-bit or floats in [0, 1], or None and `error`, a sentence.

    `notes` on what is unusual; `said` as in probes/provenance.py.
    """

    pixels: Tensor | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)
    said: dict = field(default_factory=dict)


def opened(data: bytes, name: str) -> Opened:
    """The picture in `data`; `name` is only compared with what the file turns out to be. Never raises for what a file holds.

    Animations give their first frame, EXIF turns are carried out, transparency is laid over white, 16-bit greys keep their range. Files
    that are empty, cut off, no image, of unbounded values or too large to be decoded safely give an error.
    """
    found = Opened()
    if not data:
        return Opened(error="the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            # Not through Pillow's warning, which `audit` hushes: filters are of the whole process, and pictures are opened in threads.
            if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            picture.load()  # before its texts are read: Pillow loads for them too, and what it could not decode then passes for decoded
            found.said = provenance.said(picture)
            found.notes = _notes(picture, name)
            found.pixels = image.stored(ImageOps.exif_transpose(picture))
    except UserError as error:
        found.error = str(error).rstrip(".")
    except Image.DecompressionBombError:
        found.error = f"it has more than {Image.MAX_IMAGE_PIXELS // 10**6} megapixels, too many to be read safely"
    except UnidentifiedImageError:
        found.error = next((said for begins, said in FOREIGN.items() if data[:64].lstrip().lower().startswith(begins)),
                           "it is not an image in a format that Pillow reads")
    except MemoryError:
        found.error = "there is not enough memory to decode it"
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError) as error:
        # Pillow's decoders raise nearly anything on files that were made to break them; each is that one file's trouble.
        found.error = f"it cannot be decoded: {getattr(error, 'strerror', None) or error}".rstrip(".")
    if found.said.get("kind") == "contact sheet":
        return Opened(error="a contact sheet, not a picture")
    if found.pixels is not None and min(found.pixels.shape[-2:]) < SMALLEST:
        height, width = found.pixels.shape[-2:]
        found.pixels, found.error = None, f"{width} x {height} pixels are too few to read; {SMALLEST} a side is the least"
    return found


def _notes(picture: Image.Image, name: str) -> list[str]:
    notes = []
    found = "JPEG" if picture.format == "MPO" else picture.format  # a JPEG with more pictures in it
    suffix = os.path.splitext(name)[1].lower()
    if suffix and Image.registered_extensions().get(suffix) != found:
        notes.append(f"a {found} file by another name")
    if (frames := image.frames(picture)) > 1:
        notes.append(f"the first of {frames} frames")
    if picture.mode in CONVERTED:
        notes.append(CONVERTED[picture.mode])
    elif picture.mode.startswith("I"):
        notes.append("16-bit grey")
    if picture.has_transparency_data:
        notes.append("transparency laid over white")
    if picture.getexif().get(ORIENTATION, 1) != 1:
        notes.append("turned as its EXIF says")
    return notes
