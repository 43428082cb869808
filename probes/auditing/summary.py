"""What the rows of an audit come to: how many kept their style, beside what the judge knows of real paintings; how far to trust it."""

from collections import Counter
from math import isnan

from probes.auditing.looks import LOOKS
from probes.auditing.ratings import agreed, agreement, rate
from probes.auditing.sentences import sentences
from probes.encoders import Encoder
from probes.judge import Judge

GROUPS = ("variant", "group", "prompt")
MOST = 200  # groups of a kind that are told apart


def summarise(rows: list[dict], encoder: Encoder, judge: Judge | None, reliability: dict[str, str], *, steered: bool,
              diversity: dict[str, dict] | None = None) -> dict:  # fmt: skip
    """Counts, rates and means as plain values, and `sentences` that say them. `steered`: the encoder is what steered the images."""
    read = [row for row in rows if not row.get("error")]
    targets = dict.fromkeys(row["style_target"] for row in read if row["style_target"])
    found = {
        "images": len(rows),
        "read": len(read),
        "encoder": {"source": encoder.source, "weights": encoder.fingerprint, "steered": steered},
        "judge": {"name": judge.name, "weights": judge.lineage.weights, "reliability": _trusted(judge)} if judge else None,
        "styles": {target: _style(target, [row for row in read if row["style_target"] == target], judge) for target in targets},
        "groups": {name: _groups(read, name) for name in GROUPS},
        "confusion": _confusion(read),
        "guide_and_verdict_kappa": agreed([(row["style_top"], row["verdict_style"]) for row in read if row.get("verdict_style")]),
        "mean_year_error": mean(read, "year_error"),
        "mean_content": mean(read, "content"),
        "diversity": diversity or {},
        "duplicates": sum("duplicate_of" in row for row in read),
        "baseline": _baseline(read),
        "ratings": agreement(read),
        "noted": dict(Counter(note for row in rows for note in row.get("notes") or ())),
        "reliability": reliability,
    }
    return found | {"sentences": list(sentences(found))}


def mean(rows: list[dict], name: str) -> float | None:
    """Mean of what is there; None where nothing is."""
    values = [row[name] for row in rows if row.get(name) is not None and not isnan(row[name])]
    return sum(values) / len(values) if values else None


def _trusted(judge: Judge) -> dict[str, str]:
    """What the judge's card says of each of its readings, in a sentence."""
    found, measured = {}, judge.card.get("metrics", {})
    if "balanced_accuracy" in (style := measured.get("style", {})):
        over = f"{len(judge.labels)} styles on {style['images']} paintings by {style['artists']} unseen artists"
        found["verdict"] = f"balanced accuracy {style['balanced_accuracy']:.2f} over {over}"
    if "mae" in (year := measured.get("year", {})):
        on = f"{year['images']} dated paintings by {year['artists']} unseen artists"
        found["verdict's year"] = f"mean error {year['mae']:.0f} years on {on} (guessing the median errs {year['mae_of_median']:.0f})"
    if "spearman" in (severity := measured.get("severity", {})):
        found["verdict's damage"] = f"rank correlation {severity['spearman']:.2f} with planted damage on {severity['images']} paintings"
    return found


def _kept(rows: list[dict]) -> dict:
    """How many of the judged rows kept their style, the interval clustered by prompt, or by picture where there is one prompt."""
    judged = [row for row in rows if row.get("kept") is not None]
    prompts = [row.get("prompt") or "" for row in judged]
    clusters = prompts if len(set(prompts)) > 1 else list(range(len(judged)))
    kept, low, high = rate([row["kept"] for row in judged], clusters) if judged else (None, None, None)
    count = sum(row["kept"] for row in judged)
    return {"images": len(rows), "judged": len(judged), "kept": count, "kept_rate": kept, "kept_interval": [low, high]}


def _style(target: str, rows: list[dict], judge: Judge | None) -> dict:
    names = [part.split(":")[0] for part in target.split(",")]
    recalls = [judge.recall[name] for name in names if name in judge.recall] if judge else []
    return {
        **_kept(rows),
        "verdict_recall_on_real_paintings": sum(recalls) / len(recalls) if len(recalls) == len(names) else None,
        **{f"mean_{name}": mean(rows, name) for name in ("style_probability", "style_log_odds", "verdict_log_odds")},
    }


def _groups(rows: list[dict], column: str) -> dict[str, dict]:
    """By the values of a column, where it tells some apart."""
    values = Counter(row[column] for row in rows if row.get(column))
    if not 1 < len(values) <= MOST:
        return {}
    within = {value: [row for row in rows if row.get(column) == value] for value in values}
    names = ("style_probability", "verdict_log_odds", "year_error", "content", "artifacts")
    return {value: {**_kept(some), **{f"mean_{name}": mean(some, name) for name in names}} for value, some in within.items()}


def _confusion(rows: list[dict]) -> dict[str, dict[str, int]]:
    """Intended style -> style that the verdict sees -> pictures; mixtures are left out."""
    table: dict[str, Counter] = {}
    for row in rows:
        if row.get("verdict_style") and row["style_target"] and "," not in row["style_target"]:
            table.setdefault(row["style_target"], Counter())[row["verdict_style"]] += 1
    return {target: dict(counts) for target, counts in table.items()}


def _baseline(rows: list[dict]) -> dict | None:
    """Mean drift and gains over the pairs; `hacked`: pictures that the guide finds better than their counterpart and the verdict worse."""
    pairs = [row for row in rows if row.get("baseline")]
    if not pairs:
        return None
    both = [row for row in pairs if row.get("guide_gain") is not None and row.get("verdict_gain") is not None]
    both = [row for row in both if not isnan(row["guide_gain"]) and not isnan(row["verdict_gain"])]
    hacked = sum(row["guide_gain"] > 0 > row["verdict_gain"] for row in both)
    names = (*(f"{name}_drift" for name in LOOKS), "guide_gain", "verdict_gain")
    counts = {"pairs": len(pairs), "unpaired": len(rows) - len(pairs), "gains": len(both), "hacked": hacked}
    return counts | {f"mean_{name}": mean(pairs, name) for name in names}
