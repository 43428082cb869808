"""How good heads on real CLIP ViT-L/14@336 features are, beside simple baselines, with artists or prompts held out. No images, no network.

python -m benchmarks.features --data clip-features/ [--repeats 10] [--draws 20] [--only style,year,origin,ratings,shots] [--out x.json]
"""
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.labelled_features import Labelled, read
from probes import evaluation
from probes.atomic import write_text
from probes.heads import ape, gda, nearest_mean, stacked
from probes.reliability import Interval, accuracy, balanced_accuracy, rank_correlation, within


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


def style(nga: Labelled, repeats: int) -> dict:
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
                                   repeats=repeats, folds=5, inner=2)
        found[name] = done
    first, second = found.values()
    joined = evaluation.Evaluation(first.predictions | second.predictions, first.chosen | second.chosen, y, nga.artist)
    return {name: rows_of(joined, argmax(score), {"balanced accuracy": "nearest class mean", "accuracy": "RBF SVM"}[name])
            for name, score in (("balanced accuracy", balanced_accuracy), ("accuracy", accuracy))}


def year(nga: Labelled, repeats: int) -> dict:
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
    done = evaluation.evaluate(years, nga.artist, baselines | {"stacked": [head(2., 1.), head(4., 2.)]}, score=error(1), repeats=repeats,
                               folds=10, inner=2)
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


def origin(nga: Labelled, made: Labelled, repeats: int) -> dict:
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
    done = evaluation.evaluate(y, both.artist, candidates, score=auc, labels=y, repeats=repeats, folds=5, inner=2)
    return {"AUC": rows_of(done, auc, "logistic"),
            "accuracy": rows_of(done, lambda truth, read: accuracy(truth, margin(read) > 0), "logistic")}


def ratings(made: Labelled, repeats: int) -> dict:
    """What people said of images by models, prompts held out: rank correlation overall and within a prompt."""
    from sklearn.linear_model import Ridge
    found, prompts = {}, np.array(made.artist)
    known = np.stack([made.frame[name].to_numpy(float) for name in ("defects", "authenticity", "adherence")], 1)
    companions = np.concatenate([known, made.one_hot("generative_model", 1)], 1)
    for column, name in enumerate(("defects", "authenticity", "adherence")):
        shares = np.stack([1 - known[:, column], known[:, column]], 1)

        def votes(rows, influence, pull, shares=shares):
            head = stacked.fit(made.features[rows], shares[rows], ("no", "yes"), made.groups(rows), influence=influence, pull=pull,
                               balance=0., companions=companions[rows])
            return lambda held: head.probabilities(made.tensor[held])[:, 1].numpy()
        candidates = {"ridge": sklearn_fit(made, lambda: Ridge(1.), known[:, column]),
                      "votes, stacked": [lambda rows, i=i, p=p, votes=votes: votes(rows, i, p) for i, p in ((1., .3), (2., 1.))]}
        done = evaluation.evaluate(known[:, column], made.artist, candidates, score=rank_correlation, repeats=repeats, folds=10, inner=2)
        found[f"{name}, rho overall"] = rows_of(done, rank_correlation, "ridge", resamples=100)
        # Within a prompt: rho of each prompt first, since a resampled prompt is a prompt again.
        each = {key: np.stack([by_prompt(known[:, column], values, prompts) for values in part]) for key, part in done.predictions.items()}
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


def shots(nga: Labelled, draws: int) -> dict:
    """Few-shot style, 12 classes, artists halved anew in each draw; accuracy on the artists of the other half."""
    names, y, rows = nga.classes("style", 14)
    nga, found = nga.take(rows), {}
    fits = {"nearest class mean": lambda x, t: nearest_mean.fit(x, t, names), "GDA": lambda x, t: gda.fit(x, t, names),
            "APE": lambda x, t: ape.fit(x, t, names, alpha=5., weights=(.2, .8)), "APE-T": lambda x, t: ape.fit_residuals(x, t, names)}
    for count in (1, 2, 4, 8, 16):
        results = {name: [] for name in fits if count > 1 or name != "GDA"}  # one image a label has no spread
        for draw in range(draws):
            half = evaluation.splits(y, nga.artist, 2, draw)
            order = np.random.default_rng(draw).permutation(len(y))
            seen = order[half[order] == 0]
            train = np.concatenate([seen[y[seen] == k][:count] for k in range(len(names))])
            held = np.flatnonzero(half == 1)
            for name in results:
                guess = fits[name](nga.tensor[train], torch.from_numpy(y[train])).logits(nga.tensor[held]).argmax(1).numpy()
                results[name].append(accuracy(y[held], guess))
        base = np.array(results["nearest class mean"])
        found[f"{count} shots"] = {name: {"accuracy": float(np.mean(values)), "gain": float(np.mean(values - base)),
                                          "error of the gain over draws": float(np.std(values - base, ddof=1) / np.sqrt(draws))}
                                   for name, values in results.items()}
    return found


def rows_of(done: evaluation.Evaluation, score, baseline: str, resamples: int = 200) -> list[dict]:
    """The table as plain values."""
    def plain(value):
        return vars(value) if isinstance(value, Interval) else value
    return [{key: plain(value) for key, value in row.items()} for row in done.table(score, baseline=baseline, resamples=resamples)]


def main(data: Annotated[Path, typer.Option(help="Folder with nga.parquet and ai_pastiche.parquet.")], repeats: int = 10, draws: int = 20,
         only: str = "style,year,origin,ratings,shots", out: Path | None = None):
    nga, made = read(data / "nga.parquet", "artist"), read(data / "ai_pastiche.parquet", "prompt")
    parts = {"style": lambda: style(nga, repeats), "year": lambda: year(nga, repeats), "origin": lambda: origin(nga, made, repeats),
             "ratings": lambda: ratings(made, repeats), "shots": lambda: shots(nga, draws)}
    figures = {}
    for part in only.split(","):
        began = time.perf_counter()
        figures[part] = parts[part]()
        splits = f"{draws} draws" if part == "shots" else f"{repeats} repeats"
        print(f"\n{part}: {time.perf_counter() - began:.0f} s, {splits}", flush=True)
        show(figures[part])
        if out:
            write_text(out, json.dumps(figures, indent=1) + "\n")


def show(found: dict) -> None:
    for name, rows in found.items():
        print(f"  {name}")
        if isinstance(rows, dict):
            print("".join(f"    {key}: {value}\n" for key, value in rows.items()), end="")
            continue
        for row in rows:
            figure, gain = Interval(**row["figure"]), row["gain"]
            more = "".join(f" {key} {row[key]:.3f}" for key in ("slope", "spearman") if key in row)
            print(f"    {row['candidate']:28} {figure}{more}" + (f"  over {row['over']}: {Interval(**gain)}" if gain else ""))


if __name__ == "__main__":
    typer.run(main)
