"""Tables of published image features with their labels, as arrays."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probes.errors import UserError

COLUMN = "ViT-L/14@336px"


@dataclass(frozen=True, eq=False)
class Labelled:
    """`features` `(n, d)`, L2-normalised, in fp32; `frame`, what is known of each; `artist`, what folds keep together (or the prompt)."""

    features: np.ndarray
    frame: pd.DataFrame
    artist: tuple[str, ...]

    @cached_property
    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.features)

    def groups(self, rows: np.ndarray) -> list[str]:
        return [self.artist[row] for row in rows]

    def take(self, rows: np.ndarray) -> Labelled:
        return Labelled(self.features[rows], self.frame.iloc[rows], tuple(self.groups(rows)))

    def beside(self, other: Labelled) -> Labelled:
        """Both, one after the other; only embeddings and groups."""
        return Labelled(np.concatenate([self.features, other.features]), pd.DataFrame(), self.artist + other.artist)

    def words(self, column: str) -> np.ndarray:
        return self.frame[column].fillna("unknown").astype(str).to_numpy(object)

    def classes(self, column: str, least: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Names with at least `least` rows, the number of each of their rows, and these rows."""
        words = self.words(column)
        found, counts = np.unique(words.astype(str), return_counts=True)
        names = tuple(str(name) for name in found[counts >= least])
        rows = np.flatnonzero([word in names for word in words])
        return names, np.array([names.index(word) for word in words[rows]]), rows

    def one_hot(self, column: str, least: int) -> np.ndarray:
        """`(n, k)`: a column for each word with at least `least` rows, and one for the others together."""
        words = self.words(column)
        found, counts = np.unique(words.astype(str), return_counts=True)
        kept = list(found[counts >= least])
        place = [kept.index(word) if word in kept else len(kept) for word in words]
        return np.eye(len(kept) + 1)[place]

    @cached_property
    def years(self) -> np.ndarray:
        """The middle of `a to b`; 1275 for `before 1300`, 2010 for `2001 to present`."""
        return np.array([_middle(span) for span in self.words("period")])


def read(path: Path, group: str) -> Labelled:
    """A table whose column `group` says what belongs together."""
    try:
        frame = pd.read_parquet(path)
        features = np.stack(frame[COLUMN]).astype(np.float32)
    except (OSError, KeyError, ImportError) as error:
        raise UserError(f"the features {path} cannot be read: {error}; --data is the folder with nga.parquet, and needs pyarrow.") from None
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Labelled(features, frame.drop(columns=COLUMN), tuple(frame[group].fillna("unknown").astype(str)))


def _middle(span: str) -> float:
    if span.startswith("before"):
        return 1275.
    first, last = span.split(" to ")
    return 2010. if last == "present" else (float(first) + float(last)) / 2
