"""Where a network comes from, and whether two networks are of one family: a judge must not share the guide's blind spots."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Lineage:
    """`weights` is a SHA-256; `data` names the training splits, joined by `+`; an empty field is unknown and matches nothing."""

    weights: str = ""
    data: str = ""
    architecture: str = ""
    objective: str = ""


def same_family(a: Lineage, b: Lineage) -> str | None:
    """Why `a` and `b` are of one family, or None: shared weights, shared training images, or the same architecture and objective."""
    if a.weights and a.weights == b.weights:
        return "they share their weights"
    shared = sorted((set(a.data.split("+")) & set(b.data.split("+"))) - {""})
    # Two judges may share their images, as their cards say: neither steers. A guide trained on the judges' images may not.
    if shared and not a.data == b.data == "judge":
        return f"both were trained on the {' and '.join(shared)} images"
    if a.architecture and a.objective and (a.architecture, a.objective) == (b.architecture, b.objective):
        return f"both are a {a.architecture} trained with the {a.objective} objective"
    return None
