"""What each arm does, from the rows of a comparison alone: paired differences with intervals and tests, rates, diversity, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan

import numpy as np
import pandas as pd

from guide.comparing import diversity
from guide.comparing.significance import Needed, holm, needed, signed_rank, significant, wins
from guide.statistics import Interval, mean_difference, ratio

ALL = "all"
PAIR = ["model", "setting_steps", "guidance_scale", "style", "named", "prompt", "seed"]
LOOKS = ("saturation", "contrast", "high_frequency")
SAME = ("ms_ssim", "feature_distance", "lpips")
COSTS = ("seconds", "compute_seconds", "denoiser_calls", "encoder_calls", "decodes", "peak_memory")
PROMPT_ALONE = ("unguided", "cfg", "apg", "interval")


@dataclass(frozen=True)
class Pairs:
    """Rows of one arm beside the rows of another at the same style, words, prompt and seed."""

    frame: pd.DataFrame

    @property
    def prompts(self) -> list[tuple]:
        """What the pairs are clustered by: a prompt of a style, in one setting."""
        return list(self.frame[PAIR[:-1]].itertuples(index=False, name=None))

    def difference(self, column: str) -> np.ndarray:
        if column not in self.frame:
            return np.full(len(self.frame), nan)
        return self.values(column) - self.values(f"{column}_other")

    def values(self, column: str) -> np.ndarray:
        return self.frame[column].astype("float64").to_numpy(na_value=nan) if column in self.frame else np.full(len(self.frame), nan)


def paired(rows: pd.DataFrame, arm: str, other: str | None = None) -> Pairs:
    """The arm's rows beside those of `other`, or of its own baseline."""
    own = rows[rows["arm"] == arm]
    against = rows[rows["arm"] == (other or own["baseline"].iloc[0])] if len(own) else own
    return Pairs(own.merge(against, on=PAIR, suffixes=("", "_other")))


@dataclass(frozen=True)
class Contrast:
    """One measure of one arm against another: mean difference with interval, its p and Wilcoxon's, both after Holm; win rate."""

    difference: Interval
    wilcoxon: float = nan
    adjusted: float = nan
    wilcoxon_adjusted: float = nan
    wins: Interval | None = None
    needed: Needed | None = None

    @property
    def significant(self) -> bool:
        return significant(self.adjusted, self.difference)


@dataclass(frozen=True)
class Effect:
    """One arm in one scope. `contrasts` by measure are against `baseline`; `against_best` is the first judge's log-odds against the
    best-of arm of the same seconds; `means` are the arm's own; `transfer` is judge's gain / guide's gain by judge, undefined where the
    guide's interval contains 0; `recall` the first judge's own on real paintings of the style."""

    style: str
    named: bool
    setting: str
    arm: str
    strategy: str
    strength: float
    baseline: str
    chosen: bool
    images: int
    prompts: int
    means: dict[str, float]
    recall: float | None
    contrasts: dict[str, Contrast] = field(default_factory=dict)
    transfer: dict[str, Interval] = field(default_factory=dict)
    rival: str = ""
    against_best: Contrast | None = None

    @property
    def source(self) -> str:
        """Where the style comes from: neither, prompt, guidance, selection (best-of steers nothing), or the prompt with one of these."""
        if self.strategy in PROMPT_ALONE:
            return "prompt" if self.named else "neither"
        if self.strategy == "best-of":
            return "prompt and selection" if self.named else "selection"
        return "both" if self.named else "guidance"


def contrast(values: Sequence[float], prompts: Sequence[tuple], rate: bool = False, duel: bool = True) -> Contrast:
    """The tests of one set of paired differences; what is adjusted follows once the family is known. `duel`: with win rate and seeds."""
    bounds = (-1.0, 1.0) if rate else (-np.inf, np.inf)
    found = Contrast(mean_difference(values, prompts, bounds=bounds), signed_rank(values, prompts))
    return replace(found, wins=wins(values, prompts), needed=needed(values, prompts)) if duel else found


def corrected(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The family with Holm's correction."""
    p, ranks = holm([one.difference.p for one in contrasts]), holm([one.wilcoxon for one in contrasts])
    return [replace(one, adjusted=a, wilcoxon_adjusted=b) for one, a, b in zip(contrasts, p, ranks, strict=True)]


def measures(judges: Sequence[str]) -> dict[str, str]:
    """Measure -> column, of what is compared with the baseline."""
    first = judges[0]
    found = {"guide_gain": "style_log_odds"} | {f"{judge}_gain": f"{judge}_log_odds" for judge in judges}
    found |= {f"{judge}_kept": f"{judge}_kept" for judge in judges}
    found |= {"year_error": "year_error", f"{first}_year_error": f"{first}_year_error", "content": "content", "artifacts": "artifacts"}
    return found | {"severity": f"{first}_severity"} | {name: name for name in LOOKS}


def effects(
    rows: pd.DataFrame,
    judges: Sequence[str],
    recall: Mapping[str, float],
    chosen: Mapping[tuple[str, str], str],
    rivals: Mapping[tuple[str, str], str],
) -> list[Effect]:
    """Effects over all styles, then per style, for each setting and each wording.

    `rows`: those that report. `chosen`: (setting, strategy) -> the arm that stands for it; a strategy that is not in it is stood for by
    each of its arms. `rivals`: (setting, arm) -> the best-of arm that costs the same. Holm's family is all arms of a measure in one table:
    over all styles, or of all single styles together.
    """
    found: list[Effect] = []
    told = setting_of(rows)
    for setting in dict.fromkeys(told):
        for named in dict.fromkeys(rows["named"]):
            part = rows[(told == setting) & (rows["named"] == named)]
            styles = list(dict.fromkeys(part["style"]))
            whole = [_effect(ALL, part, arm, setting, judges, recall, chosen, rivals) for arm in dict.fromkeys(part["arm"])]
            each = [
                _effect(style, some, arm, setting, judges, recall, chosen, rivals)
                for style in styles
                for some in [part[part["style"] == style]]
                for arm in dict.fromkeys(some["arm"])
            ]
            found += [*_families(whole), *(_families(each) if len(styles) > 1 else ())]
    return found


def setting_of(rows: pd.DataFrame) -> pd.Series:
    """Each row's setting as it is called: `embedded, 25 steps, CFG 4`."""
    return rows["model"] + ", " + rows["setting_steps"].astype(str) + " steps, CFG " + rows["guidance_scale"].map("{:g}".format)


def _effect(
    style: str,
    part: pd.DataFrame,
    arm: str,
    setting: str,
    judges: Sequence[str],
    recall: Mapping[str, float],
    chosen: Mapping[tuple[str, str], str],
    rivals: Mapping[tuple[str, str], str],
) -> Effect:
    own = part[part["arm"] == arm]
    first, row = judges[0], own.iloc[0]
    columns = [*measures(judges).values(), f"{first}_probability", "style_probability", *SAME, *COSTS]
    means = {name: _mean(own[name]) for name in dict.fromkeys(columns) if name in own}
    known = [recall.get(name) for name in dict.fromkeys(own["style"])]
    base = own["baseline"].iloc[0]
    key = (setting, row["strategy"])
    stands = chosen[key] == arm if key in chosen else True
    effect = Effect(
        style,
        bool(row["named"]),
        setting,
        arm,
        row["strategy"],
        float(row["strength"]),
        base,
        stands,
        len(own),
        own[["style", "prompt"]].drop_duplicates().shape[0],
        means,
        None if None in known else float(np.mean(known)),
    )
    if arm == base:
        return replace(effect, means=means | _diversity(own, own))
    pairs = paired(part, arm)
    prompts = pairs.prompts
    contrasts = {
        name: contrast(pairs.difference(column), prompts, column.endswith("kept"), column.endswith("log_odds"))
        for name, column in measures(judges).items()
    }
    transfer = {judge: _transfer(pairs, judge, contrasts["guide_gain"].difference) for judge in judges}
    rival = rivals.get((setting, arm), "")
    best = paired(part, arm, rival) if rival else None
    against = contrast(best.difference(f"{first}_log_odds"), best.prompts) if best is not None and len(best.frame) else None
    base_rows = part[part["arm"] == base]
    return replace(
        effect, means=means | _diversity(base_rows, own), contrasts=contrasts, transfer=transfer, rival=rival, against_best=against
    )


def _transfer(pairs: Pairs, judge: str, guide: Interval) -> Interval:
    found = ratio(pairs.difference(f"{judge}_log_odds"), pairs.difference("style_log_odds"), pairs.prompts)
    if guide.excludes_zero:
        return found
    return Interval(nan, nan, nan, found.pairs, found.clusters, "undefined: the guide's interval contains 0")


def _diversity(plain: pd.DataFrame, made: pd.DataFrame) -> dict[str, float]:
    if "features" not in made:
        return {}
    by = ["style", "prompt"]
    before = {key: np.stack(list(group["features"])) for key, group in plain.groupby(by, sort=False)}
    groups = [(before[key], np.stack(list(group["features"]))) for key, group in made.groupby(by, sort=False) if key in before]
    return diversity.within(groups)


def _families(some: list[Effect]) -> list[Effect]:
    """Each measure's contrasts over these effects are one family; so are those against best-of."""
    names = dict.fromkeys(name for effect in some for name in effect.contrasts)
    changed = {id(effect): dict(effect.contrasts) for effect in some}
    for name in names:
        holders = [effect for effect in some if name in effect.contrasts]
        for effect, one in zip(holders, corrected([effect.contrasts[name] for effect in holders]), strict=True):
            changed[id(effect)][name] = one
    rivals = [effect for effect in some if effect.against_best]
    best = dict(zip(map(id, rivals), corrected([effect.against_best for effect in rivals]), strict=True))
    return [replace(effect, contrasts=changed[id(effect)], against_best=best.get(id(effect))) for effect in some]


def duels(rows: pd.DataFrame, arms: Sequence[str], column: str) -> dict[tuple[str, str], Contrast]:
    """Every two of the arms against each other on one column, as one family."""
    keys = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    found = []
    for a, b in keys:
        pairs = paired(rows, a, b)
        found.append(contrast(pairs.difference(column), pairs.prompts))
    return dict(zip(keys, corrected(found), strict=True))


def _mean(column: pd.Series) -> float:
    values = column.astype("float64").to_numpy(na_value=nan)
    return float(np.nanmean(values)) if np.isfinite(values).any() else nan


def said(value: float | None, form: str = "{:.2f}") -> str:
    """A number in words of a table; a dash where there is none."""
    return "-" if value is None or isnan(value) else form.format(value)
