"""The style head, over what the encoder's layers say; beside it the same from the embedding alone, and by words."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from probes.errors import UserError
from probes.heads.linear import Linear
from probes.judges import STYLES
from probes.probe import NOT_VALIDATED
from recipes.captions import ADJECTIVES, noun
from recipes.data import codes
from recipes.heads import discriminant
from recipes.heads.features import Paintings
from recipes.metrics import balanced_accuracy, by, fit_temperature, gain_figures, softmax, style_figures

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


def sentence(figures: dict, what: str) -> str:
    """The reliability of a head over labels, as a card tells it."""
    if not figures:
        return NOT_VALIDATED
    low, high = figures["interval"]
    return (
        f"{figures['balanced_accuracy']:.2f} balanced accuracy over {what} on {figures['images']} paintings "
        f"{by(figures)} (95 % over artists {low:.2f}-{high:.2f}), ECE {figures['ece']:.3f}"
    )


def layered(paintings: Paintings, column: str, names: tuple[str, ...]) -> tuple[Linear, np.ndarray, float]:
    """The head over `names` of a column of the table, its logits of the test split, and how far its covariance was shrunk."""
    features, rows = paintings.described
    labels, judged = codes(paintings.table[column], names), paintings.rows("judge")
    present = tuple(name for place, name in enumerate(names) if (labels[rows] == place).any())
    if len(present) < 2:
        raise UserError(
            f"The guide split has images of {len(present)} of the {len(names)} values of {column} that this head knows "
            f"({', '.join(names)}): it takes two to learn to tell apart."
        )
    labels = codes(paintings.table[column], present)
    members = np.eye(len(present))[labels] * (labels >= 0)[:, None]
    weights = discriminant.evened(paintings.table["artist"], members)
    found, truth = discriminant.fits(features, members[rows], weights[rows]), labels[judged]
    known = truth >= 0
    shrinkage, (weight, bias) = discriminant.best(
        found, paintings.choosing[known], lambda logits: balanced_accuracy(truth[known], logits.argmax(1))
    )
    head = Linear(tensor(weight), tensor(bias), present)
    return head, head.logits(torch.from_numpy(paintings.told)).numpy(), shrinkage


def calibrated(paintings: Paintings, head: Linear, logits: np.ndarray, truth: np.ndarray, what: str) -> tuple[Linear, dict]:
    """The head with the temperature that half of the test artists ask for, and its figures on the others."""
    known, artists = truth >= 0, paintings.tested["artist"]
    first, other = known & paintings.half, known & ~paintings.half
    temperature = fit_temperature(logits[first], truth[first])
    figures = style_figures(softmax(logits[other] / temperature), truth[other], artists[other], head.labels)
    return replace(head, temperature=temperature, reliability=sentence(figures, f"{len(head.labels)} {what}")), figures


def fit(paintings: Paintings) -> tuple[Linear, dict]:
    """The head, calibrated on half of the test artists, and its figures on the others."""
    head, logits, shrinkage = layered(paintings, "style", STYLES)
    truth = codes(paintings.tested["style"], head.labels)
    head, figures = calibrated(paintings, head, logits, truth, "styles")
    known, artists = truth >= 0, paintings.tested["artist"]
    everyone = style_figures(softmax(logits[known] / head.temperature), truth[known], artists[known], head.labels)
    features, rows = paintings.fitted
    labels = codes(paintings.table["style"], head.labels)[rows]
    plain = logistic(features[labels >= 0], labels[labels >= 0], head.labels)
    by_embedding = plain.logits(torch.from_numpy(paintings.held)).numpy()
    _, embedded = calibrated(paintings, plain, by_embedding, truth, "styles")
    gain = gain_figures(logits[known].argmax(1), by_embedding[known].argmax(1), truth[known], artists[known])
    text = paintings.text([words(style) for style in head.labels])
    cosines = paintings.held[known] @ text.T
    by_words = style_figures(softmax(cosines * paintings.encoder.logit_scale), truth[known], artists[known], head.labels)
    metrics = {"linear": figures, "linear, all artists": everyone, "embedding alone": embedded}
    metrics |= {"gain over the embedding alone": gain, "zero_shot": by_words}
    return head, {"metrics": metrics, "shrinkage": shrinkage}
