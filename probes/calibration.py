"""Making a head's numbers mean what they say: temperature, expected calibration error, monotone recalibration."""
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURES = .05, 20.  # what is searched


def at_an_end(temperature: float) -> bool:
    """Whether the search ended at an end of TEMPERATURES: what it was fitted to asks for more, and says little."""
    return not 1.01 * TEMPERATURES[0] < temperature < .99 * TEMPERATURES[1]


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that minimises the cross-entropy of `logits / T` (arXiv:1706.04599): logits `(n, k)`, labels `(n,)`; T within TEMPERATURES."""
    logits = logits.double()
    low, high = np.log(TEMPERATURES)
    golden = (np.sqrt(5) - 1) / 2

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / float(np.exp(log_t)), labels))

    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the top label: mean gap of confidence and accuracy over equal bins, weighted by their size; in [0, 1].

    A perfectly calibrated head does not reach 0 on a finite sample: compare with the band that the sample size allows.
    """
    confidence, guess = probabilities.double().max(-1)
    right = (guess == labels).double()
    place = (confidence * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=place.device).index_add(0, place, confidence - right)
    return float(gaps.abs().sum() / len(labels))


def monotone(predicted: np.ndarray, true: np.ndarray, knots: int = 24, least_slope: float = .1) -> tuple[np.ndarray, np.ndarray]:
    """Knots `x`, `y` of a rising piecewise-linear map from predictions to truth: least squares under a slope of at least `least_slope`.

    A plain isotonic fit has flat pieces, where a loss would have no gradient. Isotonic regression of `true - slope * predicted`, by
    pooling adjacent violators, plus the line again, is the least-squares fit under that constraint.
    """
    order = np.argsort(predicted, kind="stable")
    x, residual = np.asarray(predicted, float)[order], (np.asarray(true, float) - least_slope * np.asarray(predicted, float))[order]
    means: list[float] = []
    sizes: list[int] = []
    for value in residual:
        means.append(float(value))
        sizes.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2:] = [(means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size]
            sizes[-2:] = [size]
    at = np.linspace(x[0], x[-1], knots)
    return at, np.interp(at, x, np.repeat(means, sizes)) + least_slope * at
