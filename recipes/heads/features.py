"""Embeddings that the heads are fitted to and measured on: computed once per weights of the encoder, kept in `work/embeddings`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderTiny
from rich.progress import track

from probes.atomic import replacing
from probes.encoders import Encoder, hashed
from probes.heads.zero_shot import prototypes
from recipes import data, training
from recipes.metrics import artist_halves
from recipes.views import damaged, vae_pass, views

BATCH = 128
TEMPLATES = ("a {} painting", "{} painting", "a painting in the {} style")


@torch.no_grad()
def embed(encoder: Encoder, batches: Iterator[torch.Tensor], count: int, what: str, layers: bool = False) -> np.ndarray:
    """Normalised embeddings `(n, d)` of batches of images; in bfloat16 where that is faster: it shifts a cosine by 1e-4.

    With `layers` the encoder's descriptions, whose first columns these are.
    """
    out, short = [], training.short(encoder.device)
    for images in track(batches, description=f"embedding {what}", total=-(-count // BATCH)):
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=short):
            out.append((encoder.describe if layers else encoder)(images).float().cpu())
    return torch.cat(out).numpy()


def kept(work: Path, encoder: Encoder, name: str, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What `compute` gives, from `work/embeddings` where these weights have gone through `count` images under this name before."""
    path = work / "embeddings" / f"{encoder.fingerprint[:12]}-{name}-{count}.npy"
    if not path.exists():
        found = compute()
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, found)
    return np.load(path)


@dataclass(frozen=True, eq=False)
class Paintings:
    """The paintings as an encoder sees them: the guide split to fit to, the test split (other artists) to measure on.

    `vae` is the autoencoder of the damaged views and the round trips; None for none.
    """

    encoder: Encoder
    images: np.ndarray
    table: pd.DataFrame
    work: Path
    vae: AutoencoderTiny | None

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.table["split"] == split)

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The table of the test split, in the order of `held`."""
        return self.table.iloc[self.rows("test")]

    @cached_property
    def half(self) -> np.ndarray:
        """True for the test artists that temperatures and recalibrations come from; figures come from the others."""
        return artist_halves(self.tested["artist"])

    def half_of(self, rows: np.ndarray) -> np.ndarray:
        """Whether each of these test rows is by one of them."""
        return self.half[np.searchsorted(self.rows("test"), rows)]

    @cached_property
    def fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the guide split, whole and as a damaged view, and the row of the table that each belongs to."""
        described, rows = self.described
        return described[:, : self.encoder.dim], rows

    @cached_property
    def described(self) -> tuple[np.ndarray, np.ndarray]:
        """The same with what the layers say, as `encoder.describe` gives it."""
        rows = self.rows("guide")
        both = [self._kept("guide", rows, self._batches), self._kept(f"views-{self.coder}", rows, self._views)]
        return np.concatenate(both), np.concatenate([rows, rows])

    @cached_property
    def held(self) -> np.ndarray:
        """Embeddings of the test split, whole."""
        return np.ascontiguousarray(self.told[:, : self.encoder.dim])

    @cached_property
    def told(self) -> np.ndarray:
        """Descriptions of the test split."""
        return self._kept("test", self.rows("test"), self._batches)

    @cached_property
    def choosing(self) -> np.ndarray:
        """Descriptions of the judge split: what heads may be chosen by, and learn nothing from."""
        rows = self.rows("judge")
        return self._kept("judge", rows, self._batches) if len(rows) else np.zeros((0, self.encoder.described), np.float32)

    @cached_property
    def coder(self) -> str:
        """Which autoencoder the damaged views went through, for the names of what is kept of them."""
        return hashed(self.vae)[:8] if self.vae else "none"

    def text(self, groups: Sequence[Sequence[str]], templates: Sequence[str] = TEMPLATES) -> np.ndarray:
        """One normalised prototype `(m, d)` per group of words, over the templates."""
        prompts = [[template.format(word) for word in words for template in templates] for words in groups]
        return prototypes(self.encoder, prompts).cpu().numpy()

    def _kept(self, name: str, rows: np.ndarray, batches: Callable[[np.ndarray], Iterator[torch.Tensor]]) -> np.ndarray:
        def compute() -> np.ndarray:
            return embed(self.encoder, batches(rows), len(rows), name, layers=True)

        return kept(self.work, self.encoder, f"layers-{name}", len(rows), compute)

    def _batches(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, len(rows), BATCH):
            yield data.batch(self.images, rows[start : start + BATCH], self.encoder.device)

    def _views(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """A crop of each image in other light, half of them noised, blurred or autoencoded: what guidance shows the heads."""
        generator, through = torch.Generator().manual_seed(0), vae_pass(self.vae) if self.vae else None
        for pixels in self._batches(rows):
            pixels = views(pixels, self.encoder.side, generator)
            half = len(pixels) // 2
            yield torch.cat([pixels[:half], damaged(pixels[half:], generator, through)])
