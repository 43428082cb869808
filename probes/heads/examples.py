"""Labelled embeddings that a head is fitted to, checked once for all heads."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from probes.errors import UserError

TEXT, CLASS_MEANS = "text", "class means"


@dataclass(frozen=True, eq=False)
class Examples:
    """`features` `(n, d)`, `labels` `(n,)` as numbers into k `names`, and a prototype per label: `prototypes` `(k, d)`, from `origin`."""

    features: Tensor
    labels: Tensor
    names: tuple[str, ...]
    means: Tensor
    prototypes: Tensor
    origin: str

    @property
    def one_hot(self) -> Tensor:
        """`(n, k)`, in the type of the features."""
        return F.one_hot(self.labels, len(self.names)).to(self.features)

    def few(self, shots: int | None, seed: int) -> tuple[Tensor, Tensor]:
        """At most `shots` examples of each label, drawn with `seed`: their features and one-hot labels. All of them for None."""
        if shots is None:
            return self.features, self.one_hot
        if shots < 1:
            raise UserError(f"a cache needs at least one example of each label, not {shots}.")
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed)).to(self.labels.device)
        rows = torch.cat([order[self.labels[order] == k][:shots] for k in range(len(self.names))]).sort().values
        return self.features[rows], self.one_hot[rows]


def examples(features: Tensor | np.ndarray, labels: Tensor | np.ndarray | Sequence[int] | Sequence[str], names: Sequence[str],
             text: Tensor | np.ndarray | None = None, *, unit: bool = False) -> Examples:
    """Checked examples. `labels` are numbers into `names`, or names; `text` `(k, d)` are normalised prototypes, class means where None.

    `unit`: the head measures cosines, so features have to be L2-normalised, as an encoder gives them. UserError for what cannot be fitted.
    """
    names, features = tuple(names), table(features)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"a head tells labels apart, so it needs at least two different names, not {', '.join(names) or 'none'}.")
    labels = _numbers(labels, names).to(features.device)
    if labels.shape != features.shape[:1]:
        raise UserError(f"there are {len(features)} embeddings and {labels.numel()} labels; each embedding needs one.")
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"labels are numbers from 0 to {len(names) - 1}, one for each name; leave out embeddings with another one.")
    counts = labels.bincount(minlength=len(names))
    if not counts.all():
        raise UserError(f"there is no example of {names[int(counts.argmin())]}; leave the label out or give it one.")
    means = features.new_zeros(len(names), features.shape[1]).index_add_(0, labels, features) / counts[:, None]
    if unit:
        _normalised(features, "embeddings")
    if text is None:
        return Examples(features, labels, names, means, F.normalize(means, dim=-1), CLASS_MEANS)
    text = table(text).to(features)
    if text.shape != means.shape:
        raise UserError(f"text prototypes have the shape {tuple(text.shape)}; these labels and embeddings need {tuple(means.shape)}.")
    _normalised(text, "text prototypes")
    return Examples(features, labels, names, means, text, TEXT)


def table(values: Tensor | np.ndarray) -> Tensor:
    """`(n, d)` in fp32 or fp64, or a UserError."""
    values = torch.as_tensor(values)
    if values.dim() != 2 or not values.numel():
        raise UserError(f"there is nothing to fit: embeddings are a table of n rows and d values, not of shape {tuple(values.shape)}.")
    broken = int((~values.isfinite().all(1)).sum())
    if broken:
        raise UserError(f"{broken} of {len(values)} embeddings hold values that are not finite; leave those images out.")
    values = values.clone() if values.is_inference() else values.detach()  # an inference tensor could not take part in a gradient later
    return values if values.dtype == torch.float64 else values.float()


def numbers(values: Tensor | np.ndarray | Sequence[float], features: Tensor) -> Tensor:
    """A finite number for each embedding, `(n,)` in fp64, or a UserError."""
    values = torch.as_tensor(values, dtype=torch.float64, device=features.device)
    if values.shape != features.shape[:1]:
        raise UserError(f"there are {len(features)} embeddings and {values.numel()} years; each embedding needs one.")
    if not values.isfinite().all():
        raise UserError("some years are missing or not finite; leave those images out.")
    return values


def _numbers(labels, names: tuple[str, ...]) -> Tensor:
    if isinstance(next(iter(labels), None), str):
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise UserError(f"the label {unknown[0]} is none of the names: {', '.join(names)}.")
        labels = [names.index(label) for label in labels]
    labels = labels if isinstance(labels, Tensor) else torch.from_numpy(np.asarray(labels, None if len(labels) else int))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError("labels are whole numbers into the names, or names.")
    return labels.long()


def _normalised(values: Tensor, what: str) -> None:
    norms = values.norm(dim=-1)
    if (norms - 1).abs().max() > .01:
        raise UserError(f"{what} have to be L2-normalised, their lengths run from {norms.min():.3g} to {norms.max():.3g}; "
                        "use torch.nn.functional.normalize first.")
