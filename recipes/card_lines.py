"""Figures as the sentences of a model card; what was not measured says so."""

# ruff: noqa: E501 - prose

from collections.abc import Callable, Mapping

from probes.judges import STYLES
from recipes.metrics import FAMILIES, by

NOT_MEASURED = "not measured"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def signed(interval: tuple[float, float], digits: int = 3) -> str:
    """An interval around a difference."""
    return f"{interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}"


def between(interval: tuple[float, float], digits: int = 3) -> str:
    return f"{interval[0]:.{digits}f}-{interval[1]:.{digits}f}"


def of(figures: Mapping | None, line: Callable[[Mapping], str], *path: str) -> str:
    """`line(figures at path)`, or "not measured" where something on the way is missing."""
    for name in path:
        figures = figures.get(name) if isinstance(figures, Mapping) else None
    return line(figures) if figures else NOT_MEASURED


def recalls(figures: Mapping) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in figures["recall"].items())


def style(figures: Mapping) -> str:
    accuracy = f" (95 % {between(figures['accuracy_interval'])})" if "accuracy_interval" in figures else ""
    ece = f" (95 % {between(figures['ece_interval'])}; {calibrated(figures)})" if "ece_interval" in figures else ""
    return (
        f"accuracy {figures['accuracy']:.3f}{accuracy}, balanced accuracy {figures['balanced_accuracy']:.3f} (95 % over artists "
        f"{between(figures['interval'])}), ECE {figures['ece']:.3f}{ece}, on {figures['images']} paintings {by(figures, '')}"
    )


def genre(figures: Mapping) -> str:
    """As `style`, and what a temperature does on artists it was not fitted to, where there is one."""
    other = figures.get("other half")
    if not other:
        return style(figures)
    return (
        f"{style(figures)}; ECE on artists not used for its temperature {other['ece']:.3f} ({calibrated(other)}; without the temperature "
        f"{other['ece without temperature']:.3f}), on {other['images']} paintings {by(other, '')}"
    )


def calibrated(figures: Mapping) -> str:
    return f"a perfectly calibrated head would show {between(figures['ece_of_perfect'])}"


def families(figures: Mapping) -> str:
    return f"balanced accuracy {figures['balanced_accuracy']:.3f} (95 % over artists {between(figures['interval'])}); recall {recalls(figures)}"


def merged() -> str:
    """Which styles the families hold."""
    together = [f"{name} ({', '.join(members)})" for name, members in FAMILIES.items() if len(members) > 1]
    alone = [name for name, members in FAMILIES.items() if len(members) == 1]
    return "; ".join([*together, ", ".join(alone) + " on their own"])


def gain(figures: Mapping) -> str:
    return (
        f"{figures['gain']:+.3f} in balanced accuracy (95 % over artists {signed(figures['interval'])}), {figures['balanced_accuracy']:.3f} "
        f"against {figures['of the other']:.3f}, on {figures['images']} paintings {by(figures, '')}"
    )


def robustness(figures: Mapping) -> str:
    """What learning from damaged and adversarial pictures does to the style head's reading of paintings as they are and damaged."""
    clean, worse = figures["clean"]["robust less plain"], figures["damaged"]["robust less plain"]
    accuracy = {kind: 100 * (figures[kind]["robust"]["accuracy"] - figures[kind]["plain"]["accuracy"]) for kind in ("clean", "damaged")}
    return (
        f"{figures['trained']}: on paintings as they are {gain(clean)} ({accuracy['clean']:+.1f} points of accuracy); on the same ones, of which "
        f"a third was noised, a third blurred and a sixth autoencoded, "
        f"{worse['gain']:+.3f} ({signed(worse['interval'])}), {worse['balanced_accuracy']:.3f} against {worse['of the other']:.3f} "
        f"({accuracy['damaged']:+.1f} points)"
    )


def year(figures: Mapping) -> str:
    low, high = figures["interval"]
    return (
        f"mean error {figures['mae']:.1f} years (95 % over artists {low:.1f}-{high:.1f}; always answering the median errs "
        f"{figures['mae_of_median']:.1f}), Spearman {figures['spearman']:.2f}, on {figures['images']} paintings {by(figures, '')}"
    )


def whole_files(figures: Mapping) -> str:
    """A judge on whole paintings that it has to shrink itself."""
    style, year = figures["style"], figures["year"]
    return (
        f"the same paintings enlarged to {figures['read from']}, accuracy {style['accuracy']:.3f}, balanced accuracy {style['balanced_accuracy']:.3f}, "
        f"recall {recalls(style)}; mean error {year['mae']:.1f} years; mean severity on undamaged ones {figures['severity']['mean on undamaged']:.2f}"
    )


def retrieval(figures: Mapping) -> str:
    def at(k: int) -> str:
        chance = figures.get(f"at {k} by chance", k / figures["titles"])
        span = figures.get(f"at {k} interval")
        told = f"95 % over artists {span[0]:.1%}-{span[1]:.1%}, " if span else ""
        return f"at {k} {figures[f'at {k}']:.1%} ({told}chance {chance:.2%})"

    return f"{at(1)}, {at(5)}, median rank {figures['median rank']:.0f} of {figures['titles']}"


def pairs(figures: Mapping) -> str:
    """Agreement on one set of pictures."""
    told = "; ".join(f"{pair} {said['kappa']:.2f} ({percent(said['same'])} equal)" for pair, said in figures["pairs"].items())
    return f"{told}, on {figures['images']} pictures"


def kid(figures: Mapping) -> str:
    spread = "" if figures["deviation"] is None else f" (deviation {figures['deviation']:.3f})"
    if figures["subsets"] == 1:
        return f"{figures['kid']:.3f}{spread}, one sample of {figures['size']}"
    return f"{figures['kid']:.3f}{spread}, {figures['subsets']} x {figures['size']} drawn from {figures['pictures']}"


def floors(figures: Mapping) -> str:
    return "; ".join(f"{name} {kid(said)}" for name, said in figures.items())


def kept(figures: Mapping) -> str:
    pictures = figures["pictures"].values()
    line = (
        f"the verdict puts the intended style first for {percent(figures['mean kept'])} (95 % {between(figures['mean kept interval'], 2)}; mean "
        f"over {len(pictures)} styles, {min(pictures)} to {max(pictures)} pictures each, {figures['steps']} steps, guidance scale "
        f"{figures['guidance scale']:g})"
    )
    if figures["kept over recall"] is not None:
        line += (
            f"; divided by its recall on real paintings {figures['kept over recall']:.2f} (95 % "
            f"{between(figures['kept over recall interval'], 2)}, the recall taken as exact)"
        )
    return line


def kept_table(figures: Mapping) -> str:
    """Kept, recall on real paintings and their ratio by style, as Markdown."""
    real = figures["verdict's recall on real"]
    rows = ["| style | pictures | kept | verdict's recall on real | ratio | |", "|---|---|---|---|---|---|"]
    for name in (style for style in STYLES if style in figures["kept"]):
        ratio = figures["kept over recall by style"][name]
        mark = "caricature" if name in figures["caricature"] else ""
        told = "-" if ratio is None else f"{ratio:.2f}"
        rows.append(f"| {name} | {figures['pictures'][name]} | {figures['kept'][name]:.2f} | {real[name]:.2f} | {told} | {mark} |")
    return "\n".join(rows)


def words(figures: Mapping) -> str:
    each = ", ".join(
        f"{name} {percent(said['first'])} ({percent(said['without the word'])}; {said['titles in training']})"
        for name, said in figures["words"].items()
    )
    shared = figures.get("text tower shared", True)  # as it always was before the figures said so
    reader = "the CLIP, whose text tower conditions the denoiser," if shared else "the CLIP"
    return (
        f"{reader} ranks the right one of six words first for {percent(figures['first'])} of pictures (95 % "
        f"{percent(figures['interval'][0])}-{percent(figures['interval'][1])}; chance 17 %; {figures['seeds']} seeds a word). By word, and in "
        f"brackets how often at the same seeds asked for a painting alone, and how many training titles hold it: {each}"
    )


def words_on_real(figures: Mapping) -> str:
    told = [f"{word} {percent(said['first'])} of {said['paintings']}" for word, said in figures.items() if said["paintings"]]
    return ", ".join(told) or NOT_MEASURED


def memorisation(figures: Mapping) -> str:
    made, real = figures["distance"], figures["of test paintings"]
    return (
        f"distance to the nearest training painting (mirrored ones too; 32 x 32 pixels, mean 0, length 1): median {made['median']:.2f}, least "
        f"{made['min']:.2f} over {figures['pictures']} pictures; of test paintings median {real['median']:.2f}. "
        f"{figures['nearer than 1 % of test paintings are']:.1%} of the pictures lie nearer than the nearest 1 % of test paintings do "
        f"({real['1 %']:.2f}); soft pictures lie nearer to everything"
    )
