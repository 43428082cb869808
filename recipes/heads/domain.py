"""How far a picture lies from the paintings that the heads learned from, against paintings that the encoder has not seen."""

import numpy as np
import torch

from probes import domain
from probes.domain import FARTHEST, Domain
from recipes.heads.features import Paintings


def fit(paintings: Paintings) -> tuple[Domain, dict]:
    """The domain of the guide split; its percentiles are those of the judge split, by artists that neither encoder nor heads have seen."""
    rows = paintings.rows("guide")
    features, unseen = paintings.described[0][: len(rows)], paintings.choosing if len(paintings.choosing) else None
    groups = [name or str(row) for name, row in zip(paintings.table["artist"].iloc[rows], rows, strict=True)]
    found = domain.fit(torch.from_numpy(features), groups, rank=min(64, paintings.encoder.dim // 2, len(rows) - 1), layers=True,
                       unseen=None if unseen is None else torch.from_numpy(unseen))  # fmt: skip
    real = found.percentile(torch.from_numpy(paintings.told)).numpy()
    with torch.no_grad():
        noise = torch.rand(64, 3, paintings.encoder.side, paintings.encoder.side, generator=torch.Generator().manual_seed(0))
        flat = torch.rand(64, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand_as(noise)
        look = paintings.encoder.describe
        strange = {name: found.percentile(look(images)).numpy() for name, images in (("noise", noise), ("flat", flat))}
    beyond = {name: float(np.mean(values >= FARTHEST)) for name, values in {"unseen paintings": real, **strange}.items()}
    said = (
        f"percentiles of paintings by artists that neither encoder nor heads have seen; from {FARTHEST} % on lie "
        f"{beyond['unseen paintings']:.1%} of {len(real)} more of them, {beyond['noise']:.0%} of pictures of noise and "
        f"{beyond['flat']:.0%} of pictures of one colour"
    )
    return found, {"reliability": said, "metrics": {"from the farthest percentile on": beyond, "median of unseen": float(np.median(real))}}
