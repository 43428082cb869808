"""What the layers of a convolutional image tower say of a manner of painting: means, spreads and covariances of their channels.

Styles are told by the statistics of early layers (Gram matrices of a convolutional network, arXiv:1508.06576) better than by the last
embedding, which has learned to forget them; read in the same pass, they cost next to nothing.
"""
from collections.abc import Mapping

import torch
from torch import Tensor

from probes.image import wide

SPREAD = ("conv1", "conv3", "stem", "layer1", "layer2", "layer3")  # stages read by the mean and standard deviation of each channel
TOGETHER = ("conv3", "stem")  # by the covariance of each two: of the few channels that see colour and edges
FLAT = 1e-6  # variance below which a channel says nothing; keeps the slope of the root finite


def statistics(maps: Mapping[str, Tensor]) -> Tensor:
    """Maps `(n, c, h, w)` by stage, those of `SPREAD`, to `(n, s)` in fp32 or fp64: means and spreads by stage, then the covariances."""
    found = []
    for stage in SPREAD:
        seen = wide(maps[stage]).flatten(2)
        mean = seen.mean(-1, keepdim=True)
        found += [mean[..., 0], ((seen - mean).square().mean(-1) + FLAT).sqrt()]  # torch.var takes four times as long on a CPU
    for stage in TOGETHER:
        seen = wide(maps[stage]).flatten(2)
        seen = seen - seen.mean(-1, keepdim=True)
        row, column = torch.triu_indices(seen.shape[1], seen.shape[1], device=seen.device)
        found.append((seen @ seen.mT / seen.shape[-1])[:, row, column])
    return torch.cat(found, 1)


def places(maps: Mapping[str, Tensor], stage: str, before: int) -> tuple[Tensor, int]:
    """Where in a description the means and then the spreads of a stage of `SPREAD` lie, and how many spreads; `before`: the embedding's
    values."""
    at = before + sum(2 * maps[other].shape[1] for other in SPREAD[:SPREAD.index(stage)])
    channels = maps[stage].shape[1]
    return torch.arange(at, at + 2 * channels), channels
