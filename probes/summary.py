"""What the rows of an audit come to: how many kept their style, beside what the judge knows of real paintings; how far to trust it."""

from collections.abc import Iterator
from math import isnan

from probes.encoders import Encoder
from probes.judge import Judge


def summarise(rows: list[dict], encoder: Encoder, judge: Judge | None, reliability: dict[str, str], *, steered: bool) -> dict:
    """Counts, rates and means as plain values, and `sentences` that say them. `steered`: the encoder is what steered the images."""
    read = [row for row in rows if not row.get("error")]
    targets = dict.fromkeys(row["style_target"] for row in read if row["style_target"])
    found = {
        "images": len(rows),
        "read": len(read),
        "encoder": {"source": encoder.source, "weights": encoder.fingerprint, "steered": steered},
        "judge": {"name": judge.name, "weights": judge.lineage.weights} if judge else None,
        "styles": {target: _style(target, [row for row in read if row["style_target"] == target], judge) for target in targets},
        "mean_year_error": mean(read, "year_error"),
        "mean_content": mean(read, "content"),
        "reliability": reliability,
    }
    return found | {"sentences": list(_sentences(found))}


def mean(rows: list[dict], name: str) -> float | None:
    """Mean of what is there; None where nothing is."""
    values = [row[name] for row in rows if row.get(name) is not None and not isnan(row[name])]
    return sum(values) / len(values) if values else None


def _style(target: str, rows: list[dict], judge: Judge | None) -> dict:
    names = [part.split(":")[0] for part in target.split(",")]
    judged = [row["kept"] for row in rows if row.get("kept") is not None]
    recalls = [judge.recall[name] for name in names if name in judge.recall] if judge else []
    return {
        "images": len(rows),
        "judged": len(judged),
        "kept": sum(judged),
        "kept_rate": sum(judged) / len(judged) if judged else None,
        "verdict_recall_on_real_paintings": sum(recalls) / len(recalls) if len(recalls) == len(names) else None,
        **{f"mean_{name}": mean(rows, name) for name in ("style_probability", "style_log_odds", "verdict_log_odds")},
    }


def _sentences(found: dict) -> Iterator[str]:
    if found["read"] < found["images"]:
        yield f"{found['images'] - found['read']} of {found['images']} images were not read; their rows say why."
    for target, style in found["styles"].items():
        if style["kept_rate"] is not None:
            recall = style["verdict_recall_on_real_paintings"]
            beside = f"it recognises {recall:.0%} of real ones" if recall is not None else "its recall on real ones is not known"
            yield f"{target}: the verdict sees it in {style['kept']} of {style['judged']} ({style['kept_rate']:.0%}); {beside}."
        elif found["judge"]:
            yield f"{target}: the verdict does not know this style."
    if found["mean_year_error"] is not None:
        yield f"Period: off by {found['mean_year_error']:.0f} years on average."
    if found["encoder"]["steered"]:
        yield "Style, year and content are read by the encoder that steered: the verdict's columns are the independent ones."
    yield from (f"Reliability of {name}: {sentence}" for name, sentence in found["reliability"].items())
