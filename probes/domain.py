"""Out of domain: how far an embedding lies from those a head was fitted to, as a percentile of real ones that were held out."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
FARTHEST = 99  # percent of real paintings that lie nearer to those the heads learned from: from there on a reading is out of place


@dataclass(frozen=True, eq=False)
class Domain:
    """Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999): `mean` and `spread` `(d,)`, and of what they leave `basis`
    `(r, d)`, `variances` `(r,)`, and `residual` `()`, the variance of each other direction.

    `held_out` `(101,)`: quantiles of the distance of embeddings not fitted to.
    """

    mean: Tensor
    spread: Tensor
    basis: Tensor
    variances: Tensor
    residual: Tensor
    held_out: Tensor

    def distance(self, embeddings: Tensor) -> Tensor:
        """Squared distance over its dimension `(n,)`: about 1 inside."""
        centred = (fitting(embeddings, len(self.mean)).to(self.mean) - self.mean) / self.spread
        along = centred @ self.basis.T
        across = (centred.square().sum(-1) - along.square().sum(-1)).clamp_min(0)
        return ((along.square() / self.variances).sum(-1) + across / self.residual) / len(self.mean)

    def percentile(self, embeddings: Tensor) -> Tensor:
        """Percentile `(n,)`, 0 to 100, among held-out embeddings: 97 says that 97 % of real ones lie nearer. 100: farther than all."""
        return torch.searchsorted(self.held_out, self.distance(embeddings), right=True).clamp(max=100).float()


def fit(features: Tensor, groups: Sequence, rank: int = 64, folds: int = 5, unseen: Tensor | None = None,
        layers: bool = False) -> Domain:
    """The domain of embeddings `(n, d)`; its held-out distances come from folds that keep a group (an artist) together.

    `unseen` `(m, d)`: they come from these instead, for an encoder that has learned from all of `features`. `layers`: columns are
    of many scales, as `Encoder.describe` gives them, and count alike.
    """
    x = table(features).float()
    if not 0 < rank < min(len(x), x.shape[1]):
        raise UserError(f"a rank from 1 to {min(x.shape) - 1} fits these embeddings, not {rank}.")
    whole = _gaussian(x, rank, layers)
    if unseen is None:
        fold, distances = group_folds(groups, folds=folds), x.new_zeros(len(x))
        for number in range(folds):
            held = fold == number
            distances[held] = _gaussian(x[~held], rank, layers).distance(x[held])
    else:
        distances = whole.distance(table(unseen).float())
    return replace(whole, held_out=torch.quantile(distances, torch.linspace(0, 1, 101)))


def _gaussian(x: Tensor, rank: int, layers: bool) -> Domain:
    mean, spread = x.mean(0), torch.ones_like(x[0])
    if layers:
        spread = x.std(0)
        spread = torch.where(spread > DEAD * spread.mean(), spread, SILENCED)  # a column that says nothing takes no part
    centred = ((x - mean) / spread).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
    residual = values[:-rank].clamp_min(0).mean().clamp_min(1e-12)
    return Domain(mean, spread, vectors[:, -rank:].T.float().contiguous(), values[-rank:].float(), residual.float(), mean.new_zeros(101))


def save(stem: Path, domain: Domain, said: Mapping | None = None) -> None:
    """Write `<stem>.safetensors`, the basis in fp16, the rest in fp32, and the card `<stem>.json`: which encoder, and what is known."""
    held = {name: value.half() if name == "basis" else value.float() for name, value in vars(domain).items()}
    with replacing(Path(stem).with_suffix(".safetensors")) as temporary, replacing(Path(stem).with_suffix(".json")) as temporary_card:
        save_file({name: value.contiguous() for name, value in held.items()}, temporary)
        temporary_card.write_text(json.dumps(dict(said or {}), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shipped(encoder: Encoder) -> Domain | None:
    """The domain of the heads that ship for the encoder, or None."""
    stem = card.shipped("domain", encoder)
    return load(stem, encoder.device) if stem else None


def load(stem: Path, device: str | torch.device = "cpu") -> Domain:
    """The domain in `<stem>.safetensors`; UserError where it cannot be read."""
    return Domain(**card.tensors(stem, ("mean", "spread", "basis", "variances", "residual", "held_out"), device))
