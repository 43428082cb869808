"""Out of domain: how far an embedding lies from those a head was fitted to, as a percentile of real ones that were held out."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from probes.atomic import replacing
from probes.errors import UserError
from probes.heads import card
from probes.heads.examples import table
from probes.heads.folds import group_folds
from probes.heads.head import fitting

if TYPE_CHECKING:
    from probes.encoders import Encoder

DEAD = 1e-3  # spread, in shares of the mean spread
SILENCED = 1e12  # the spread that a dead column is given; finite, since a head with values that are not is taken for damaged
SHRINKAGE = 1e-3  # of a column's variance, added in every direction where all of them are kept
LEAST = 1e-3  # a spread below that is read as that
FARTHEST = 99  # percent of real paintings that lie nearer to those the heads learned from: from there on a reading is out of place


@dataclass(frozen=True, eq=False)
class Domain:
    """Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999): `mean` and `spread` `(d,)`, and of what they leave `basis`
    `(r, d)`, `variances` `(r,)`, and `residual` `()`, the variance of each other direction; with r = d there is none.

    `held_out` `(101,)`: quantiles of the distance of embeddings not fitted to. `columns` `(d,)`: what it reads of a description
    (`Encoder.describe`), none for whole embeddings; the last `spreads` `()` of them are spreads and read as logarithms.
    """

    mean: Tensor
    spread: Tensor
    basis: Tensor
    variances: Tensor
    residual: Tensor
    held_out: Tensor
    columns: Tensor
    spreads: Tensor

    def distance(self, seen: Tensor) -> Tensor:
        """Embeddings, or descriptions `(n, ...)`, to the squared distance over its dimension `(n,)`: about 1 inside."""
        if len(self.columns):
            if seen.shape[-1] <= int(self.columns.max()):
                raise UserError(f"how far a picture lies from those the heads learned from is told by what the encoder's layers say: give "
                                f"a description of more than {int(self.columns.max())} values, not {seen.shape[-1]}.")
            seen = read(seen, self.columns, int(self.spreads))
        centred = (fitting(seen, len(self.mean)).to(self.mean) - self.mean) / self.spread
        along = centred @ self.basis.T
        found = (along.square() / self.variances).sum(-1)
        if len(self.basis) < len(self.mean):
            found = found + (centred.square().sum(-1) - along.square().sum(-1)).clamp_min(0) / self.residual
        return found / len(self.mean)

    def percentile(self, seen: Tensor) -> Tensor:
        """Percentile `(n,)`, 0 to 100, among held-out embeddings: 97 says that 97 % of real ones lie nearer. 100: farther than all."""
        return (torch.searchsorted(self.held_out, self.distance(seen), right=True) - 1).clamp(0, 100).float()


def read(seen: Tensor, columns: Tensor, spreads: int) -> Tensor:
    """The columns of descriptions, the last `spreads` as logarithms: the spread of a stroke or of noise multiplies and does not add."""
    seen = seen[..., columns.to(seen.device)]
    kept = seen.shape[-1] - spreads
    return torch.cat([seen[..., :kept], seen[..., kept:].clamp_min(LEAST).log()], -1)


def fit(features: Tensor, groups: Sequence, rank: int | None = 64, folds: int = 5, unseen: Tensor | None = None,
        columns: Tensor | None = None, spreads: int = 0) -> Domain:
    """The domain of embeddings `(n, d)`; its held-out distances come from folds that keep a group (an artist) together.

    `rank` None keeps every direction: what the paintings hardly vary in, as fine grain beside coarse, is what strange pictures differ in.
    `unseen` `(m, d)`: held-out distances are of these instead, for an encoder that has learned from all of `features`. `columns`: what is
    read of descriptions, many scales that count alike, the last `spreads` of them spreads.
    """
    x = table(features).float()
    layers, columns = columns is not None, torch.zeros(0, dtype=torch.int64) if columns is None else columns
    x = read(x, columns, spreads) if layers else x
    if rank is not None and not 0 < rank < min(len(x), x.shape[1]):
        raise UserError(f"a rank from 1 to {min(x.shape) - 1} fits these embeddings, not {rank}.")
    whole = _gaussian(x, rank, layers)
    if unseen is None:
        fold, distances = group_folds(groups, folds=folds), x.new_zeros(len(x))
        for number in range(folds):
            held = fold == number
            distances[held] = _gaussian(x[~held], rank, layers).distance(x[held])
    else:
        unseen = table(unseen).float()
        distances = whole.distance(read(unseen, columns, spreads) if layers else unseen)
    return replace(whole, held_out=torch.quantile(distances, torch.linspace(0, 1, 101)), columns=columns, spreads=torch.tensor(spreads))


def _gaussian(x: Tensor, rank: int | None, layers: bool) -> Domain:
    mean, spread = x.mean(0), torch.ones_like(x[0])
    if layers:
        spread = x.std(0)
        spread = torch.where(spread > DEAD * spread.mean(), spread, SILENCED)  # a column that says nothing takes no part
    centred = ((x - mean) / spread).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
    if rank is None:
        values, rank, residual = values.clamp_min(0) + SHRINKAGE * values.mean(), len(values), values.mean()
    else:
        residual = values[:-rank].clamp_min(0).mean().clamp_min(1e-12)
    none = torch.zeros(0, dtype=torch.int64)
    return Domain(mean, spread, vectors[:, -rank:].T.float().contiguous(), values[-rank:].float(), residual.float(), mean.new_zeros(101),
                  none, torch.tensor(0))


def save(stem: Path, domain: Domain, said: Mapping | None = None) -> None:
    """Write `<stem>.safetensors`, the basis in fp16, other numbers in fp32, and the card `<stem>.json`: which encoder, what is known."""
    held = {name: value.half() if name == "basis" else value.float() if value.is_floating_point() else value
            for name, value in vars(domain).items()}
    with replacing(Path(stem).with_suffix(".safetensors")) as temporary, replacing(Path(stem).with_suffix(".json")) as temporary_card:
        save_file({name: value.contiguous() for name, value in held.items()}, temporary)
        temporary_card.write_text(json.dumps(dict(said or {}), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shipped(encoder: Encoder) -> Domain | None:
    """The domain of the heads that ship for the encoder, or None."""
    stem = card.shipped("domain", encoder)
    return load(stem, encoder.device) if stem else None


def load(stem: Path, device: str | torch.device = "cpu") -> Domain:
    """The domain in `<stem>.safetensors`; UserError where it cannot be read."""
    return Domain(**card.tensors(stem, tuple(field.name for field in fields(Domain)), device))
