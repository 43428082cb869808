"""Figures for the model cards: accuracies, calibration and years on unseen artists, with intervals from a bootstrap over artists."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, recall_score

from probes.calibration import calibration_error, temperature


def artist_halves(artists: pd.Series) -> np.ndarray:
    """True for about half of the artists, alternating by number of works so that both halves are alike."""
    order = artists.value_counts(sort=True).index
    first = {name for index, name in enumerate(order) if index % 4 in (0, 3)}
    return artists.isin(first).to_numpy()


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of a head (`probes.calibration`), from arrays."""
    return temperature(torch.from_numpy(np.asarray(logits, np.float32)), torch.from_numpy(np.asarray(labels, np.int64)))


def over_artists(artists: pd.Series, measure, draws: int = 300) -> tuple[float, float]:
    """95 % percentile interval of `measure(rows)` over artists drawn with replacement."""
    rng = np.random.default_rng(0)
    groups = list(pd.Series(np.arange(len(artists))).groupby(artists.to_numpy()).apply(np.asarray))
    values = [measure(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])) for _ in range(draws)]
    return tuple(float(v) for v in np.percentile(values, (2.5, 97.5)))


def style_figures(probabilities: np.ndarray, labels: np.ndarray, artists: pd.Series, names: Sequence[str]) -> dict:
    """Accuracy, balanced accuracy, ECE and recall per class on unseen artists."""
    labels = np.asarray(labels)
    guess = probabilities.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bootstrap sample may miss a class: balanced accuracy is then over those present
        interval = over_artists(artists, lambda rows: balanced_accuracy_score(labels[rows], guess[rows]))
    recall = recall_score(labels, guess, labels=range(len(names)), average=None, zero_division=0)
    return {
        "images": len(labels),
        "artists": int(artists.nunique()),
        "accuracy": float((guess == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, guess)),
        "interval": interval,
        "ece": calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels.astype(np.int64))),
        "recall": {name: round(float(value), 3) for name, value in zip(names, recall, strict=True)},
    }


def year_figures(guess: np.ndarray, years: np.ndarray, artists: pd.Series) -> dict:
    """Mean absolute error in years, beside that of always answering the median; rank correlation."""
    error = np.abs(guess - years)
    return {
        "images": len(years),
        "artists": int(artists.nunique()),
        "mae": float(error.mean()),
        "interval": over_artists(artists, lambda rows: error[rows].mean()),
        "mae_of_median": float(np.abs(years - np.median(years)).mean()),
        "spearman": float(spearmanr(guess, years).statistic),
    }
