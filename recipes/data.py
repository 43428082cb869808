"""A folder of paintings -> one uint8 array on disk that every recipe reads, and batches, crops and sampling weights from it.

Images lie loose in any depth or in tar shards; `recipes/metadata.py` tells what the table beside them may look like.
"""

import io
import json
import math
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from probes.atomic import write_text
from probes.errors import UserError
from probes.image import stored as stored_pixels
from recipes import metadata, provenance

SIDE = 144  # the stored side in pixels; recipes crop 128 or 96 from it
ABSENT = "not in the folder"


def paintings(folder: Path, cache: Path, side: int = SIDE) -> tuple[np.ndarray, pd.DataFrame]:
    """Images `(n, side, side, 3)` uint8, memory-mapped, and their table (`metadata.read`), row by row. Built once into `cache`.

    Files that are missing or cannot be read are named, counted and left out of both; UserError where none is left.
    """
    table = metadata.read(folder)
    store = cache / ("paintings.npy" if side == SIDE else f"paintings-{side}.npy")
    account = store.with_suffix(".json")
    if not store.exists():
        _build(folder, table, store, account, side)
    try:
        images = np.load(store, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{store} is damaged or no file of this recipe ({str(error).split('.')[0]}): delete it and start again.") from error
    if account.exists():
        told = json.loads(account.read_text())
        left_out = told["left out"]
        if told["files"] != len(table) or not set(left_out) <= set(table["file_name"]):
            raise UserError(f"{store} was built from another table ({told['files']} rows, now {len(table)}): delete it and start again.")
        table = table[~table["file_name"].isin(left_out.keys())].reset_index(drop=True)
    if len(images) != len(table):
        raise UserError(f"{store} was built from another table ({len(images)} images, now {len(table)}): delete it and start again.")
    provenance.record(table, folder, cache)
    return images, table


def stored(side: int) -> int:
    """The side at which images are kept for crops of `side` pixels; UserError unless the autoencoder can halve it three times."""
    if side % 8:
        raise UserError(f"--side {side} is not a multiple of 8: choose 128 or 192.")
    return side * 9 // 8


def _build(folder: Path, table: pd.DataFrame, store: Path, account: Path, side: int):
    """Decode every image of the table into `store`; what could not be read, and why, goes into `account`."""
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Nothing can be written into {store.parent} ({error.strerror}): choose another folder with --work.") from None
    place = {name: row for row, name in enumerate(table["file_name"])}
    bad, found, half = {}, np.zeros(len(place), bool), store.with_suffix(".partial")
    decoded = _reserved(half, (len(place), side, side, 3))

    def decode(item: tuple[str, bytes]) -> tuple[str, np.ndarray | str]:
        try:
            with Image.open(io.BytesIO(item[1])) as image:
                return item[0], _square(image, side)
        except UserError as error:
            return item[0], str(error).removesuffix(".")
        except UnidentifiedImageError:
            return item[0], "no image of a kind that Pillow reads"
        except Exception as error:  # a broken file breaks in as many ways as there are formats
            return item[0], f"{type(error).__name__}: {str(error).removesuffix('.')}"

    others = []

    def read() -> Iterator[tuple[str, bytes]]:
        for names, load in _files(folder):
            name = next((name for name in names if name in place), None)
            if name is not None:
                yield name, load()
            elif Path(names[0]).suffix.lower() in metadata.IMAGES:
                others.append(names[0])

    with ThreadPoolExecutor() as pool:
        named = read()
        results = (result for some in iter(lambda: list(islice(named, 32)), []) for result in pool.map(decode, some))
        for name, pixels in track(results, description="decoding paintings", total=len(place)):
            if isinstance(pixels, str):
                bad[name] = pixels
            else:
                decoded[place[name]], found[place[name]] = pixels, True
    bad |= {name: ABSENT for name, row in place.items() if not found[row] and name not in bad}
    if not found.any():
        first, reason = next(iter(bad.items()))
        half.unlink()
        raise UserError(
            f"None of the {len(place)} images of {folder} could be read; the first, {first}: {reason}. Paths in file_name are relative to "
            "the table; other formats have to be converted first."
        )
    if bad:
        _tell(bad, len(place))
        every, half = decoded, half.with_suffix(".kept")
        decoded = _reserved(half, (int(found.sum()), side, side, 3))
        for row, source in enumerate(np.flatnonzero(found)):
            decoded[row] = every[source]
        store.with_suffix(".partial").unlink()
    decoded.flush()
    if others:
        typer.echo(f"Images of {folder} that are in no row of its metadata, left out: {len(others)}, the first is {others[0]}.")
    for sentence in metadata.unknown(table[found]):
        typer.echo(sentence)
    both = metadata.shared_artists(table[found])
    if both:
        typer.echo(f"{len(both)} artists are in more than one split, the first is {both[0]}: figures on them are not on unseen artists.")
    write_text(account, json.dumps({"side": side, "files": len(place), "left out": bad}, indent=1))
    half.rename(store)


def _reserved(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """An array on disk whose room is taken at once: a map into a full disk would end the process without a word."""
    try:
        array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{path.parent} has no room for {math.prod(shape) / 1e6:,.0f} MB of decoded images ({error.strerror}): free some, or choose "
            "another folder with --work."
        ) from None
    return array


def _tell(bad: dict[str, str], total: int):
    absent, broken = ([name for name, why in bad.items() if (why == ABSENT) == wanted] for wanted in (True, False))
    if absent:
        typer.echo(f"{len(absent)} of {total} images that the metadata names are not there and are left out, the first is {absent[0]}.")
    if broken:
        typer.echo(f"{len(broken)} of {total} images cannot be read and are left out:")
        for name in broken[:20]:
            typer.echo(f"  {name}: {bad[name]}")
        if len(broken) > 20:
            typer.echo(f"  and {len(broken) - 20} more, named in the .json beside the cache")


def _files(folder: Path) -> Iterator[tuple[tuple[str, ...], Callable[[], bytes]]]:
    """Every image: the names under which the table may know it, and a function that returns its bytes.

    What is in a shard may be known by its path there or by its bare name, both as if it lay where the shard lies.
    """
    for path in metadata.walk(folder):
        inside = path.parent.relative_to(folder)
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile():
                        names = tuple((inside / name).as_posix() for name in (member.name, Path(member.name).name))
                        yield names, partial(_member, tar, member)
        elif path.suffix.lower() in metadata.IMAGES:
            yield ((inside / path.name).as_posix(),), path.read_bytes


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return tar.extractfile(member).read()


def _square(image: Image.Image, side: int) -> np.ndarray:
    """The middle square at `side` pixels, upright."""
    image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
    upright = ImageOps.exif_transpose(image)
    upright.format = image.format  # a turned copy does not know it
    image = _plain(upright)
    if image.size != (side, side):
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + edge, top + edge))
    return np.asarray(image)


def _plain(image: Image.Image) -> Image.Image:
    """The image in RGB, by the rules of `probes.image`: 16-bit greys keep their range, transparency lies over white."""
    if image.mode in ("RGB", "L", "CMYK", "YCbCr") and not image.has_transparency_data:
        return image.convert("RGB")
    pixels = stored_pixels(image)[0].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8))


def near(images: np.ndarray, device: torch.device) -> np.ndarray | torch.Tensor:
    """The images on a GPU where they take at most a third of its free memory, else as they are: copying batches would starve it."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 3:
        return images
    return torch.cat([torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in np.array_split(images, -(-len(images) // 4096))])


def draw(weights: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices `(count,)` by weight, none twice unless there are fewer than asked for."""
    return torch.multinomial(weights, count, replacement=count > len(weights), generator=generator)


def batch(images: np.ndarray | torch.Tensor, rows: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """The rows as `(n, 3, side, side)` float in [0, 1]."""
    if isinstance(images, torch.Tensor):
        chosen = images[torch.as_tensor(rows, device=images.device)]
    else:
        chosen = torch.from_numpy(np.ascontiguousarray(images[rows]))
    return chosen.to(device).permute(0, 3, 1, 2).float().div_(255)


def random_crop(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random square of `side` pixels per image, mirrored half of the time: `(n, 3, side, side)`."""
    n, channels, height, width = images.shape
    tops = torch.randint(height - side + 1, (n, 1), generator=generator)
    lefts = torch.randint(width - side + 1, (n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    across = torch.arange(side)
    rows, columns = tops + across, lefts + torch.where(mirrored, across.flip(0), across)
    rows, columns = rows.to(images.device)[:, None, :, None], columns.to(images.device)[:, None, None, :]
    pick = torch.arange(n, device=images.device)[:, None, None, None], torch.arange(channels, device=images.device)[None, :, None, None]
    return images[*pick, rows, columns]


def centre_crop(images: torch.Tensor, side: int) -> torch.Tensor:
    """The middle square of `side` pixels."""
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]


def codes(column: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Places `(n,)` in `names`, -1 for what is not among them."""
    return column.map({name: place for place, name in enumerate(names)}).fillna(-1).to_numpy(np.int64)


def balance(table: pd.DataFrame, style: float, artist: float = 0.0) -> np.ndarray:
    """Sampling weights `(n,)`: each row's style count to the power `-style`, times its artist's count to the power `-artist`.

    Few artists stand for a whole style: drawing them more evenly teaches the style rather than its most collected painter. A row
    without an artist counts as one of the median artist's.
    """
    by_style = table["style"].map(table["style"].value_counts()).to_numpy(np.float64)
    named = table["artist"].replace("", np.nan)
    counts = named.map(named.value_counts())
    by_artist = counts.fillna(counts.median() if counts.notna().any() else 1).to_numpy(np.float64)
    return by_style**-style * by_artist**-artist
