"""Images as the whole project holds them: RGB float in [0, 1], `(n, 3, h, w)`."""
import glob
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from probes.errors import UserError
from probes.paths import typed

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
OTHERS = {  # of files that lie beside pictures, which are not opened to see whether they are some
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".md", ".html", ".xml", ".toml", ".yaml", ".yml", ".npz", ".npy", ".tar", ".zip",
    ".gz", ".py", ".log", ".pdf", ".safetensors", ".pt", ".bin",
}  # fmt: skip
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
TOLERANCE = 1e-2  # bfloat16 near 1 is no finer


def load(path: Path | str) -> Tensor:
    """The file as `(1, 3, h, w)`, turned as its EXIF says, transparency over white. UserError if it is missing or no whole image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return from_pil(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UserError(f"there is no image {path}.") from None
    except UserError as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS // 10 ** 6
        raise UserError(f"{path} has too many pixels to be read safely; make it smaller than {limit} megapixels.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image in a format that Pillow reads.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an image: {getattr(error, 'strerror', None) or error}.") from None


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow image of any mode as `(1, 3, h, w)`: 16-bit greys keep their range, transparency is laid over white.

    UserError for 32-bit greys and floats: nothing in such a file says which value is white.
    """
    return unit(stored(image))


def unit(pixels: Tensor) -> Tensor:
    """8-bit values as floats in [0, 1]; floats as they are."""
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def stored(image: Image.Image) -> Tensor:
    """As `from_pil`, but as the file holds it: uint8 in [0, 255], and only 16-bit greys as floats in [0, 1]."""
    if image.mode in ("I", "F"):
        grey = np.asarray(image)
        # Pillow opens a 16-bit grey PNG as 32-bit integers in some versions; whatever fits 16 bits is taken as such.
        if image.mode == "F" or image.format != "PNG" or grey.min() < 0 or grey.max() > 65535:
            kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
            raise UserError(f"its pixels are {kind}, of which nothing says what is white; save it with 8 or 16 bits a channel.")
        return torch.from_numpy(grey.astype(np.float32) / 65535)[None, None].expand(1, 3, -1, -1).contiguous()
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return torch.from_numpy(grey)[None, None].expand(1, 3, -1, -1).contiguous()
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]


def frames(image: Image.Image) -> int:
    """How many pictures an animation has, of which the first is read; 1 where there is one, or a JPEG with a preview in it."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def to_pil(image: Tensor) -> Image.Image:
    """One image, `(3, h, w)` or `(1, 3, h, w)`, as 8-bit Pillow RGB."""
    images = check(image if image.ndim == 4 else image[None])
    if len(images) != 1:
        raise UserError(f"one image at a time can become a picture, not a batch of {len(images)}.")
    pixels = images[0].detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().contiguous().numpy())


def check(images: Tensor, finite: bool = True) -> Tensor:
    """`images` unchanged if they are RGB floats `(n, 3, h, w)` in [0, 1] without NaN or infinity; else a UserError says what they are."""
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a tensor of shape (n, 3, h, w), not {type(images).__name__}.")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise UserError(f"images must have the shape (n, 3, h, w) with nothing empty, not {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise UserError(f"images must be floats in [0, 1], not {str(images.dtype).removeprefix('torch.')}; divide 8-bit values by 255.")
    values = images.detach()
    if not images.requires_grad and values.device.type == "cpu":  # one look at what is nearly always right; NaN compares as neither
        low, high = values.aminmax()
        if low >= -TOLERANCE and high <= 1 + TOLERANCE:
            return images
    if finite and not values.isfinite().all():
        raise UserError("images must be finite, but some hold NaN or infinity.")
    low, high = (float(value) for value in torch.nan_to_num(values, .5, .5, .5).aminmax())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise UserError(f"images must lie in [0, 1], not in [{low:.3g}, {high:.3g}]; shift and scale them first.")
    return images


def resize(images: Tensor, size: int | tuple[int, int], mode: str = "bicubic") -> Tensor:
    """`(n, 3, h, w)` to `size` (height, width, or one number for both), antialiased as Pillow does it; `mode` is bilinear or bicubic.

    Bicubic overshoot is cut at 0 and 1 in the value but not in the gradient, so that a white patch can still be pushed. 8-bit images
    stay such: they are rounded, as Pillow rounds them, and take a seventh of the time.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    if size == tuple(images.shape[-2:]):
        return images
    out = F.interpolate(images, size=size, mode=mode, antialias=True, align_corners=False)
    return clamp(out) if mode == "bicubic" and out.is_floating_point() else out


def clamp(images: Tensor) -> Tensor:
    """Values cut to [0, 1], the gradient passed straight through."""
    return images + (images.detach().clamp(0, 1) - images.detach())


def wide(values: Tensor) -> Tensor:
    """Floats of half precision in fp32; fp32 and fp64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def find(source: Path | str) -> list[Path]:
    """The images a folder (with its subfolders), a glob pattern or a file name means, in natural order; UserError if there are none."""
    return [Path(file) for file in files(source)]


def files(source: Path | str, also: tuple[str, ...] = ()) -> list[str]:
    """As `find`, as texts; files of the suffixes `also` count as images, whatever they are."""
    path = typed(source)
    if path.is_file():
        return [str(path)]
    walked = (os.path.join(folder, name) for folder, names in _walk(path) for name in names if not name.startswith("."))
    globbed = (file for file in glob.iglob(str(path), recursive=True) if not os.path.isdir(file))
    # A broken link or a pipe by a picture's name is kept: whoever opens it says why it is none.
    found = [file for file in (walked if path.is_dir() else globbed) if os.path.splitext(file)[1].lower() in also or _pictured(file)]
    if not found and path.is_dir():
        raise UserError(f"the folder {source} holds no images ({', '.join(suffix[1:] for suffix in SUFFIXES)}).")
    if not found:
        raise UserError(f"there is no folder or image {source}, and as a pattern it matches no image.")
    return sorted(found, key=_natural)


def _walk(path: Path):
    """Folders below a path and the names of their files; hidden folders (`.thumbnails`, `.git`) are not entered."""
    for folder, deeper, names in os.walk(path):
        deeper[:] = [name for name in deeper if not name.startswith(".")]
        yield folder, names


def _pictured(file: str) -> bool:
    """Whether a file has a picture's suffix or, where its suffix says nothing, begins as one."""
    suffix = os.path.splitext(file)[1].lower()
    if suffix in SUFFIXES or suffix in OTHERS:
        return suffix in SUFFIXES
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return False
        with open(file, "rb") as opened:
            head = opened.read(16)
    except OSError:
        return False
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] in (b"ftypavif", b"ftypheic")


def _natural(path: str) -> str:
    """`2.png` before `10.png`: each number with its length in front, as one text, which for a million files is less than parts."""
    return re.sub(r"\d+", lambda found: f"\0{len(found[0].lstrip('0')):04d}{found[0].lstrip('0')}\0", path.lower())
