"""How far a reading can be trusted: agreement with labels or people, calibration, intervals over groups, the sentence that says so."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from scipy import stats

from probes import calibration
from probes.errors import UserError

TOGETHER = "artists not kept apart"  # `held_out` of rows without groups
FEW = 30  # below this many groups a percentile interval over them is too short: 95 % claimed covers .88 with 8, .93 with 30


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval over groups; `method` says how it was found, and that it is rough where there are few groups."""

    value: float
    low: float
    high: float
    groups: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(mean: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate over that many trials, which need not be whole."""
    z = float(stats.norm.ppf(0.975))
    middle, half = mean + z * z / 2 / trials, z * sqrt(max(mean * (1 - mean), 0.0) / trials + z * z / 4 / trials**2)
    low, high = ((middle + side * half) / (1 + z * z / trials) for side in (-1, 1))
    return (0.0 if mean <= 0 else max(low, 0.0)), (1.0 if mean >= 1 else min(high, 1.0))


def interval(statistic: Callable[[np.ndarray], float], groups: Sequence[Hashable], *, level: float = .95, resamples: int = 400,
             seed: int = 0, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """`statistic(rows)` on all rows, with the percentile interval over resampled groups (an artist, a prompt: whole or not at all).

    Below `FEW` groups: Student's t on the delete-one-group jackknife instead, which is rough for statistics that are not means.
    Resamples on which the statistic is not defined (nan) are left out. `bounds`: what the statistic cannot leave, nor its interval. At one
    of them nothing varies, so neither says anything: there it is Wilson's over the groups, as for a share of 0 or 1.
    """
    members = _members(groups)
    count, tails = len(members), ((1 - level) / 2, (1 + level) / 2)
    whole = float(statistic(np.arange(len(groups))))
    if count < 2:
        return Interval(whole, np.nan, np.nan, count, "one group: no interval")
    if whole in bounds and np.isfinite(bounds).all():
        low, high = (bounds[0] + (bounds[1] - bounds[0]) * end for end in wilson(float(whole == bounds[1]), count))
        return Interval(whole, low, high, count, f"Wilson over {count} groups, among which nothing varies")
    if count < FEW:
        left_out = np.array([statistic(np.concatenate(members[:k] + members[k + 1:])) for k in range(count)])
        error = np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())
        half = stats.t.ppf(tails[1], count - 1) * error
        low, high = np.clip((whole - half, whole + half), *bounds)
        return Interval(whole, float(low), float(high), count, f"jackknife, Student's t over {count} groups: rough, they are few")
    rng = np.random.default_rng(seed)
    drawn = [statistic(np.concatenate([members[k] for k in rng.integers(count, size=count)])) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, tails)
    return Interval(whole, float(low), float(high), count, f"percentile bootstrap over {count} groups")


def accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Share of guesses `(n,)` that are right."""
    return float(np.mean(np.asarray(truth) == np.asarray(guess)))


def balanced_accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Mean over the labels that occur in `truth` of the share of theirs that is right."""
    truth, right = np.asarray(truth), np.asarray(truth) == np.asarray(guess)
    return float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))


def kappa(truth: np.ndarray, guess: np.ndarray, *, quadratic: bool = False) -> float:
    """Cohen's kappa of numbered labels, with quadratic weights for ordered ones: 1 full agreement, 0 chance; nan where chance is full."""
    truth, guess = np.asarray(truth, int), np.asarray(guess, int)
    k = int(max(truth.max(), guess.max())) + 1
    observed = np.zeros((k, k))
    np.add.at(observed, (truth, guess), 1 / len(truth))
    expected = np.outer(observed.sum(1), observed.sum(0))
    place = np.arange(k)
    cost = (place[:, None] - place) ** 2 if quadratic else place[:, None] != place
    chance = float((cost * expected).sum())
    return 1 - float((cost * observed).sum()) / chance if chance else float("nan")


def rank_correlation(truth: np.ndarray, read: np.ndarray, *, method: str = "spearman") -> float:
    """Spearman's rho or Kendall's tau-b; nan where one of them does not vary."""
    if np.ptp(truth) == 0 or np.ptp(read) == 0:
        return float("nan")
    return float((stats.spearmanr if method == "spearman" else stats.kendalltau)(truth, read).statistic)


def within(truth: np.ndarray, read: np.ndarray, groups: Sequence[Hashable], *, method: str = "spearman") -> float:
    """Rank correlation within each group (a prompt), averaged over the groups in which the truth varies: what is not the subject's.

    A group in which the reading does not vary counts as 0.
    """
    found = within_each(truth, read, groups, method=method)
    return float(np.mean(found)) if len(found) else float("nan")


def within_each(truth: np.ndarray, read: np.ndarray, groups: Sequence[Hashable], *, method: str = "spearman") -> np.ndarray:
    """The rank correlation within each group in which the truth varies."""
    truth, read = np.asarray(truth), np.asarray(read)
    return np.array([np.nan_to_num(rank_correlation(truth[rows], read[rows], method=method))
                     for rows in _members(groups) if np.ptp(truth[rows]) > 0])


def calibrated_band(probabilities: np.ndarray, *, bins: int = 15, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """The central 95 % of the calibration error that a perfectly calibrated head with these probabilities `(n, k)` would show."""
    rng, table = np.random.default_rng(seed), np.asarray(probabilities, float)
    cumulative = (table / table.sum(1, keepdims=True)).cumsum(1)
    values = torch.from_numpy(table)
    simulated = [(rng.random((len(table), 1)) > cumulative).sum(1).clip(max=table.shape[1] - 1) for _ in range(draws)]
    errors = [calibration.calibration_error(values, torch.from_numpy(truth), bins) for truth in simulated]
    low, high = np.quantile(errors, (.025, .975))
    return float(low), float(high)


def calibration_figures(probabilities: np.ndarray, truth: np.ndarray) -> dict:
    """`ece` with its `ece_band`, `nll` in nats and the `brier` score (sum over labels, 0 to 2) of `(n, k)` and numbered labels `(n,)`."""
    table, truth = np.asarray(probabilities, float), np.asarray(truth, int)
    low, high = calibrated_band(table)
    return {"ece": calibration.calibration_error(torch.from_numpy(table), torch.from_numpy(truth)), "ece_band": [low, high],
            "nll": float(-np.log(table[np.arange(len(truth)), truth].clip(1e-12)).mean()),
            "brier": float(((table - np.eye(table.shape[1])[truth]) ** 2).sum(1).mean())}


def confusions(truth: np.ndarray, guess: np.ndarray, labels: Sequence[str], top: int = 5) -> list[dict]:
    """The `top` ways to be wrong: `label`, `read_as`, and the `share` of the label that is."""
    found = [{"label": labels[a], "read_as": labels[b], "share": round(float(np.mean(guess[truth == a] == b)), 3),
              "images": int(np.sum(guess[truth == a] == b))}
             for a in np.unique(truth) for b in range(len(labels)) if a != b]
    return sorted((row for row in found if row["images"]), key=lambda row: -row["images"])[:top]


def of_labels(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str], groups: Sequence[Hashable], *, held_out: str,
              data: str, before: np.ndarray | None = None) -> dict:
    """The card's figures of out-of-fold probabilities `(n, k)`; `before`: the same uncalibrated. `held_out`: what a group is."""
    truth = np.asarray(truth, int)
    if not len(truth) == len(probabilities) == len(groups):
        raise UserError("each image needs probabilities, a label and a group.")
    guess = probabilities.argmax(1)
    found = {"data": data, "images": len(truth), "groups": len(set(groups)), "held_out": held_out, "labels": len(labels),
             "accuracy": vars(interval(lambda rows: accuracy(truth[rows], guess[rows]), groups, bounds=(0., 1.))),
             "balanced_accuracy": vars(interval(lambda rows: balanced_accuracy(truth[rows], guess[rows]), groups, bounds=(0., 1.))),
             "kappa": kappa(truth, guess),
             "recall": {labels[k]: round(float(np.mean(guess[truth == k] == k)), 3) for k in np.unique(truth)},
             "confusions": confusions(truth, guess, labels), "calibrated": calibration_figures(probabilities, truth)}
    return found | ({"uncalibrated": calibration_figures(before, truth)} if before is not None else {})


def of_numbers(read: np.ndarray, truth: np.ndarray, groups: Sequence[Hashable], *, held_out: str, data: str, unit: str,
               inside: Sequence[Hashable] | None = None, steps: np.ndarray | None = None) -> dict:
    """The card's figures of out-of-fold numbers `(n,)`. `inside`: also rank correlation within these; `steps`: edges for ordered kappa."""
    read, truth = np.asarray(read, float), np.asarray(truth, float)
    found = {"data": data, "images": len(truth), "groups": len(set(groups)), "held_out": held_out, "unit": unit,
             "mae": vars(interval(lambda rows: float(np.abs(read[rows] - truth[rows]).mean()), groups, bounds=(0., np.inf))),
             "mae_of_median": float(np.abs(truth - np.median(truth)).mean()),
             "slope": float(np.polyfit(truth, read, 1)[0])}
    for method in ("spearman", "kendall"):
        found[method] = rank_correlation(truth, read, method=method)
        if inside is not None:
            found[f"{method}_within"] = within(truth, read, inside, method=method)
    if inside is not None:
        each = within_each(truth, read, inside)
        found["spearman_within_interval"] = vars(interval(lambda rows: float(each[rows].mean()), range(len(each))))
    if steps is not None:
        placed = [np.digitize(values, steps) for values in (truth, read)]
        found |= {"within_one_step": float(np.mean(np.abs(placed[0] - placed[1]) <= 1)), "quadratic_kappa": kappa(*placed, quadratic=True)}
    return found


def by_chance(found: dict) -> str:
    """That the figures of `of_labels` or `of_numbers` are those of chance, in words; empty where they are better."""
    if "accuracy" in found:
        chance, figure = 1 / found["labels"], found["balanced_accuracy"]
        least = figure["value"] if np.isnan(figure["low"]) else figure["low"]  # one group has no interval
        return "" if least > chance else f"no better than chance ({chance:.2f})"
    return "" if found["mae"]["value"] < found["mae_of_median"] else "no better than always guessing the median"


def sentence(found: dict, what: str = "images") -> str:
    """One sentence for the card's `reliability`, from `of_labels` or `of_numbers`; `what` the rows are."""
    apart = found["held_out"] != TOGETHER
    who = found["held_out"] if apart else what
    on = f"on {found['images']} {what} of {found['data']}" + (f" by {found['groups']} {who}" if apart else f", {TOGETHER}")
    chance = f"; {by_chance(found)}" if by_chance(found) else ""
    if "accuracy" in found:
        figure, after = found["balanced_accuracy"], found["calibrated"]
        return (f"balanced accuracy {figure['value']:.2f} (95 % over {who} {figure['low']:.2f}-{figure['high']:.2f}) over "
                f"{found['labels']} labels {on}, ECE {after['ece']:.3f} (a perfect one would show "
                f"{after['ece_band'][0]:.3f}-{after['ece_band'][1]:.3f}){chance}")
    figure, extra = found["mae"], f", {found['spearman_within']:.2f} within" if "spearman_within" in found else ""
    precise = 0 if found["unit"] == "years" else 2
    return (f"mean error {figure['value']:.{precise}f} {found['unit']} (95 % over {who} {figure['low']:.{precise}f}-"
            f"{figure['high']:.{precise}f}; guessing the median errs {found['mae_of_median']:.{precise}f}) {on}, rank correlation "
            f"{found['spearman']:.2f}{extra}{chance}")


def _members(groups: Sequence[Hashable]) -> list[np.ndarray]:
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(found) for found in rows.values()]
