"""Figures for the model cards: accuracies, calibration, retrieval and years on unseen artists, with a bootstrap over artists."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from probes.calibration import calibration_error, temperature
from probes.judges import STYLES

# Neighbours in time and manner that people confuse, and whose labels overlap on one and the same painting.
FAMILIES = {
    "renaissance and baroque": ("renaissance", "baroque"),
    "rococo": ("rococo",),
    "romanticism and realism": ("romanticism", "realism"),
    "impressionism and its heirs": ("impressionism", "post-impressionism", "pointillism"),
    "art nouveau and symbolism": ("art-nouveau", "symbolism"),
    "ukiyo-e": ("ukiyo-e",),
    "expressive and naive": ("expressionism", "fauvism", "naive-art"),
    "cubism": ("cubism",),
}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def hands(artists: pd.Series) -> pd.Series:
    """Whose hand each painting is, for halves, folds and bootstraps: its artist, or the painting itself where none is named ("")."""
    return artists.where(artists != "", [f"\0{place}" for place in range(len(artists))])


def whose(artists: pd.Series) -> dict[str, int]:
    """How many artists the paintings of a figure are by, and of how many paintings the table names none."""
    without = int((artists == "").sum())
    return {"artists": int(artists[artists != ""].nunique())} | ({"without artist": without} if without else {})


def by(figures: Mapping, unseen: str = "unseen ") -> str:
    """Whose paintings a figure is of, as a sentence goes on; a table without artists cannot tell that they are unseen."""
    count, without = figures["artists"], figures.get("without artist", 0)
    if not count:
        return "whose artists are not named"
    return f"by {count} {unseen}artist{'s' * (count != 1)}" + (f" and {without} without a named one" if without else "")


def artist_halves(artists: pd.Series) -> np.ndarray:
    """True for about half of the artists, alternating by number of works so that both halves are alike.

    Of artists with equally many works the one that comes first in the table goes first: the same rows in another order give other halves,
    as good as these, and figures of halves that differ by chance.
    """
    own = hands(artists)
    order = own.value_counts(sort=True).index
    first = {name for index, name in enumerate(order) if index % 4 in (0, 3)}
    return own.isin(first).to_numpy()


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of a head (`probes.calibration`), from arrays; 1 where there is nothing to fit it to."""
    if not len(labels):
        return 1.0
    return temperature(torch.from_numpy(np.asarray(logits, np.float32)), torch.from_numpy(np.asarray(labels, np.int64)))


def over_artists(artists: pd.Series, measure: Callable[[np.ndarray], float], draws: int = 300) -> tuple[float, float]:
    """95 % percentile interval of `measure(rows)` over artists drawn with replacement."""
    rng = np.random.default_rng(0)
    groups = list(pd.Series(np.arange(len(artists))).groupby(hands(artists).to_numpy()).apply(np.asarray))
    values = [measure(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])) for _ in range(draws)]
    return tuple(float(v) for v in np.percentile(values, (2.5, 97.5)))


def recalls(labels: np.ndarray, guess: np.ndarray, count: int) -> np.ndarray:
    """Share of each of `count` classes that is guessed right, nan for a class that is not there."""
    of = np.bincount(labels, minlength=count)
    return np.bincount(labels[guess == labels], minlength=count) / np.where(of, of, np.nan)


def balanced_accuracy(labels: np.ndarray, guess: np.ndarray) -> float:
    """Mean recall over the classes that occur: a bootstrap sample may miss one."""
    return float(np.nanmean(recalls(labels, guess, int(labels.max()) + 1)))


def ece(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (`probes.calibration`), from arrays."""
    return calibration_error(torch.from_numpy(np.asarray(probabilities)), torch.from_numpy(np.asarray(labels, np.int64)))


def ece_of_perfect(probabilities: np.ndarray, draws: int = 100) -> tuple[float, float]:
    """5 and 95 % of the ECE that a perfectly calibrated head shows on this many images: compare a measured one with these, not with 0."""
    rng, cumulative = np.random.default_rng(0), probabilities.cumsum(1)
    last = probabilities.shape[1] - 1
    drawn = [(cumulative < rng.random((len(cumulative), 1))).sum(1).clip(max=last) for _ in range(draws)]
    return tuple(float(v) for v in np.percentile([ece(probabilities, labels) for labels in drawn], (5, 95)))


def merged(probabilities: np.ndarray, names: Sequence[str] = STYLES) -> np.ndarray:
    """Probabilities `(n, k)` of styles summed within FAMILIES: `(n, 8)`."""
    member = np.array([[name in family for family in FAMILIES.values()] for name in names], dtype=probabilities.dtype)
    return probabilities @ member


def family_of(labels: np.ndarray, names: Sequence[str] = STYLES) -> np.ndarray:
    """Index of the family of each style label `(n,)`."""
    place = [next(i for i, family in enumerate(FAMILIES.values()) if name in family) for name in names]
    return np.asarray(place)[np.asarray(labels, np.int64)]


def style_figures(probabilities: np.ndarray, labels: np.ndarray, artists: pd.Series, names: Sequence[str]) -> dict:
    """Accuracy, balanced accuracy, ECE and recall per class on unseen artists; over the merged families too where the classes are STYLES.

    `interval` is that of the balanced accuracy. The bootstrap's ECE lies a little high, as every ECE of a smaller sample does. Empty
    where there are no images: a small sample may have none of these classes in one half of its test artists.
    """
    labels = np.asarray(labels, np.int64)
    if not len(labels):
        return {}
    guess = probabilities.argmax(1)
    recall = recalls(labels, guess, len(names))
    found = {
        "images": len(labels),
        **whose(artists),
        "accuracy": float((guess == labels).mean()),
        "accuracy_interval": over_artists(artists, lambda rows: (guess[rows] == labels[rows]).mean()),
        "balanced_accuracy": balanced_accuracy(labels, guess),
        "interval": over_artists(artists, lambda rows: balanced_accuracy(labels[rows], guess[rows])),
        "ece": ece(probabilities, labels),
        "ece_interval": over_artists(artists, lambda rows: ece(probabilities[rows], labels[rows]), 100),
        "ece_of_perfect": ece_of_perfect(probabilities),
        "recall": {name: round(float(np.nan_to_num(value)), 3) for name, value in zip(names, recall, strict=True)},
    }
    return found | ({"families": family_figures(probabilities, labels, artists, names)} if tuple(names) == STYLES else {})


def family_figures(probabilities: np.ndarray, labels: np.ndarray, artists: pd.Series, names: Sequence[str] = STYLES) -> dict:
    """Balanced accuracy over FAMILIES, probabilities summed within each, and recall per family; empty where there are no images."""
    if not len(labels):
        return {}
    guess, truth = merged(probabilities, names).argmax(1), family_of(labels, names)
    recall = recalls(truth, guess, len(FAMILIES))
    return {
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": balanced_accuracy(truth, guess),
        "interval": over_artists(artists, lambda rows: balanced_accuracy(truth[rows], guess[rows])),
        "recall": {name: round(float(np.nan_to_num(value)), 3) for name, value in zip(FAMILIES, recall, strict=True)},
    }


def gain_figures(guess: np.ndarray, other: np.ndarray, labels: np.ndarray, artists: pd.Series) -> dict:
    """By how much `guess` beats `other` in balanced accuracy on the same images; the interval is of the paired difference.

    Empty where there are no images.
    """
    if not len(labels):
        return {}

    def gain(rows: np.ndarray) -> float:
        return balanced_accuracy(labels[rows], guess[rows]) - balanced_accuracy(labels[rows], other[rows])

    return {
        "images": len(labels),
        **whose(artists),
        "balanced_accuracy": balanced_accuracy(labels, guess),
        "of the other": balanced_accuracy(labels, other),
        "gain": gain(np.arange(len(labels))),
        "interval": over_artists(artists, gain),
    }


def year_figures(guess: np.ndarray, years: np.ndarray, artists: pd.Series) -> dict:
    """Mean absolute error in years, beside that of always answering the median; rank correlation. Empty where there are no images."""
    if not len(years):
        return {}
    error = np.abs(guess - years)
    return {
        "images": len(years),
        **whose(artists),
        "mae": float(error.mean()),
        "interval": over_artists(artists, lambda rows: error[rows].mean()),
        "mae_of_median": float(np.abs(years - np.median(years)).mean()),
        "spearman": float(spearmanr(guess, years).statistic),
    }


def retrieval_figures(similarity: np.ndarray, artists: pd.Series) -> dict:
    """Recall at 1 and 5 of the text that belongs to each image, from similarities `(n images, n texts)` whose diagonal belongs together."""
    if not len(artists):
        return {}
    place = (similarity > np.diag(similarity)[:, None]).sum(1)
    found = {"titles": len(place), **whose(artists), "median rank": float(np.median(place) + 1)}
    for k in (1, 5):
        hit = place < k
        interval = over_artists(artists, lambda rows, hit=hit: hit[rows].mean())
        found |= {f"at {k}": float(hit.mean()), f"at {k} interval": interval, f"at {k} by chance": k / len(place)}
    return found
