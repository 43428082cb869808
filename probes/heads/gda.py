"""Gaussian discriminant analysis (arXiv:2402.04087): one Gaussian per label with a shared covariance, blended with text."""
import torch

from probes.errors import UserError
from probes.heads.examples import examples
from probes.heads.linear import Linear


@torch.inference_mode(False)
def fit(features, labels, names, *, text=None, alpha: float = 1., scale: float = 100., balanced: bool = True) -> Linear:
    """`scale f W_text + alpha (f W + b)`, without the first term where there is no text: then the class means are the Gaussians' own.

    `balanced`: every label is as likely beforehand, as in the paper; else as frequent as its examples. No training, no validation set.
    """
    given = examples(features, labels, names, text)
    x, mu = given.features.double(), given.means.double()
    n, d = x.shape
    centred = x - mu[given.labels]
    # Over n - 1, not n - k, though k means were taken: as torch.cov in the paper's code. So is the trace below.
    covariance = centred.T @ centred / (n - 1)
    if not covariance.trace() > 0:
        raise UserError("all examples of each label are the same, so there is no spread to estimate; give a label two different images, "
                        "or take the nearest mean.")
    shrunken = (n - 1) * covariance + covariance.trace() * torch.eye(d, dtype=x.dtype, device=x.device)
    precision = d * torch.linalg.pinv(shrunken, hermitian=True)
    counts = given.labels.bincount().double()
    prior = torch.full_like(counts, 1 / len(counts)) if balanced else counts / n
    weight = mu @ precision
    bias = prior.log() - (weight * mu).sum(1) / 2
    if text is not None:
        weight, bias = scale * given.prototypes + alpha * weight, alpha * bias
    return Linear(weight.to(given.features.dtype), bias.to(given.features.dtype), given.names, prototypes=given.origin)
