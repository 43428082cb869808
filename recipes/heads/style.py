"""The style head: logistic regression over the styles that the judges know, balanced, beside the same read by words."""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from probes.heads.linear import Linear
from probes.judges import STYLES
from recipes.captions import ADJECTIVES, noun
from recipes.heads.features import Paintings
from recipes.metrics import fit_temperature, softmax, style_figures

SCALE = 4.0  # of unit embeddings, so that scikit-learn's penalty and tolerance suit them


def words(style: str) -> list[str]:
    """The style's adjective and its noun, each once."""
    return list(dict.fromkeys((ADJECTIVES.get(style, noun(style)), noun(style))))


def logistic(features: np.ndarray, labels: np.ndarray, names: tuple[str, ...], strength: float = 3.0) -> Linear:
    """Classes weigh alike: the head says what an image looks like, not how often it was painted. A class without examples is UserError."""
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=400).fit(features * SCALE, labels)
    return Linear(tensor(model.coef_ * SCALE), tensor(model.intercept_), tuple(names[k] for k in model.classes_))


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def codes(column: pd.Series, names: tuple[str, ...]) -> np.ndarray:
    """Places in `names`, -1 for what is not among them."""
    return column.map({name: place for place, name in enumerate(names)}).fillna(-1).to_numpy(np.int64)


def sentence(figures: dict, what: str) -> str:
    """The reliability of a head over labels, as a card tells it."""
    low, high = figures["interval"]
    return (
        f"{figures['balanced_accuracy']:.2f} balanced accuracy over {what} on {figures['images']} paintings by {figures['artists']} "
        f"unseen artists (95 % over artists {low:.2f}-{high:.2f}), ECE {figures['ece']:.3f}"
    )


def fit(paintings: Paintings) -> tuple[Linear, dict]:
    """The head, calibrated on half of the test artists, and its figures on the others."""
    features, rows = paintings.fitted
    labels, truth = codes(paintings.table["style"], STYLES)[rows], codes(paintings.tested["style"], STYLES)
    head = logistic(features[labels >= 0], labels[labels >= 0], STYLES)
    known, artists = truth >= 0, paintings.tested["artist"]
    truth = codes(paintings.tested["style"], head.labels) if head.labels != STYLES else truth
    logits = head.logits(torch.from_numpy(paintings.held)).numpy()
    first, other = known & paintings.half, known & ~paintings.half
    temperature = fit_temperature(logits[first], truth[first])
    figures = style_figures(softmax(logits[other] / temperature), truth[other], artists[other], head.labels)
    text = paintings.text([words(style) for style in head.labels])
    by_words = style_figures(softmax(paintings.held[known] @ text.T * 20), truth[known], artists[known], head.labels)
    head = Linear(head.weight, head.bias, head.labels, temperature, sentence(figures, f"{len(head.labels)} styles"))
    return head, {"metrics": {"linear": figures, "zero_shot": by_words}}
