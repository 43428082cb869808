"""Fitting a head to labelled embeddings, and what it is worth on groups it has not seen: one split for both, no group on two sides."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from probes import calibration, reliability
from probes.config import offer
from probes.errors import UserError
from probes.heads import kernel_ridge, ordinal
from probes.heads.catalogue import HEADS
from probes.heads.folds import group_folds, out_of_fold
from probes.heads.head import Head, YearHead
from probes.labelled import Labelled

YEAR_HEADS = {"ordinal": ordinal, "kernel-ridge": kernel_ridge}
AUTO = ("nearest-mean", "gda", "linear")
INNER = 4


@dataclass(frozen=True, eq=False)
class Unseen:
    """Readings `(n, k)` of n rows by heads that had not seen their group, and which head read each: `chosen` `(n,)`."""

    probabilities: np.ndarray
    truth: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    chosen: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Whether the first label is the true one `(n,)`."""
        return self.probabilities.argmax(1) == self.truth

    def confusion(self) -> np.ndarray:
        """Counts `(k, k)`: true labels down, read ones across."""
        table = np.zeros((len(self.names), len(self.names)), int)
        np.add.at(table, (self.truth, self.probabilities.argmax(1)), 1)
        return table

    def metrics(self, grouped: str, data: str) -> dict:
        """The card's figures, see `reliability.of_labels`; `grouped` is the column of groups, empty for none."""
        groups = self.groups.tolist()
        return reliability.of_labels(self.probabilities, self.truth, self.names, groups, held_out=held_out(grouped), data=data)


def candidates(text: str) -> tuple[str, ...]:
    """Heads by name: `gda`, `gda,linear`, or `auto` for three that are quick and need no text."""
    wanted = AUTO if text == "auto" else [part.strip() for part in text.split(",")]
    names = tuple(dict.fromkeys(name for name in wanted if name))
    unknown = [name for name in names if name not in HEADS and name not in YEAR_HEADS]
    if unknown or not names:
        raise UserError(f"there is no head {(unknown or [text])[0]!r}{offer([*HEADS, *YEAR_HEADS], complete=True)}.")
    return names


def fit(data: Labelled, names: Sequence[str], text: Tensor | None = None, folds: int = 5) -> tuple[Head, str, dict[str, float]]:
    """The head of `names` that reads unseen groups best, fitted to all rows and calibrated out of group; its name, and each one's figure.

    The figures are balanced accuracies that the choice was made by, so the best of them is too good: `unseen` has the honest one.
    """
    features, truth, labels = _tensors(data)
    figures, best = {}, None
    for name in _label_heads(names):
        logits = out_of_fold(HEADS[name], features, truth, labels, data.groups, folds=_folds(data.groups, folds), text=text)
        figures[name] = _balanced(logits, truth)
        if best is None or figures[name] > figures[best[0]]:
            best = name, _temperature(logits, truth)
    name, temperature = best
    head = HEADS[name](features, truth, labels, text=text)
    return replace(head, temperature=head.temperature * temperature), name, figures


def unseen(data: Labelled, names: Sequence[str], text: Tensor | None = None, folds: int = 5) -> Unseen:
    """Every row read by the head that `fit` gives without the row's group: where there is a choice, it is made anew in each fold."""
    features, truth, labels = _tensors(data)
    fold = group_folds(data.groups, truth, _folds(data.groups, folds))
    probabilities, chosen = np.zeros((len(truth), len(labels))), []
    for number in range(int(fold.max()) + 1):
        inside, outside = (fold != number).numpy(), (fold == number).numpy()
        part = data.take(inside)
        known = [labels.index(name) for name in labels if name in set(part.labels.tolist())]
        if len(known) < 2:
            raise UserError("the groups are too few: without one of them fewer than two labels are left; label more groups.")
        head, name, _ = fit(part, names, None if text is None else text[known], INNER)
        place = [labels.index(label) for label in head.labels]
        rows = np.flatnonzero(outside)
        probabilities[np.ix_(rows, place)] = head.probabilities(features[rows]).double().numpy()
        chosen.append(name)
    return Unseen(probabilities, truth.numpy(), data.groups, labels, tuple(chosen))


def fit_years(data: Labelled, name: str, folds: int = 5) -> YearHead:
    """A head over years, fitted to all groups but one fold's and recalibrated on that."""
    features, years = torch.from_numpy(data.features), torch.from_numpy(data.years())
    held = group_folds(data.groups, folds=_folds(data.groups, folds)) == 0
    head = YEAR_HEADS[name].fit(features[~held], years[~held])
    return YEAR_HEADS[name].recalibrate(head, features[held], years[held])


def unseen_years(data: Labelled, name: str, folds: int = 5) -> np.ndarray:
    """The year of every row `(n,)` by a head that had not seen its group."""
    fold, found = group_folds(data.groups, folds=_folds(data.groups, folds)).numpy(), np.zeros(len(data))
    for number in range(fold.max() + 1):
        head = fit_years(data.take(fold != number), name, INNER)
        found[fold == number] = head.expected(torch.from_numpy(data.features[fold == number])).double().numpy()
    return found


def year_metrics(read: np.ndarray, data: Labelled, name: str) -> dict:
    """The card's figures of years `(n,)` read of groups not seen, see `reliability.of_numbers`; `name` is the data's."""
    return reliability.of_numbers(read, data.years(), data.groups.tolist(), held_out=held_out(data.group), data=name, unit="years")


def held_out(grouped: str) -> str:
    """What no head had seen, in words: without groups an artist may be on both sides, so the figures are too good."""
    return f"unseen {grouped}s" if grouped else reliability.TOGETHER


def _label_heads(names: Sequence[str]) -> Sequence[str]:
    years = [name for name in names if name not in HEADS]
    if years:
        raise UserError(f"the head {years[0]} reads years and these labels are none; choose {', '.join(HEADS)}.")
    return names


def _tensors(data: Labelled) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    labels = tuple(sorted(data.classes))
    return torch.from_numpy(data.features), torch.tensor([labels.index(label) for label in data.labels]), labels


def _folds(groups: np.ndarray, folds: int) -> int:
    count = len(set(groups.tolist()))
    if count < 2:
        raise UserError("all pictures belong to one group, so nothing unseen is left to check with; label the work of a second artist.")
    return min(folds, count)


def _balanced(logits: Tensor, truth: Tensor) -> float:
    right = (logits.argmax(1) == truth).double()
    return float(np.mean([float(right[truth == k].mean()) for k in truth.unique()]))


def _temperature(logits: Tensor, truth: Tensor) -> float:
    known = logits.gather(1, truth[:, None])[:, 0].isfinite()
    if not known.any():
        raise UserError("each label has examples of one group only, so nothing unseen is left to check with; "
                        "give each label a second artist.")
    return calibration.temperature(logits[known], truth[known])
