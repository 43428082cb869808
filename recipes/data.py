"""A folder of paintings with `metadata.csv` -> one uint8 array on disk that every recipe reads.

The folder holds images, loose or in tar shards, and a table with the columns `file_name`, `split` (guide, judge, test; artists
disjoint) and, where known, `style`, `genre`, `year`, `artist`, `title`.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track

SIDE = 144  # the stored side in pixels; recipes crop 128 or 96 from it
MIN_IMAGES = 200  # a style with fewer is kept out of heads and claims: a handful of artists teaches the artists


def paintings(folder: Path, cache: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Images `(n, 144, 144, 3)` uint8, memory-mapped, and their table, row by row. Built once into `cache`."""
    table = pd.read_csv(folder / "metadata.csv", dtype={"title": str}).fillna({"title": "", "style": "", "genre": "", "artist": ""})
    store = cache / "paintings.npy"
    if not store.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = store.with_suffix(".partial")
        rows = {name: row for row, name in enumerate(table["file_name"])}
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(table), SIDE, SIDE, 3))
        found = np.zeros(len(table), bool)
        for name, data in track(_files(folder), description="decoding paintings"):
            if name in rows:
                with Image.open(io.BytesIO(data)) as image:
                    images[rows[name]] = _square(image)
                found[rows[name]] = True
        if not found.all():
            raise FileNotFoundError(
                f"{(~found).sum()} of {len(found)} files named in metadata.csv are not in {folder}, "
                f"the first: {table['file_name'][int((~found).argmax())]}"
            )
        images.flush()
        partial.rename(store)
    images = np.load(store, mmap_mode="r")
    if len(images) != len(table):
        raise ValueError(f"{store} was built from another table ({len(images)} images, now {len(table)}): delete it and start again")
    return images, table


def styles(table: pd.DataFrame) -> list[str]:
    """The styles with enough images to be learned, most frequent first."""
    counts = table.loc[table["style"] != "", "style"].value_counts()
    return [style for style, count in counts.items() if count >= MIN_IMAGES]


def batch(images: np.ndarray, rows: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """The rows as `(n, 3, 144, 144)` float in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images[rows])).to(device).permute(0, 3, 1, 2).float().div_(255)


def random_crop(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random square of `side` pixels per image, mirrored half of the time: `(n, 3, side, side)`."""
    n, _, height, width = images.shape
    tops = torch.randint(height - side + 1, (n,), generator=generator)
    lefts = torch.randint(width - side + 1, (n,), generator=generator)
    crops = torch.stack([image[:, top : top + side, left : left + side] for image, top, left in zip(images, tops, lefts, strict=True)])
    mirrored = torch.rand(n, generator=generator) < 0.5
    return torch.where(mirrored.to(crops.device)[:, None, None, None], crops.flip(-1), crops)


def centre_crop(images: torch.Tensor, side: int) -> torch.Tensor:
    """The middle square of `side` pixels."""
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]


def _files(folder: Path):
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile():
                    yield Path(member.name).name, tar.extractfile(member).read()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}:
            yield path.name, path.read_bytes()


def _square(image: Image.Image) -> np.ndarray:
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    return np.asarray(image)
