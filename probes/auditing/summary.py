"""What the rows of an audit come to: how many kept their style, beside what the judge knows of real paintings; how far to trust it."""

import numpy as np
import pandas as pd

from probes.auditing import doubt, flags
from probes.auditing.columns import SEPARATOR, rated
from probes.auditing.keeping import by_variant, clusters, kept, once, paired, together
from probes.auditing.looks import COLOURLESS_NOTE, LOOKS
from probes.auditing.rates import rate, ratio
from probes.auditing.ratings import agreed, agreement
from probes.auditing.sentences import sentences
from probes.encoders import Encoder
from probes.judge import Judge

GROUPS = ("variant", "strategy", "generator", "group", "prompt")
MOST = 200  # groups of a kind that are told apart
ENDS = 12  # best and worst pictures that are named
MEANS = ("style_probability", "style_log_odds", "verdict_log_odds", "year_error", "content", "artifacts", "verdict_severity")


def summarise(rows: pd.DataFrame, encoder: Encoder, judge: Judge | None, reliability: dict[str, str], unasked: dict[str, str] | None = None,
              *, steered: bool, diversity: dict[str, dict] | None = None, reference: dict | None = None,
              alarms: dict[str, float] | None = None, baseline: int = 0, left_out: dict[str, int] | None = None) -> dict:  # fmt: skip
    """Counts, rates and means as plain values, and `sentences` that say them. `rows` as of columns.py, notes still apart.

    `reliability` of what was asked, `unasked` of what is read in any case. `steered`: the encoder is what steered the images. `alarms`:
    of the head for artifacts, None without one, the share of real paintings by style that it takes for damaged. `baseline`: how many
    pictures it has. `left_out`: files of the folder that have no row.
    """
    read = rows[rows["error"] == ""]
    targets = [target for target in read["style_target"].unique() if target]
    varied, damage = diversity or {}, alarms is not None
    foreign = doubt.foreign(read)
    shown = damage and not foreign  # whether groups have a rate of damage
    found = {
        "images": len(rows),
        "read": len(read),
        "encoder": {"source": encoder.source, "weights": encoder.fingerprint, "steered": steered},
        "judge": {"name": judge.name, "weights": judge.lineage.weights, "reliability": _trusted(judge)} if judge else None,
        "styles": {target: _style(target, some := read[read["style_target"] == target], judge) | _of_group(some, shown)
                   | {"diversity": varied.get("style_target", {}).get(target)} for target in targets},
        "groups": {name: _groups(read, name, shown, varied.get(name, {})) for name in GROUPS},
        "groups_in_all": {name: int(read.loc[read[name] != "", name].nunique()) for name in GROUPS},
        "confusion": _confusion(read),
        "guide_and_verdict_kappa": _kappa(read),
        "mean_year_error": mean(read, "year_error"),
        "mean_content": mean(read, "content"),
        "artifacts": _artifacts(read, alarms, foreign) if damage and read["artifacts"].notna().any() else None,
        "artifacts_head": damage,
        "preference": _preference(read),
        "diversity": varied,
        "duplicates": int((read["duplicate_of"] != "").sum()),
        "out_of_domain": int(read["out_of_domain"].fillna(False).sum()),
        "reference": reference,
        "baseline": _baseline(read),
        "baseline_images": baseline,
        "left_out": left_out or {},
        "ratings": _ratings(read),
        "ends": ends(read),
        "domain": {"colourless": _colourless(read), "foreign": foreign},
        "without_style": int((read["style_target"] == "").sum()),
        "noted": _noted(rows["notes"]),
        "reliability": reliability,
        "unasked_reliability": unasked or {},
    }
    return found | {"sentences": list(sentences(found))}


def mean(rows: pd.DataFrame, name: str) -> float | None:
    """Mean of what is there; None where nothing is."""
    value = rows[name].mean()
    return None if pd.isna(value) else float(value)


def _colourless(read: pd.DataFrame) -> int:
    """How many of the pictures that were read have no colour."""
    return int(read["notes"].str.split(SEPARATOR).map(lambda notes: COLOURLESS_NOTE in notes).sum())


def ends(read: pd.DataFrame) -> dict[str, str | list[str]]:
    """The pictures that the verdict (the guide, where there is none) finds nearest to and farthest from what was meant, and their styles.

    Ranked by the quantile among the pictures of the same intended style: log-odds of different styles are no scale.
    """
    column = "verdict_log_odds" if read["verdict_log_odds"].notna().any() else "style_log_odds"
    some = read.loc[read[column].notna(), ["image", "style_target", column]]
    within = some.groupby("style_target")[column]
    # Middles of ranks: a style with one picture has it in the middle, not at both ends.
    place = (within.rank(method="first") - 0.5) / within.transform("size")
    some = some.assign(place=place).sort_values(["place", column], ascending=False, kind="stable")
    best, worst = some.head(ENDS), some.tail(ENDS)[::-1]
    return {"by": column, "best": best["image"].tolist(), "worst": worst["image"].tolist(),
            "best_styles": best["style_target"].tolist(), "worst_styles": worst["style_target"].tolist()}  # fmt: skip


def _noted(notes: pd.Series) -> dict[str, int]:
    counts = notes[notes != ""].str.split(SEPARATOR).explode().value_counts(sort=False)
    return {str(note): int(count) for note, count in counts.items()}


def _ratings(read: pd.DataFrame) -> dict[str, dict]:
    names = rated(read.columns)
    given = read[read[names].notna().any(axis=1)] if names else read.head(0)
    return agreement([{name: cell for name, cell in row.items() if not pd.isna(cell)} for row in given.to_dict("records")])


def _trusted(judge: Judge) -> dict[str, str]:
    """What the judge's card says of each of its readings, in a sentence."""
    found, measured = dict(judge.card.get("reliability", {})), judge.card.get("metrics", {})
    if "balanced_accuracy" in (style := measured.get("style", {})):
        over = f"{len(judge.labels)} styles on {style['images']} paintings by {style['artists']} unseen artists"
        found["verdict"] = f"balanced accuracy {style['balanced_accuracy']:.2f} over {over}"
    if "mae" in (year := measured.get("year", {})):
        on = f"{year['images']} dated paintings by {year['artists']} unseen artists"
        found["verdict's year"] = f"mean error {year['mae']:.0f} years on {on} (guessing the median errs {year['mae_of_median']:.0f})"
    if "spearman" in (severity := measured.get("severity", {})):
        found["verdict's damage"] = f"rank correlation {severity['spearman']:.2f} with planted damage on {severity['images']} paintings"
    return found


def _style(target: str, rows: pd.DataFrame, judge: Judge | None) -> dict:
    names = [part.split(":")[0] for part in target.split(",")]
    recalls = [judge.recall[name] for name in names if name in judge.recall] if judge else []
    return {
        **kept(rows),
        "variants": by_variant(rows),
        "verdict_recall_on_real_paintings": sum(recalls) / len(recalls) if len(recalls) == len(names) else None,
        **{f"mean_{name}": mean(rows, name) for name in MEANS},
    }


def told_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """What pictures are summed up by: the intended style and GROUPS, the 200 most frequent values of each, others empty."""
    found = {}
    for name in ("style_target", *GROUPS):
        most = rows.loc[rows[name] != "", name].value_counts().head(MOST).index
        found[name] = rows[name].where(rows[name].isin(most), "")
    return pd.DataFrame(found)


def _groups(rows: pd.DataFrame, column: str, damage: bool, diversity: dict[str, float | None]) -> dict[str, dict]:
    """By the values of a column, where it tells some apart; of more than 200 by the most frequent."""
    values = rows.loc[rows[column] != "", column]
    most = values.value_counts(sort=True).head(MOST).index
    if len(most) < 2:
        return {}
    values = values[values.isin(most)]
    return {str(value): {**kept(some := rows.loc[at]), **{f"mean_{name}": mean(some, name) for name in MEANS}, **_of_group(some, damage),
                         "diversity": diversity.get(str(value))}
            for value, at in values.groupby(values, sort=False).groups.items()}  # fmt: skip


def _of_group(rows: pd.DataFrame, damage: bool) -> dict:
    """The share of damaged pictures; agreement of guide and verdict; transfer; signs of reward hacking."""
    seen = once(rows[doubt.counts(rows)])
    damaged = float((seen["artifact_kind"] != "").mean()) if damage and len(seen) else None
    return {"damaged_rate": damaged, "kappa": _kappa(rows), "transfer": _transfer(rows), "flags": flags.counted(rows)}


def _kappa(rows: pd.DataFrame) -> float | None:
    """Cohen's, of the styles that guide and verdict see first."""
    both = rows[rows["verdict_style"] != ""]
    return agreed(both["style_top"].tolist(), both["verdict_style"].tolist())


def _confusion(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Intended style -> style that the verdict sees -> pictures; mixtures are left out."""
    some = rows[(rows["verdict_style"] != "") & (rows["style_target"] != "") & ~rows["style_target"].str.contains(",", regex=False)]
    table: dict[str, dict[str, int]] = {}
    for (target, seen), count in some.groupby(["style_target", "verdict_style"], sort=False).size().items():
        table.setdefault(str(target), {})[str(seen)] = int(count)
    return table


def _artifacts(rows: pd.DataFrame, alarms: dict[str, float], foreign: dict | None) -> dict:
    """The rate of damaged pictures, its interval by prompt, and `mean_over_prompts` of the share in each where most have two or more.

    Of the pictures that the probe is known on alone, `read`; `doubtful` alarms are of others, all of them in a `foreign` set. `expected`:
    how many real paintings of these styles set off the alarm too.
    """
    known, unlike = doubt.counts(rows) & (foreign is None), rows["artifacts"].notna() & ~doubt.counts(rows)
    found = {"doubtful": int(((rows["artifact_kind"] != "") & ~known).sum()), "foreign": foreign}
    unseen = int(rows["artifacts"].isna().sum())
    rows = once(rows[known])
    found |= {"read": len(rows), "copies": int(known.sum()) - len(rows), "unlike": int(unlike.sum()), "unseen": unseen}
    if not len(rows):
        return found | {"rate": None, "interval": [None, None], "prompts": 0, "mean_over_prompts": None, "damaged": 0, "kinds": {},
                        "expected": None}  # fmt: skip
    damaged = rows["artifact_kind"] != ""
    value, low, high = rate(damaged, clusters(rows))
    kinds = rows.loc[damaged, "artifact_kind"].value_counts()
    found |= {"rate": value, "interval": [low, high], "prompts": together(rows), "damaged": int(damaged.sum())}
    found |= {"mean_over_prompts": _over_prompts(damaged, rows["prompt"])}
    return found | {"kinds": {str(kind): int(count) for kind, count in kinds.items()}, "expected": doubt.expected(rows, alarms)}


def _over_prompts(values: pd.Series, prompts: pd.Series) -> float | None:
    """The mean over prompts of the mean in each; None unless every picture has a prompt and most prompts have two pictures or more."""
    sizes = prompts.value_counts()
    if (prompts == "").any() or len(sizes) < 2 or (sizes > 1).mean() <= 0.5:
        return None
    return float(values.groupby(prompts, sort=False).mean().mean())


def _preference(rows: pd.DataFrame) -> dict | None:
    """How often one variant is preferred to another within a prompt: preferences of different prompts are never compared."""
    some = rows[rows["verdict_preference"].notna() & (rows["variant"] != "")]
    variants = list(some["variant"].unique())
    if len(variants) < 2:
        return None
    means = some.groupby(["prompt", "variant"], sort=False)["verdict_preference"].mean().unstack()
    wins = {}
    for k, one in enumerate(variants):
        for other in variants[k + 1 :]:
            both = means[[one, other]].dropna()
            if len(both):
                won = (both[other] > both[one]).to_numpy(float) + 0.5 * (both[other] == both[one]).to_numpy(float)
                share, low, high = rate(won, np.arange(len(won)))
                wins[f"{other} over {one}"] = {"rate": share, "interval": [low, high], "prompts": len(won)}
    return wins or None


def _transfer(rows: pd.DataFrame) -> dict | None:
    """What of the guide's gain the verdict sees too: mean verdict gain over mean guide gain; undefined where the guide's may be 0."""
    both = rows[rows["guide_gain"].notna() & rows["verdict_gain"].notna()]
    if not len(both):
        return None
    guide, verdict, groups = both["guide_gain"].to_numpy(), both["verdict_gain"].to_numpy(), clusters(both)
    _, low, _ = ratio(guide, np.ones(len(guide)), groups)
    if low is None or low <= 0:
        return {"value": None, "interval": [None, None], "why": "the guide's own gain may be nought"}
    value, *interval = ratio(verdict, guide, groups)
    return {"value": value, "interval": interval, "why": ""}


def _baseline(rows: pd.DataFrame) -> dict | None:
    """Mean drift and gains over the pairs, with intervals, the transfer ratio, and how many pictures have which sign of reward hacking."""
    pairs = rows[rows["baseline"] != ""]
    if not len(pairs):
        return None
    both = pairs[pairs["guide_gain"].notna() & pairs["verdict_gain"].notna()]
    hacked = int(((both["guide_gain"] > 0) & (both["verdict_gain"] < 0)).sum())
    found = {"pairs": len(pairs), "unpaired": len(rows) - len(pairs), "gains": len(both), "hacked": hacked}
    for name in (*(f"{name}_drift" for name in LOOKS), "guide_gain", "verdict_gain"):
        some = pairs[pairs[name].notna()]
        value, low, high = ratio(some[name].to_numpy(), np.ones(len(some)), clusters(some)) if len(some) else (None, None, None)
        found |= {f"mean_{name}": value, f"{name}_interval": [low, high]}
    return found | {"kept": paired(pairs), "transfer": _transfer(pairs), "flags": flags.counted(pairs)}

