"""The tables of a comparison, defined once, for a terminal of 80 columns, Markdown, LaTeX and the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING

from guide.comparing.effects import ALL, PROMPT_ALONE, Effect, said
from guide.statistics import Interval

if TYPE_CHECKING:
    from guide.comparing.results import Results

FEW_STYLES = 4  # up to which a terminal shows them one by one


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """`columns` after the first are figures; `about` says what a reader needs to read it; `detail`: too long for a terminal."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    about: str = ""
    detail: bool = False


def tables(results: "Results") -> Iterator[Table]:
    """All of them, the most important first."""
    overall = results.overall()
    several = len({e.setting for e in overall}) > 1
    for setting, named in dict.fromkeys((e.setting, e.named) for e in overall):
        some = [e for e in overall if (e.setting, e.named) == (setting, named)]
        where = f" ({setting})" if several else ""
        words = "the prompt names the style" if named else "by guidance alone, the prompt does not name the style"
        shown = [e for e in some if e.chosen]
        yield _gains(f"Gains in log-odds, {words}{where}", [e for e in shown if e.contrasts], results.judge)
        yield _kept(f"Style kept, {words}{where}", shown, results.judge)
        yield from _best(results, f"Against best-of at equal seconds, {words}{where}", [e for e in shown if e.against_best], setting)
        yield _damage(f"Damage, {words}{where}", [e for e in shown if e.contrasts], results.judge)
        yield _changes(f"What else changes, {words}{where}", [e for e in shown if e.contrasts], results.judge)
        yield _likeness(f"Likeness and diversity, {words}{where}", shown, results.judge)
        yield _costs(f"What a picture costs, {words}{where}", shown)
        if len(some) > len(shown):
            yield _frontier(f"Every strength, {words}{where}", [e for e in some if e.contrasts], results.judge, results.choice)
        yield from _styles(results, setting, named, words + where)
        yield from _duels(results, setting, named, words + where)
    yield from _sources(results, several)
    yield from _budget(results, several)
    if results.choice:
        yield _choice(results)


def _gains(title: str, some: Sequence[Effect], judge: str) -> Table:
    rows = []
    for e in some:
        guide, own = e.contrasts["guide_gain"], e.contrasts[f"{judge}_gain"]
        rows.append(
            (
                Cell(e.arm),
                interval(guide.difference, guide.significant),
                interval(own.difference, own.significant),
                Cell(p(own.adjusted)),
                Cell(p(own.wilcoxon_adjusted)),
                Cell(said(own.wins.mean, "{:.0%}")),
            )
        )
    about = f"Over the same seeds unguided, paired; p{_holm(some)} of the {judge}'s gain by the interval's method; Wilcoxon's; pairs won."
    return Table(title, ("arm", "guide", judge, "p", "W.", "won"), tuple(rows), about)


def _holm(some: Sequence) -> str:
    return " (Holm)" if len(some) > 1 else ""


def _kept(title: str, some: Sequence[Effect], judge: str) -> Table:
    kept, rows = f"{judge}_kept", []
    for e in some:
        more = e.contrasts.get(kept)
        cells = [Cell(e.arm), Cell(said(e.means.get(kept), "{:.0%}")), interval(more.difference, more.significant) if more else Cell("")]
        transfer = e.transfer.get(judge)
        rows.append((*cells, Cell(_signed(transfer) if transfer else "")))
    recall = next((e.recall for e in some), None)
    real = f"of real paintings of these styles it recognises {recall:.0%}" if recall is not None else "its recall on real ones is not known"
    about = (
        f"Kept: the {judge}'s first style is the intended one; {real}. Transfer: its gain per gain of the guide (Fieller's interval), "
        "undefined where the guide's interval has 0 in it."
    )
    return Table(title, ("arm", "kept", "more than plain", "transfer"), tuple(rows), about)


def _signed(found: Interval) -> str:
    return "undefined" if found.mean != found.mean else str(found)


def _best(results: "Results", title: str, some: Sequence[Effect], setting: str) -> Iterator[Table]:
    """What guidance has to beat, and what that cost beside it."""
    shares = {(one.arm, one.beside): one for one in results.spending if one.beside and one.setting == setting}
    rows = []
    for e in some:
        best, cost = e.against_best, shares.get((e.arm, e.rival))
        share = said(cost.share) + (" (!)" if cost.off else "") if cost else "-"
        rows.append(
            (
                Cell(e.arm),
                Cell(e.rival),
                Cell(share),
                interval(best.difference, best.significant),
                Cell(p(best.adjusted)),
                Cell(said(best.wins.mean, "{:.0%}")),
            )
        )
    about = (
        f"The {results.judge}'s log-odds less those of best-of, paired; p{_holm(some)}; pairs won. Cost: the arm's seconds of computing "
        "over best-of's, measured side by side; (!): off by more than a tenth."
    )
    if rows:
        yield Table(title, ("arm", "best-of", "cost", "less best-of", "p", "won"), tuple(rows), about)


def _damage(title: str, some: Sequence[Effect], judge: str) -> Table:
    rows = []
    for e in some:
        own, guide = e.contrasts["severity"], e.contrasts["artifacts"]
        rows.append((Cell(e.arm), *(Cell(finer(one.difference), one.significant) for one in (own, guide))))
    about = (
        f"Changes against the same seed unguided: the severity of damage that the {judge} sees, and the artifact probe of the guide's own "
        "encoder, both from 0 to 1, more is worse."
    )
    return Table(title, ("arm", f"{judge}'s severity", "guide's artifact probe"), tuple(rows), about)


def _changes(title: str, some: Sequence[Effect], judge: str) -> Table:
    names = {
        f"{judge}_year_error": ("years", "{:+.1f}"),
        "content": ("content", "{:+.3f}"),
        "saturation": ("saturation", "{:+.3f}"),
        "contrast": ("contrast", "{:+.3f}"),
        "high_frequency": ("fine detail", "{:+.3f}"),
    }
    rows = tuple(
        (
            Cell(e.arm),
            *(Cell(said(one.difference.mean, form), one.significant) for name, (_, form) in names.items() for one in [e.contrasts[name]]),
        )
        for e in some
    )
    about = (
        f"Changes against the same seed unguided: years off the style's span as the {judge} dates pictures, likeness to the prompt's "
        "words, statistics of the image. Intervals are in results.json."
    )
    return Table(title, ("arm", *(name for name, _ in names.values())), rows, about)


def _likeness(title: str, some: Sequence[Effect], judge: str) -> Table:
    words = {"ms_ssim": "MS-SSIM", "feature_distance": "features", "lpips": "LPIPS", "vendi": "Vendi", "recall": "recall"}
    names = [name for name in words if any(not isnan(e.means.get(name, nan)) for e in some)]
    rows = tuple(
        (Cell(e.arm), *(Cell(said(e.means.get(name)) if e.contrasts or name in ("vendi", "recall") else "") for name in names))
        for e in some
    )
    about = f"MS-SSIM and distance of the {judge}'s features (1 - cosine) to the same seed unguided"
    about += "; within a prompt, the Vendi score, and the recall of the plain pipeline's pictures." if "vendi" in names else "."
    return Table(title, ("arm", *(words[name] for name in names)), rows, about)


def _costs(title: str, some: Sequence[Effect]) -> Table:
    names = (
        ("seconds", "{:.2f}"),
        ("compute_seconds", "{:.2f}"),
        ("denoiser_calls", "{:.0f}"),
        ("decodes", "{:.0f}"),
        ("encoder_calls", "{:.0f}"),
        ("peak_memory", "{:.1f}"),
    )
    rows = tuple((Cell(e.arm), *(Cell(said(e.means.get(name), form)) for name, form in names)) for e in some)
    return Table(
        title,
        ("arm", "seconds", "computing", "denoiser calls", "decodes", "encoder", "GiB"),
        rows,
        "Of one picture: seconds by the clock and of computing (this process's own processor time; on a GPU the clock's), images through "
        "each network, memory of the whole process.",
    )


def _frontier(title: str, some: Sequence[Effect], judge: str, choice: Sequence[dict]) -> Table:
    rows, chosen = [], {row["arm"] for row in choice if row["chosen"] and row["setting"] == some[0].setting}
    for e in some:
        guide, own = e.contrasts["guide_gain"], e.contrasts[f"{judge}_gain"]
        rows.append(
            (
                Cell(e.arm + (" (chosen)" if e.arm in chosen else "")),
                interval(guide.difference, guide.significant),
                interval(own.difference, own.significant),
                Cell(said(e.means.get("ms_ssim"))),
                Cell(said(e.means.get("seconds"))),
            )
        )
    about = "On the reporting seeds; MS-SSIM to the same seed unguided, seconds by the clock."
    return Table(title, ("arm", "guide", judge, "MS-SSIM", "seconds"), tuple(rows), about, detail=True)


def _styles(results: "Results", setting: str, named: bool, words: str) -> Iterator[Table]:
    some = [e for e in results.effects if e.style != ALL and (e.setting, e.named) == (setting, named) and e.chosen and e.contrasts]
    if not some:
        return
    kept = f"{results.judge}_kept"
    plain = {e.style: e for e in results.effects if (e.setting, e.named, e.arm) == (setting, named, "unguided")}
    rows = []
    for e in some:
        own = e.contrasts[f"{results.judge}_gain"]
        rows.append(
            (
                Cell(e.style),
                Cell(e.arm),
                Cell(f"{said(plain[e.style].means.get(kept), '{:.0%}')} to {said(e.means.get(kept), '{:.0%}')}"),
                interval(own.difference, own.significant),
                Cell(said(e.recall, "{:.0%}")),
            )
        )
    many = len({e.style for e in some}) > FEW_STYLES
    yield Table(
        f"Style by style, {words}",
        ("style", "arm", "kept", results.judge, "real"),
        tuple(rows),
        f"Kept unguided, and by the arm; gain in log-odds; the {results.judge}'s recall on real paintings.",
        detail=many,
    )


def _duels(results: "Results", setting: str, named: bool, words: str) -> Iterator[Table]:
    some = results.duels.get((setting, named), {})
    if len(some) < 2:
        return
    arms = {e.arm for e in results.overall() if (e.setting, e.named) == (setting, named) and e.chosen}
    left = len(arms) - len({arm for pair in some for arm in pair})
    more = f" Of the last {left} arms there are no pairs here." if left else ""
    rows = [
        (
            Cell(f"{a} - {b}"),
            interval(one.difference, one.significant),
            Cell(p(one.adjusted)),
            Cell(said(one.wins.mean, "{:.0%}")),
            Cell(str(one.needed)),
        )
        for (a, b), one in some.items()
    ]
    yield Table(
        f"Two by two, {words}",
        ("arms", f"{results.judge}'s difference", "p", "won", "would take"),
        tuple(rows),
        f"Log-odds of the first less those of the second; prompts x seeds of each that would tell them apart (p < .05, before any "
        f"correction) in 8 of 10 experiments if the difference is as large as it looks.{more}",
        detail=True,
    )


def _sources(results: "Results", several: bool) -> Iterator[Table]:
    overall = results.overall()
    for setting in dict.fromkeys(e.setting for e in overall):
        some = [
            e for e in overall if e.setting == setting and e.chosen and e.strategy not in PROMPT_ALONE[1:] and not _sampled(e)
        ]
        if len({e.named for e in some}) < 2:
            continue
        rows, kept, odds = [], f"{results.judge}_kept", f"{results.judge}_log_odds"
        for strategy in dict.fromkeys(e.arm for e in some):
            both = {e.named: e for e in some if e.arm == strategy}
            if len(both) == 2:
                cells = (
                    Cell(said(both[named].means.get(name), form))
                    for name, form in ((kept, "{:.0%}"), (odds, "{:+.2f}"))
                    for named in (False, True)
                )
                rows.append((Cell(strategy), *cells))
        yield Table(
            f"Where the style comes from{f' ({setting})' if several else ''}",
            ("arm", "kept, not named", "kept, named", "log-odds, not named", "named"),
            tuple(rows),
            "Not named: a prompt without the style's name, so that guidance alone has to bring it. The row of the plain pipeline: "
            "neither, and the prompt's words alone.",
        )


def _sampled(effect: Effect) -> bool:
    return effect.strategy == "unguided" and effect.arm != "unguided"


def _choice(results: "Results") -> Table:
    rows = tuple(
        (
            Cell(row["arm"] + (f" ({row['setting']})" if len({r["setting"] for r in results.choice}) > 1 else "")),
            Cell(_gain(row)),
            Cell("chosen" if row["chosen"] else ""),
        )
        for row in results.choice
    )
    return Table(
        "How the strengths were chosen",
        ("arm", "referee's gain", ""),
        rows,
        "On seeds that report nothing, all styles and wordings together.",
    )


def _gain(row: dict) -> str:
    """An interval of choice.json, where what is not known is None."""
    low, high = (nan if row[name] is None else row[name] for name in ("low", "high"))
    return "-" if row["gain"] is None or isnan(row["gain"]) else str(Interval(row["gain"], low, high, 0, 0, ""))


def _budget(results: "Results", several: bool) -> Iterator[Table]:
    """Whether the arms spent what they were to spend."""
    own = [one for one in results.spending if not one.beside]
    seconds = results.asked.budget.startswith("seconds")
    for setting in dict.fromkeys(one.setting for one in own):
        rows = tuple(
            (
                Cell(one.arm),
                Cell(said(one.share, "{:.1%}")),
                Cell(said(one.seconds)),
                Cell(said(one.calls, "{:.1f}")),
                Cell("misses by more than a tenth" if one.off else ""),
            )
            for one in own
            if one.setting == setting
        )
        how = "seconds of computing, beside the plain pipeline's at the same seeds" if seconds else "denoiser calls, counted"
        yield Table(
            f"Equal budget{f' ({setting})' if several else ''}",
            ("arm", "of the budget", "computing", "calls", ""),
            rows,
            f"What a picture cost as a share of the budget, in {how}; then its seconds of computing and denoiser calls.",
        )


def finer(found: Interval) -> str:
    """As an interval is written, with three digits."""
    if isnan(found.mean):
        return "undefined"
    return f"{found.mean:+.3f}" + ("" if isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]")


def interval(found: Interval, bold: bool = False) -> Cell:
    return Cell(str(found), bold)


def p(value: float) -> str:
    """Three digits at most."""
    return "-" if value != value else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"
