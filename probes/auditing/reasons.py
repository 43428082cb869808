"""What guide and judge say of one picture against what it was meant to be, in cells and in a sentence."""

from collections.abc import Sequence

from torch import Tensor

from probes.auditing import doubt
from probes.auditing.intention import Intention
from probes.judge import Judge, Opinion
from probes.style import StyleMeasure

UNKNOWN = float("nan")


def judged(judge: Judge, opinion: Opinion, at: list[int], intention: Intention) -> dict[str, list]:
    """What the judge says of the pictures `at`, and whether that is what was intended: columns. What it does not read has none."""
    found = {"verdict_year": opinion.years, "verdict_severity": opinion.severity, "verdict_preference": opinion.preference}
    found = {name: values[at].tolist() for name, values in found.items() if values is not None}
    if opinion.styles is None:
        return found
    targets, probabilities = [name for name, _ in intention.styles], opinion.styles[at].cpu()
    top = [judge.labels[place] for place in probabilities.argmax(1).tolist()]
    knows = bool(targets) and all(name in judge.labels for name in targets)
    if knows:
        aimed = probabilities[:, [judge.labels.index(name) for name in targets]].sum(1).tolist()
    else:
        aimed = [UNKNOWN] * len(at) if targets else probabilities.amax(1).tolist()
    found |= {"verdict_style": top, "verdict_style_probability": aimed}
    found["kept"] = [name in targets for name in top] if knows else [None] * len(at)
    if targets or intention.avoid:
        found["verdict_log_odds"] = judge.odds(probabilities, intention.styles, intention.avoid).tolist()
    return found


def styled(measure: StyleMeasure | None, embeddings: Tensor, probabilities: Tensor, labels: Sequence[str]) -> dict[str, list]:
    """Log-odds and probability of the intended styles together (probability of the top one where none is), and the top one: columns."""
    most, top = probabilities.max(1)
    intended = measure.probability(embeddings) if measure else None
    return {
        "style_log_odds": measure.score(embeddings).tolist() if measure else [UNKNOWN] * len(embeddings),
        "style_probability": (most if intended is None else intended).tolist(),
        "style_top": [labels[place] for place in top.tolist()],
    }


def reason(row: dict, intention: Intention) -> str:
    """A sentence a person can read: `kept baroque 0.91 (verdict 0.88); reads 1690, meant 1600-1725`."""
    guide, why = f"{row['style_probability']:.2f}", doubt.of_reading(row)
    if not intention.styles:
        parts = [f"reads as {row['style_top']} {guide}" + (f" (verdict {row['verdict_style']})" if "verdict_style" in row else "")]
    elif row.get("kept") is None:
        parts = [f"{intention.target} {guide} in the guide's eyes" + (", a style that the verdict does not know" if "kept" in row else "")]
    else:
        seen = "" if row["kept"] else f", sees {row['verdict_style']}"
        parts = [f"{'kept' if row['kept'] else 'lost'} {intention.target} {guide} (verdict {row['verdict_style_probability']:.2f}{seen})"]
    meant = f", meant {'-'.join(map(str, dict.fromkeys(intention.period)))}" if intention.period else ""
    parts.append(f"reads {row['year']:.0f}{meant}")
    if row.get("artifact_kind"):
        parts.append(f"artifacts {row['artifacts']:.2f} ({row['artifact_kind']}) {place(row['artifact_where'])}{doubt.of_alarm(row)}")
    return (f"{why}, so that its readings do not hold: " if why else "") + "; ".join(parts)


def place(where: str) -> str:
    """`in the upper left`, `in the lower part`, `on the left`, `in the centre`; `everywhere` and `across the top` as they are."""
    if where in ("left", "right"):
        return f"on the {where}"
    if where in ("upper", "lower"):
        return f"in the {where} part"
    return f"in the {where}" if where == "centre" or where.startswith(("upper ", "lower ")) else where
