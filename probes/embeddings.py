"""Embeddings of picture files, each computed once: a cache on disk by what a file holds and by the weights that read it."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from probes import image
from probes.atomic import replacing
from probes.errors import UserError
from probes.paths import digest, printable

if TYPE_CHECKING:
    from probes.encoders import Encoder

EDITION = 1  # another one where the same file and weights give other embeddings
SHARD = 256  # embeddings computed between two writes: what an interruption may cost


@dataclass(frozen=True, eq=False)
class Embedded:
    """`features` `(m, d)` in fp32 of the `rows` `(m,)` of the files that could be read, and `errors` by row of those that could not."""

    features: np.ndarray
    rows: np.ndarray
    errors: dict[int, str]
    computed: int

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each file that could not be read."""
        return tuple(f"not read: {reason}" for _, reason in sorted(self.errors.items()))


def default_cache() -> Path:
    """`$GUIDE_CACHE`, else the user's cache folder."""
    given = os.environ.get("GUIDE_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clip-guided-generation"


def embed(files: Sequence[Path | str], encoder: Encoder, *, cache: Path | None = None, batch: int = 32, layers: bool = False,
          on_progress: Callable[[int, int], None] = lambda done, total: None) -> Embedded:
    """Embeddings of `files`, from the shards under `cache` where they are there, else computed and added; no cache for None.

    With `layers` what `encoder.describe` makes of them. A file that is copied, renamed or touched keeps its embedding, one that changes
    gets another. What cannot be read is told in `errors` and stops nothing; an interruption keeps what it has.
    """
    layers = layers and encoder.described > encoder.dim
    look, store = encoder.describe if layers else encoder, Store(cache, encoder, layers) if cache else None
    known = store.load() if store else {}
    keys, errors, fresh, found = [""] * len(files), {}, {}, {}
    waiting: list[tuple[str, Tensor]] = []
    computed = 0

    def compute() -> None:
        nonlocal computed
        with torch.inference_mode():
            rows = look(torch.cat([pixels for _, pixels in waiting])).cpu().numpy()
        for (key, _), row in zip(waiting, rows, strict=True):
            found[key] = row
            if np.isfinite(row).all():
                fresh[key] = row
        computed += len(waiting)
        waiting.clear()
        if store and len(fresh) >= SHARD:
            store.add(fresh)
            fresh.clear()

    try:
        for row, key, pixels in _opened(files, encoder, known, batch):
            if isinstance(pixels, str):
                errors[row] = pixels
            else:
                keys[row] = key
                if key in known:
                    found.setdefault(key, known[key])
                elif key not in found and key not in {other for other, _ in waiting}:
                    waiting.append((key, pixels))
            if len(waiting) >= batch:
                compute()
            on_progress(row + 1, len(files))
        if waiting:
            compute()
    finally:
        if store and fresh:
            store.add(fresh)
    for row, key in enumerate(keys):
        if key and not np.isfinite(found[key]).all():
            errors[row] = f"{printable(Path(files[row]))}: the encoder's embedding of it is not finite"
    rows = np.array([row for row, key in enumerate(keys) if key and row not in errors], int)
    width = encoder.described if layers else encoder.dim
    features = np.stack([found[keys[row]] for row in rows]) if len(rows) else np.zeros((0, width), np.float32)
    return Embedded(features, rows, errors, computed)


def _opened(files: Sequence[Path | str], encoder: Encoder, known: dict, batch: int) -> Iterator[tuple[int, str, Tensor | str | None]]:
    """Row, key, and pixels at the encoder's size; None for pixels that need not be read, a sentence for what cannot be."""
    def one(row: int) -> tuple[int, str, Tensor | str | None]:
        try:
            key = digest(files[row])
            # What `preprocess` leaves, as an image again: fitting is idempotent, so pictures of any size share a batch.
            with torch.inference_mode():
                pixels = None if key in known else (encoder.preprocess(image.load(files[row])) * encoder.std + encoder.mean).clamp(0, 1)
        except UserError as error:
            return row, "", printable(str(error))
        except OSError as error:
            return row, "", f"{printable(Path(files[row]))} cannot be read: {error.strerror or error}."
        return row, key, pixels

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), batch):
            yield from pool.map(one, range(start, min(start + batch, len(files))))


class Store:
    """Shards of one encoder under `folder`, each a table of embeddings with the hashes of their files; a damaged one counts as absent."""

    def __init__(self, folder: Path, encoder: Encoder, layers: bool = False):
        seen = encoder.clip.visual.preprocess_cfg
        said = json.dumps([EDITION, encoder.fingerprint, str(encoder.dtype), seen] + ["layers"] * layers, sort_keys=True, default=str)
        self.folder = Path(folder) / "embeddings" / hashlib.sha256(said.encode()).hexdigest()[:32]
        self.width = encoder.described if layers else encoder.dim

    def load(self) -> dict[str, np.ndarray]:
        """Embeddings by the SHA-256 of their file."""
        known: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, "np") as shard:
                    keys, rows = json.loads((shard.metadata() or {})["files"]), shard.get_tensor("embeddings")
            except (OSError, SafetensorError, KeyError, ValueError):
                continue
            if rows.shape == (len(keys), self.width) and np.isfinite(rows).all():
                known.update(zip(keys, rows, strict=True))
        return known

    def add(self, embeddings: dict[str, np.ndarray]) -> None:
        """One more shard, named by what it holds."""
        keys = sorted(embeddings)
        path = self.folder / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:32]}.safetensors"
        with replacing(path) as temporary:
            save_file({"embeddings": np.stack([embeddings[key] for key in keys])}, temporary, {"files": json.dumps(keys)})
