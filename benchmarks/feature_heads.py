"""Heads beside simple baselines on published CLIP features: what is compared, by which splits, chosen by what.

Each function takes the features and a `Run` and returns rows of `benchmarks.features`. Options of a candidate are chosen inside the
training folds.
"""
from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.labelled_features import Labelled
from probes import evaluation
from probes.atomic import replacing
from probes.heads import ape, gda, nearest_mean, relative, stacked
from probes.reliability import Interval, accuracy, balanced_accuracy, rank_correlation, within

SHOTS = (1, 2, 4, 8, 16)


class OutOfTime(Exception):
    """The time of this call is spent; what it has done is kept."""


@dataclass(frozen=True)
class Run:
    """How many repeated splits (or draws), the folder of those that are done, and when to stop (`time.monotonic`)."""

    repeats: int
    kept: Path | None
    until: float = float("inf")

    @property
    def options(self) -> dict:
        """For `evaluation.evaluate`."""
        return {"repeats": self.repeats, "kept": self.kept, "on_split": self.check}

    def check(self) -> None:
        """Called after each split. OutOfTime where the next one has to wait for another call."""
        if time.monotonic() > self.until:
            raise OutOfTime


def digest(part: Callable, *files: Path) -> str:
    """Of the data and of the code that decides what a split of `part` gives: results of other ones are not taken for these."""
    own = (Path(module.__file__) for module in (evaluation, ape, gda, nearest_mean, relative, stacked))
    found = hashlib.sha256(inspect.getsource(part).encode())
    for file in (*files, *own):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def head_fit(labelled: Labelled, fit: Callable, output: str = "logits") -> evaluation.Fit:
    """A `Fit` of a head: `fit(rows)` makes it, `output` names what is read."""
    def fitted(rows):
        head = fit(rows)
        return lambda held: getattr(head, output)(labelled.tensor[held]).numpy()
    return fitted


def sklearn_fit(labelled: Labelled, make: Callable, target: np.ndarray, output: str = "predict") -> evaluation.Fit:
    """A `Fit` of a scikit-learn model of the embeddings."""
    def fitted(rows):
        model = make().fit(labelled.features[rows], target[rows])
        return lambda held: getattr(model, output)(labelled.features[held])
    return fitted


def argmax(score: Callable) -> evaluation.Score:
    return lambda truth, logits: score(truth, logits.argmax(-1))


def style(nga: Labelled, run: Run) -> dict:
    """11 styles of at least 15 works; artists held out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC
    names, y, rows = nga.classes("style", 15)
    nga = nga.take(rows)
    dated = ((nga.years - nga.years.mean()) / nga.years.std())[:, None]

    def head(balance, pull, companions=None, influence=1.):
        return head_fit(nga, lambda rows: stacked.fit(nga.features[rows], y[rows], names, nga.groups(rows), influence=influence, pull=pull,
                                                      balance=balance, companions=None if companions is None else companions[rows]))

    def plain(**options):
        return sklearn_fit(nga, lambda: LogisticRegression(max_iter=300, **options), y, "decision_function")
    logistic = {"logistic": plain(C=10), "logistic, weighted": plain(C=10, class_weight="balanced")}
    others = {"nearest class mean": head_fit(nga, lambda rows: nearest_mean.fit(nga.tensor[rows], y[rows], names)),
              "GDA": head_fit(nga, lambda rows: gda.fit(nga.tensor[rows], y[rows], names)),
              "RBF SVM": sklearn_fit(nga, lambda: SVC(C=10), y, "decision_function")}
    found = {}
    operating = (("balanced accuracy", balanced_accuracy, [head(1., 1., dated, 2.), head(1., 2., dated, 2.)]),
                 ("accuracy", accuracy, [head(.5, 1.), head(.5, 2.)]))
    for name, score, options in operating:
        baselines = logistic | others if not found else {}
        done = evaluation.evaluate(y, nga.artist, baselines | {f"stacked, for {name}": options}, score=argmax(score), labels=y,
                                   folds=5, inner=2, **run.options)
        found[name] = done
    first, second = found.values()
    joined = evaluation.Evaluation(first.predictions | second.predictions, first.chosen | second.chosen, y, nga.artist)
    return {name: rows_of(joined, argmax(score), {"balanced accuracy": "nearest class mean", "accuracy": "RBF SVM"}[name])
            for name, score in (("balanced accuracy", balanced_accuracy), ("accuracy", accuracy))}


def year(nga: Labelled, run: Run) -> dict:
    """The middle of the span that dates a work; 10 folds, artists held out. Readings: mean over spans, median, and the mean stretched."""
    from sklearn.linear_model import Ridge
    from sklearn.svm import SVR
    years, named = nga.years, nga.one_hot("style", 7)

    def head(influence, pull):
        def fitted(rows):
            made = stacked.fit_bins(nga.features[rows], years[rows], nga.groups(rows), companions=named[rows], influence=influence,
                                    pull=pull)

            def read(held):
                p, centres = made.probabilities(nga.tensor[held]).numpy(), made.centres.numpy()
                return np.stack([p @ centres, centres[(p.cumsum(1) < .5).sum(1).clip(max=len(centres) - 1)]], 1)
            return read
        return fitted

    def one(make):
        fit = sklearn_fit(nga, make, years)
        return lambda rows: (lambda predict: lambda held: np.stack([predict(held)] * 2, 1))(fit(rows))
    baselines = {"ridge": one(lambda: Ridge(1.)), "RBF SVR": one(lambda: SVR(gamma=1.5, C=200, epsilon=5))}

    def error(column):
        return lambda truth, read: -float(np.abs(read[..., column] - truth).mean())
    done = evaluation.evaluate(years, nga.artist, baselines | {"stacked": [head(2., 1.), head(4., 2.)]}, score=error(1),
                               folds=10, inner=2, **run.options)
    slope = stretched(done, "stacked", years, nga.artist)
    parts = {"ridge": done.predictions["ridge"][..., 0], "RBF SVR": done.predictions["RBF SVR"][..., 0],
             "stacked, mean": done.predictions["stacked"][..., 0], "stacked, median": done.predictions["stacked"][..., 1],
             "stacked, median, stretched": slope}
    flat = evaluation.Evaluation(parts, done.chosen, years, nga.artist)
    rows = rows_of(flat, lambda truth, read: -float(np.abs(read - truth).mean()), "RBF SVR")
    for row in rows:
        found = parts[row["candidate"]]
        row["slope"] = float(np.mean([np.polyfit(years, values, 1)[0] for values in found]))
        row["spearman"] = float(np.mean([rank_correlation(years, values) for values in found]))
    return {"minus MAE in years": rows}


def stretched(done: evaluation.Evaluation, name: str, years: np.ndarray, groups: tuple) -> np.ndarray:
    """The median, stretched about the mean by the slope of predicted on true of the other half of the artists (cross-fitted)."""
    out = done.predictions[name][..., 1].copy()
    for repeat, values in enumerate(out):
        half, plain = evaluation.splits(None, groups, 2, 1000 + repeat), values.copy()
        for side in (0, 1):
            slope, middle = np.polyfit(years[half != side], plain[half != side], 1)[0], plain[half != side].mean()
            values[half == side] = middle + (plain[half == side] - middle) / slope
    return out


def origin(nga: Labelled, made: Labelled, run: Run) -> dict:
    """By a person or by a model, 953 + 953; artists and prompts held out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    both = nga.beside(made)
    y = np.r_[np.zeros(len(nga.features), int), np.ones(len(made.features), int)]
    candidates = {"logistic": sklearn_fit(both, lambda: LogisticRegression(max_iter=300), y, "decision_function"),
                  "stacked": [head_fit(both, lambda rows, pull=pull: stacked.fit(both.features[rows], y[rows], ("person", "model"),
                                                                                 both.groups(rows), pull=pull, influence=2.))
                              for pull in (.1, .3)]}
    def margin(read):
        return read if read.ndim == 1 else read[:, 1] - read[:, 0]
    def auc(truth, read):
        return roc_auc_score(truth, margin(read))
    done = evaluation.evaluate(y, both.artist, candidates, score=auc, labels=y, folds=5, inner=2, **run.options)
    return {"AUC": rows_of(done, auc, "logistic"),
            "accuracy": rows_of(done, lambda truth, read: accuracy(truth, margin(read) > 0), "logistic")}


def ratings(made: Labelled, run: Run) -> dict:
    """What people said of images by models, prompts held out: rank correlation overall and within a prompt, by which options are chosen.

    `relative` reads a picture beside the others of its prompt (`probes/heads/relative.py`); all others read it alone.
    """
    from sklearn.linear_model import Ridge
    from sklearn.svm import SVR
    found, prompts = {}, np.array(made.artist)
    code = np.unique(prompts, return_inverse=True)[1]
    known = np.stack([made.frame[name].to_numpy(float) for name in ("defects", "authenticity", "adherence")], 1)
    companions, makers = np.concatenate([known, made.one_hot("generative_model", 1)], 1), made.words("generative_model")
    for column, name in enumerate(("defects", "authenticity", "adherence")):
        truth, fits = known[:, column], {}
        shares = np.stack([1 - truth, truth], 1)

        def votes(rows, influence, pull, shares=shares, fits=fits):
            key = rows.tobytes(), influence, pull
            if key not in fits:
                fits[key] = stacked.fit(made.features[rows], shares[rows], ("no", "yes"), made.groups(rows), influence=influence, pull=pull,
                                        balance=0., companions=companions[rows])
            return fits[key]

        def alone(rows, influence, pull, votes=votes):
            return lambda held: votes(rows, influence, pull).probabilities(made.tensor[held])[:, 1].numpy()

        def beside(rows, share, votes=votes, truth=truth, fits=fits):
            key = rows.tobytes()
            if key not in fits:
                fits[key] = relative.fit(made.tensor[rows], truth[rows], made.groups(rows), makers[rows], own=votes(rows, 1., .3))
            head = replace(fits[key], share=share)
            return lambda held: head.read(made.tensor[held], made.groups(held)).numpy()

        def inside(truth, read):
            return float(np.nanmean(by_prompt(truth[:, 0], read, truth[:, 1])))
        candidates = {"ridge": sklearn_fit(made, lambda: Ridge(1.), truth),
                      "RBF SVR": sklearn_fit(made, lambda: SVR(gamma=1., C=.3, epsilon=.1), truth),
                      "votes, stacked": [partial(alone, influence=i, pull=p) for i, p in ((1., .3), (2., 1.))],
                      "relative": [partial(beside, share=share) for share in (.5, 1., 2.)]}
        done = evaluation.evaluate(np.stack([truth, code], 1), made.artist, candidates, score=inside, folds=10, inner=2, **run.options)
        overall = evaluation.Evaluation({key: part for key, part in done.predictions.items() if key != "relative"}, done.chosen, truth,
                                        done.groups)
        found[f"{name}, rho overall"] = rows_of(overall, rank_correlation, "ridge", resamples=100)
        # Within a prompt: rho of each prompt first, since a resampled prompt is a prompt again.
        each = {key: np.stack([by_prompt(truth, values, prompts) for values in part]) for key, part in done.predictions.items()}
        names = np.unique(prompts)
        kept = np.isfinite(next(iter(each.values()))[0])
        flat = evaluation.Evaluation({key: part[:, kept] for key, part in each.items()}, done.chosen, np.zeros(kept.sum()),
                                     tuple(names[kept]))
        found[f"{name}, rho within prompt"] = rows_of(flat, lambda truth, read: float(read.mean()), "ridge")
    defects, count = known[:, 0], 8
    noise = float((defects * (1 - defects) / (count - 1)).mean())
    spread = sum(((defects[prompts == p] - defects[prompts == p].mean()) ** 2).sum() for p in np.unique(prompts))
    spread /= len(defects) - len(np.unique(prompts))
    found["defects, ceiling within prompt"] = {"variance within a prompt": float(spread), "of it by chance of 8 votes": noise,
                                               "highest correlation with the mean of 8": float(np.sqrt(max(0., 1 - noise / spread)))}
    return found


def by_prompt(truth: np.ndarray, read: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    return np.array([within(truth[prompts == p], read[prompts == p], [p] * int((prompts == p).sum())) for p in np.unique(prompts)])


def shots(nga: Labelled, run: Run) -> dict:
    """Few-shot style, 12 classes, artists halved anew in each draw; accuracy on the artists of the other half."""
    names, y, rows = nga.classes("style", 14)
    nga, found = nga.take(rows), {}
    fits = {"nearest class mean": lambda x, t: nearest_mean.fit(x, t, names), "GDA": lambda x, t: gda.fit(x, t, names),
            "APE": lambda x, t: ape.fit(x, t, names, alpha=5., weights=(.2, .8)), "APE-T": lambda x, t: ape.fit_residuals(x, t, names)}
    draws = np.stack([_draw(nga, y, names, fits, draw, run) for draw in range(run.repeats)])  # (draws, counts, heads)
    for place, count in enumerate(SHOTS):
        gain = draws[:, place] - draws[:, place, :1]
        found[f"{count} shots"] = {name: {"accuracy": float(draws[:, place, k].mean()), "gain": float(gain[:, k].mean()),
                                          "error of the gain over draws": float(gain[:, k].std(ddof=1) / np.sqrt(len(draws)))}
                                   for k, name in enumerate(fits) if np.isfinite(draws[:, place, k]).all()}
    return found


def _draw(nga: Labelled, y: np.ndarray, names: tuple[str, ...], fits: dict[str, Callable], draw: int, run: Run) -> np.ndarray:
    """Accuracies `(counts, heads)` of one draw; NaN where a head cannot be fitted: one image a label has no spread."""
    stored = run.kept and run.kept / f"shots-{draw}.npy"
    if stored and stored.is_file():
        return np.load(stored)
    half, found = evaluation.splits(y, nga.artist, 2, draw), np.full((len(SHOTS), len(fits)), np.nan)
    order, held = np.random.default_rng(draw).permutation(len(y)), np.flatnonzero(half == 1)
    seen = order[half[order] == 0]
    for place, count in enumerate(SHOTS):
        train = np.concatenate([seen[y[seen] == k][:count] for k in range(len(names))])
        for k, (name, fit) in enumerate(fits.items()):
            if count > 1 or name != "GDA":
                guess = fit(nga.tensor[train], torch.from_numpy(y[train])).logits(nga.tensor[held]).argmax(1).numpy()
                found[place, k] = accuracy(y[held], guess)
    if stored:
        with replacing(stored) as partial, partial.open("wb") as file:
            np.save(file, found)
    run.check()
    return found


def rows_of(done: evaluation.Evaluation, score, baseline: str, resamples: int = 200) -> list[dict]:
    """The table as plain values."""
    def plain(value):
        return vars(value) if isinstance(value, Interval) else value
    return [{key: plain(value) for key, value in row.items()} for row in done.table(score, baseline=baseline, resamples=resamples)]
