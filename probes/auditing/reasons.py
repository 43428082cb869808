"""What guide and judge say of one picture against what it was meant to be, in cells and in a sentence."""

from torch import Tensor

from probes.auditing.intention import Intention
from probes.judge import Judge, Opinion
from probes.style import StyleMeasure

UNKNOWN = float("nan")


def judged(judge: Judge, opinion: Opinion, k: int, intention: Intention) -> dict:
    """What the judge says of picture k, and whether that is what was intended."""
    targets = [name for name, _ in intention.styles]
    probabilities, top = opinion.styles[k], judge.labels[int(opinion.styles[k].argmax())]
    knows = bool(targets) and all(name in judge.labels for name in targets)
    aimed = [judge.labels.index(name) for name in targets] if knows else [judge.labels.index(top)]
    return {
        "verdict_style": top,
        "verdict_style_probability": float(probabilities[aimed].sum()) if knows or not targets else UNKNOWN,
        "verdict_log_odds": float(judge.log_odds(opinion, intention.styles, intention.avoid)[k]) if targets or intention.avoid else UNKNOWN,
        "verdict_year": float(opinion.years[k]),
        "verdict_severity": float(opinion.severity[k]),
        "kept": top in targets if knows else None,
    }


def styled(measure: StyleMeasure | None, embedding: Tensor, probabilities: Tensor, labels: list[str]) -> dict:
    """Log-odds and probability of the intended styles together (probability of the top one where none is), and the top one."""
    top = int(probabilities.argmax())
    intended = measure.probability(embedding) if measure else None
    return {
        "style_log_odds": float(measure.score(embedding)) if measure else UNKNOWN,
        "style_probability": float(probabilities[top] if intended is None else intended),
        "style_top": labels[top],
    }


def reason(row: dict, intention: Intention) -> str:
    """A sentence a person can read: `kept baroque 0.91 (verdict 0.88); reads 1690, meant 1600-1725`."""
    guide = f"{row['style_probability']:.2f}"
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
        parts.append(f"artifacts {row['artifacts']:.2f} ({row['artifact_kind']}) {place(row['artifact_where'])}")
    return "; ".join(parts)


def place(where: str) -> str:
    """`in the upper left`, `in the centre`, or `everywhere`."""
    return where if where == "everywhere" else f"in the {where}"
