"""Out of domain: how far an embedding lies from those a head was fitted to, as a percentile of real ones that were held out."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from probes.atomic import replacing
from probes.errors import UserError
from probes.heads import card
from probes.heads.examples import table
from probes.heads.folds import group_folds
from probes.heads.head import fitting


@dataclass(frozen=True, eq=False)
class Domain:
    """Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999): `mean` `(d,)`, `basis` `(r, d)`, `variances` `(r,)`, and
    `residual` `()`, the variance of each other direction. `held_out` `(101,)`: quantiles of the distance of embeddings not fitted to.
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    residual: Tensor
    held_out: Tensor

    def distance(self, embeddings: Tensor) -> Tensor:
        """Squared distance over its dimension `(n,)`: about 1 inside."""
        centred = fitting(embeddings, len(self.mean)).to(self.mean) - self.mean
        along = centred @ self.basis.T
        across = (centred.square().sum(-1) - along.square().sum(-1)).clamp_min(0)
        return ((along.square() / self.variances).sum(-1) + across / self.residual) / len(self.mean)

    def percentile(self, embeddings: Tensor) -> Tensor:
        """Percentile `(n,)`, 0 to 100, among held-out embeddings: 97 says that 97 % of real ones lie nearer. 100: farther than all."""
        return torch.searchsorted(self.held_out, self.distance(embeddings), right=True).clamp(max=100).float()


def fit(features: Tensor, groups: Sequence, rank: int = 64, folds: int = 5) -> Domain:
    """The domain of embeddings `(n, d)`; its held-out distances come from folds that keep a group (an artist) together."""
    x = table(features).float()
    if not 0 < rank < min(len(x), x.shape[1]):
        raise UserError(f"a rank from 1 to {min(x.shape) - 1} fits these embeddings, not {rank}.")
    fold = group_folds(groups, folds=folds)
    distances = x.new_zeros(len(x))
    for number in range(folds):
        held = fold == number
        distances[held] = _gaussian(x[~held], rank).distance(x[held])
    whole = _gaussian(x, rank)
    return Domain(whole.mean, whole.basis, whole.variances, whole.residual, torch.quantile(distances, torch.linspace(0, 1, 101)))


def _gaussian(x: Tensor, rank: int) -> Domain:
    mean = x.mean(0)
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
    residual = values[:-rank].clamp_min(0).mean().clamp_min(1e-12)
    return Domain(mean, vectors[:, -rank:].T.float().contiguous(), values[-rank:].float(), residual.float(), mean.new_zeros(101))


def save(stem: Path, domain: Domain) -> None:
    """Write `<stem>.safetensors`: the basis in fp16, what scales it in fp32."""
    held = {name: value.half() if name == "basis" else value.float() for name, value in vars(domain).items()}
    with replacing(Path(stem).with_suffix(".safetensors")) as temporary:
        save_file({name: value.contiguous() for name, value in held.items()}, temporary)


def load(stem: Path, device: str | torch.device = "cpu") -> Domain:
    """The domain in `<stem>.safetensors`; UserError where it cannot be read."""
    return Domain(**card.tensors(stem, ("mean", "basis", "variances", "residual", "held_out"), device))
