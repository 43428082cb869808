"""What an audit came to, in sentences for a terminal and a page."""

from collections.abc import Iterator

from probes.auditing.looks import LOOKS


def sentences(found: dict) -> Iterator[str]:
    """Of a summary, the most important first; the reliability of what was asked for last."""
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
    if found["duplicates"]:
        many = f"{found['duplicates']} images repeat" if found["duplicates"] > 1 else "1 image repeats"
        yield f"{many} an earlier one, or nearly; the rows say which."
    yield from _baseline(found["baseline"])
    for name, said in found["ratings"].items():
        yield from _rated(name, said)
    if found["encoder"]["steered"]:
        yield "Style, year and content are read by the encoder that steered: the verdict's columns are the independent ones."
    yield from (f"Reliability of {name}: {sentence}" for name, sentence in found["reliability"].items())


def _baseline(pairs: dict | None) -> Iterator[str]:
    if pairs:
        drift = ", ".join(f"{name.replace('_', ' ')} {pairs[f'mean_{name}_drift']:+.3f}" for name in LOOKS)
        yield f"Against the {pairs['pairs']} counterparts: {drift}."
    if pairs and pairs["gains"]:
        gains = f"guide {pairs['mean_guide_gain']:+.2f}, verdict {pairs['mean_verdict_gain']:+.2f}"
        apart = f"in {pairs['hacked']} the guide sees a gain and the verdict a loss"
        yield f"Mean gain in log-odds over {pairs['gains']} pairs: {gains}; {apart}."


def _rated(name: str, said: dict) -> Iterator[str]:
    for reading, ranks in said.get("readings", {}).items():
        within = ranks["within_prompt"]
        beside = f", {within['spearman']:+.2f} within {within['prompts']} prompts" if within else ""
        figures = f"Spearman {ranks['spearman']:+.2f}, Kendall {ranks['kendall']:+.2f} ({ranks['pictures']} images){beside}"
        yield f"{name} and {_plain(reading)}: {figures}."
    for reading, value in said.get("kappa", {}).items():
        if value is not None:
            yield f"{name} and {_plain(reading)}: Cohen's kappa {value:+.2f} ({said['rated']} images)."
    for reading, value in said.get("calibration", {}).items():
        yield f"{name} and {_plain(reading)}: calibration error {value['ece']:.3f}, Brier score {value['brier']:.3f}."


def _plain(reading: str) -> str:
    return reading.replace("_", " ")
