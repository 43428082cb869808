"""Comparing heads on labelled embeddings: repeated folds that keep a group together, options chosen inside them, paired gains.

Nothing of a test fold reaches a head: an option (a penalty, a width) is chosen by folds of the training rows, groups kept together again.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from probes.atomic import replacing
from probes.errors import UserError
from probes.reliability import Interval, interval

Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray], Predict]  # rows to fit on -> (rows to read -> predictions (n, ...))
Score = Callable[[np.ndarray, np.ndarray], float]  # truth, predictions -> a figure, higher is better


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Out-of-fold `predictions[name]` `(repeats, n, ...)` of each candidate and which option each fold `chosen[name]`."""

    predictions: dict[str, np.ndarray]
    chosen: dict[str, list[int]]
    truth: np.ndarray
    groups: tuple[Hashable, ...]

    def mean(self, name: str, score: Score, rows: np.ndarray | None = None) -> float:
        """The score of a candidate, averaged over the repeats."""
        rows = np.arange(len(self.truth)) if rows is None else rows
        return float(np.mean([score(self.truth[rows], found[rows]) for found in self.predictions[name]]))

    def figure(self, name: str, score: Score, *, resamples: int = 400) -> Interval:
        """That score with its interval over groups."""
        return interval(lambda rows: self.mean(name, score, rows), self.groups, resamples=resamples)

    def gain(self, name: str, over: str, score: Score, *, resamples: int = 400) -> Interval:
        """Score of `name` minus that of `over` on the same splits and the same resampled groups, with its interval."""
        return interval(lambda rows: self.mean(name, score, rows) - self.mean(over, score, rows), self.groups, resamples=resamples)

    def table(self, score: Score, *, baseline: str | None = None, resamples: int = 400) -> list[dict]:
        """A row per candidate, best first: figure, spread over repeats, and the gain over `baseline` (the best other, where None)."""
        means = {name: self.mean(name, score) for name in self.predictions}
        order = sorted(means, key=means.get, reverse=True)
        rows = []
        for name in order:
            other = baseline if baseline is not None else next((found for found in order if found != name), None)
            spread = float(np.std([score(self.truth, found) for found in self.predictions[name]]))
            gain = self.gain(name, other, score, resamples=resamples) if other and other != name else None
            rows.append({"candidate": name, "figure": self.figure(name, score, resamples=resamples), "spread_over_splits": spread,
                         "over": other if gain else None, "gain": gain})
        return rows


def splits(labels: np.ndarray | None, groups: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """A fold `(n,)` for each row: groups in a shuffled order, then the largest first, each where its labels are wanted most.

    `labels` None: folds of even size. UserError for fewer groups than folds.
    """
    names, group = np.unique([str(name) for name in groups], return_inverse=True)
    if folds < 2 or len(names) < folds:
        raise UserError(f"{folds} folds need at least as many groups (artists, prompts), and there are {len(names)}.")
    kinds = np.zeros(len(group), int) if labels is None else np.unique(labels, return_inverse=True)[1]
    counts = np.zeros((len(names), kinds.max() + 1))
    np.add.at(counts, (group, kinds), 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled].std(1) if counts.shape[1] > 1 else -counts[shuffled].sum(1), kind="stable")]
    held, placed, total = np.zeros((folds, counts.shape[1])), np.zeros(len(names), int), counts.sum(0)
    for index in order:
        # Spread of each label's shares over the folds, if this group came to fold f; the smallest fold among equals.
        added = (held[:, None] + np.eye(folds)[:, :, None] * counts[index]).swapaxes(0, 1) / total
        uneven = added.std(1).mean(1)
        placed[index] = np.lexsort((held.sum(1), uneven.round(12)))[0]
        held[placed[index]] += counts[index]
    return placed[group]


def selected(options: Sequence[Fit], truth: np.ndarray, groups: Sequence[Hashable], rows: np.ndarray, score: Score, *, labels=None,
             folds: int = 3, seed: int = 0) -> int:
    """Which of the options predicts `rows` best by folds of these rows alone."""
    if len(options) == 1:
        return 0
    fold = splits(None if labels is None else labels[rows], [groups[row] for row in rows], folds, seed)
    figures = []
    for fit in options:
        parts = [(rows[fold == number], fit(rows[fold != number])(rows[fold == number])) for number in range(folds)]
        held, read = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        figures.append(score(truth[held], read))
    return int(np.nanargmax(figures))


def evaluate(truth: np.ndarray, groups: Sequence[Hashable], candidates: Mapping[str, Fit | Sequence[Fit]], *, score: Score,
             labels: np.ndarray | None = None, repeats: int = 10, folds: int = 5, inner: int = 3, seed: int = 0,
             kept: Path | None = None, on_split: Callable[[], None] = lambda: None) -> Evaluation:
    """Out-of-fold predictions of each candidate, a `Fit` or several to choose from inside the training folds by `score`.

    `labels`: stratify by them. A `Fit` takes the rows to fit on and returns what predicts other rows, so it may use whatever is known of
    its rows: labels, groups, companions. Splits are the same for all candidates; repeat r uses seed + r.
    `kept`: a folder in which each repeat of a candidate is stored when it is done, and looked for first; what a `Fit` does is not part of
    a file's name, so another code or other features need another folder. `on_split` is called after each of them that was computed.
    """
    truth, found, chosen = np.asarray(truth), {name: [] for name in candidates}, {name: [] for name in candidates}
    if len(truth) != len(groups):
        raise UserError(f"there are {len(truth)} labels and {len(groups)} groups; each row needs both.")
    for repeat in range(repeats):
        fold = splits(labels, groups, folds, seed + repeat)
        for name, candidate in candidates.items():
            options = [candidate] if callable(candidate) else list(candidate)
            stored = kept and kept / f"{_digest(name, len(options), truth, tuple(map(str, groups)), fold, inner, seed + repeat)}.npz"
            if stored and stored.is_file():
                with np.load(stored) as file:
                    part, best = file["part"], file["best"].tolist()
            else:
                part, best = _repeat(options, truth, groups, fold, folds, score, labels, inner, seed + repeat)
                if stored:
                    with replacing(stored) as partial, partial.open("wb") as file:
                        np.savez(file, part=part, best=np.array(best))
                on_split()
            found[name].append(part)
            chosen[name] += best
    return Evaluation({name: np.stack(part) for name, part in found.items()}, chosen, truth, tuple(groups))


def _repeat(options, truth, groups, fold, folds, score, labels, inner, seed) -> tuple[np.ndarray, list[int]]:
    """Predictions `(n, ...)` of every row by what is chosen and fitted without its fold, and what was chosen in each."""
    part, chosen = None, []
    for number in range(folds):
        rows, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        chosen.append(selected(options, truth, groups, rows, score, labels=labels, folds=inner, seed=seed))
        read = np.asarray(options[chosen[-1]](rows)(held))
        part = np.zeros((len(truth), *read.shape[1:]), read.dtype) if part is None else part
        part[held] = read
    return part, chosen


def _digest(*parts) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) and part.dtype != object else repr(part).encode())
        digest.update(b";")
    return digest.hexdigest()[:16]
