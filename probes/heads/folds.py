"""Folds that keep a group together, and temperatures fitted on them: a head is as sure of itself as unseen artists allow."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from probes import calibration
from probes.errors import UserError
from probes.heads.examples import examples, table
from probes.heads.head import Head
from probes.heads.zero_shot import Antonyms


def group_folds(groups: Sequence, labels=None, folds: int = 5) -> Tensor:
    """A fold `(n,)` from 0 to `folds` - 1 for each row; the rows of a group (an artist, a prompt) share theirs.

    Largest groups first, each to the fold where the labels, or the rows where none are given, stay most even. Deterministic.
    """
    names, group = np.unique(np.asarray([str(name) for name in groups]), return_inverse=True)
    if folds < 2:
        raise UserError(f"one part is learned from while another is read: that needs at least 2 folds, not {folds}.")
    if len(names) < folds:
        raise UserError(f"{folds} folds need as many groups, and there are {len(names)}.")
    kinds = np.zeros(len(group), int) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    if len(kinds) != len(group):
        raise UserError(f"there are {len(group)} groups and {len(kinds)} labels; each row needs both.")
    counts = np.zeros((len(names), kinds.max() + 1))
    np.add.at(counts, (group, kinds), 1)
    share = counts / counts.sum(0)
    held, placed = np.zeros((folds, share.shape[1])), np.zeros(len(names), int)
    for index in np.argsort(-counts.sum(1), kind="stable"):
        uneven = [np.var(held + share[index] * (np.arange(folds) == fold)[:, None], axis=0).sum() for fold in range(folds)]
        placed[index] = min(range(folds), key=lambda fold: (round(uneven[fold], 12), held[fold].sum()))
        held[placed[index]] += share[index]
    return torch.from_numpy(placed[group])


def calibrate(head: Head, features, labels) -> Head:
    """The head with the temperature of least cross-entropy (arXiv:1706.04599) on embeddings and labels that it has not seen.

    `labels` are numbers into the head's labels, or the labels; for antonyms a table `(n, k)`, true where the first word of a pair holds.
    UserError where a label has no example: its probability would be extrapolated.
    """
    if isinstance(head, Antonyms):
        features, labels = table(features), torch.as_tensor(labels)
        if labels.shape != (len(features), len(head.labels)):
            raise UserError(f"pairs of opposites are calibrated with a truth for each image and pair, {(len(features), len(head.labels))}.")
        odds = head.logits(features).flatten()
        logits, labels = torch.stack([torch.zeros_like(odds), odds], 1), labels.flatten().long().to(odds.device)
    else:
        given = examples(features, labels, head.labels)
        logits, labels = head.logits(given.features), given.labels
    return replace(head, temperature=head.temperature * calibration.temperature(logits.detach(), labels))


def out_of_fold(fit: Callable[..., Head], features, labels, names: Sequence[str], groups: Sequence, *, folds: int = 5, **options) -> Tensor:
    """Logits `(n, k)` of each embedding by a head fitted without its group; -inf for a label that only its fold has examples of."""
    given = examples(features, labels, names)
    fold = group_folds(groups, given.labels.cpu(), folds).to(given.labels.device)
    text = options.pop("text", None)
    logits = given.features.new_full((len(given.labels), len(given.names)), -float("inf"))
    for number in range(folds):
        rows = fold != number
        known = given.labels[rows].unique()
        if len(known) < 2:
            continue
        place = torch.full((len(names),), -1, device=known.device).index_copy(0, known, torch.arange(len(known), device=known.device))
        chosen = None if text is None else torch.as_tensor(text)[known.cpu()]
        head = fit(given.features[rows], place[given.labels[rows]], [given.names[k] for k in known], text=chosen, **options)
        logits[~rows] = logits[~rows].index_copy(1, known, head.logits(given.features[~rows]).to(logits))
    return logits


def fit_calibrated(fit: Callable[..., Head], features, labels, names: Sequence[str], groups: Sequence, *, folds: int = 5,
                   **options) -> Head:
    """`fit` on all examples, with the temperature of its out-of-fold logits: no image calibrates a head that has seen its group."""
    given = examples(features, labels, names)
    logits = out_of_fold(fit, features, labels, names, groups, folds=folds, **options)
    known = logits.gather(1, given.labels[:, None])[:, 0].isfinite()
    if not known.any():
        raise UserError("each label has examples of one group only, so nothing unseen is left to calibrate with; give it a second artist.")
    head = fit(features, labels, names, **options)
    return replace(head, temperature=head.temperature * calibration.temperature(logits[known], given.labels[known]))
