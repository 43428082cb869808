"""The tables of a comparison, defined once, for a terminal of 80 columns, Markdown, LaTeX and the page."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from guide.comparing.effects import ALL, Effect, said
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
        yield _changes(f"What else changes, {words}{where}", shown, results.judge)
        yield _costs(f"What a picture costs, {words}{where}", shown)
        if len(some) > len(shown):
            yield _frontier(f"Every strength, {words}{where}", [e for e in some if e.contrasts], results.judge)
        yield from _styles(results, setting, named, words + where)
        yield from _duels(results, setting, named, words + where)
    yield from _sources(results, several)
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
    about = f"Over the same seeds unguided, paired; p (Holm) of the {judge}'s gain by the interval's method, and Wilcoxon's; pairs won."
    return Table(title, ("arm", "guide", judge, "p", "W.", "won"), tuple(rows), about)


def _kept(title: str, some: Sequence[Effect], judge: str) -> Table:
    kept, rows = f"{judge}_kept", []
    for e in some:
        more = e.contrasts.get(kept)
        cells = [Cell(e.arm), Cell(said(e.means.get(kept), "{:.0%}")), interval(more.difference, more.significant) if more else Cell("")]
        transfer = e.transfer.get(judge)
        best = e.against_best
        rows.append(
            (
                *cells,
                Cell(said(transfer.mean, "{:+.2f}") if transfer else ""),
                interval(best.difference, best.significant) if best else Cell(""),
            )
        )
    recall = next((e.recall for e in some), None)
    real = f"of real paintings of these styles it recognises {recall:.0%}" if recall is not None else "its recall on real ones is not known"
    about = (
        f"Kept: the {judge}'s first style is the intended one; {real}. Transfer: its gain per gain of the guide. Over best-of: its "
        "log-odds less those of best-of at the same cost."
    )
    return Table(title, ("arm", "kept", "more than plain", "transf.", "over best-of"), tuple(rows), about)


def _changes(title: str, some: Sequence[Effect], judge: str) -> Table:
    rows = []
    for e in some:
        own = [e.contrasts[name] if e.contrasts else None for name in ("severity", f"{judge}_year_error", "content", "saturation")]
        forms = ("{:+.3f}", "{:+.0f}", "{:+.3f}", "{:+.3f}")
        changes = [
            Cell(said(one.difference.mean, form), one.significant) if one else Cell("") for one, form in zip(own, forms, strict=True)
        ]
        same = [
            Cell(said(e.means.get(name)) if e.contrasts else "")
            for name in ("ms_ssim", "feature_distance", "lpips")
            if name != "lpips" or name in e.means
        ]
        rows.append((Cell(e.arm), *same, Cell(said(e.means.get("vendi"))), Cell(said(e.means.get("recall"))), *changes))
    lpips = ("LPIPS",) if any("lpips" in e.means for e in some) else ()
    about = (
        f"MS-SSIM and distance of the {judge}'s features (1 - cosine) to the same seed unguided; Vendi score and recall within a prompt; "
        "changes of damage, years off the style's span, content, saturation."
    )
    return Table(title, ("arm", "SSIM", "feat.", *lpips, "Vendi", "recall", "damage", "years", "content", "satur."), tuple(rows), about)


def _costs(title: str, some: Sequence[Effect]) -> Table:
    names = (
        ("seconds", "{:.2f}"),
        ("denoiser_calls", "{:.0f}"),
        ("decodes", "{:.0f}"),
        ("encoder_calls", "{:.0f}"),
        ("peak_memory", "{:.1f}"),
    )
    rows = tuple((Cell(e.arm), *(Cell(said(e.means.get(name), form)) for name, form in names)) for e in some)
    return Table(
        title, ("arm", "seconds", "denoiser calls", "decodes", "encoder", "GiB"), rows, "Images through each network, of one picture."
    )


def _frontier(title: str, some: Sequence[Effect], judge: str) -> Table:
    rows = []
    for e in some:
        guide, own = e.contrasts["guide_gain"], e.contrasts[f"{judge}_gain"]
        rows.append(
            (
                Cell(e.arm + (" (chosen)" if e.chosen and e.strategy != "best-of" else "")),
                interval(guide.difference, guide.significant),
                interval(own.difference, own.significant),
                Cell(said(e.means.get("ms_ssim"))),
                Cell(said(e.means.get("seconds"))),
            )
        )
    return Table(title, ("arm", "guide", judge, "SSIM", "s"), tuple(rows), "On the reporting seeds.", detail=True)


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
                Cell(f"{said(plain[e.style].means.get(kept), '{:.0%}')} > {said(e.means.get(kept), '{:.0%}')}"),
                interval(own.difference, own.significant),
                Cell(said(e.recall, "{:.0%}")),
            )
        )
    many = len({e.style for e in some}) > FEW_STYLES
    yield Table(
        f"Style by style, {words}",
        ("style", "arm", "kept", results.judge, "real"),
        tuple(rows),
        f"Kept unguided and then; gain in log-odds; the {results.judge}'s recall on real paintings.",
        detail=many,
    )


def _duels(results: "Results", setting: str, named: bool, words: str) -> Iterator[Table]:
    some = results.duels.get((setting, named), {})
    if len(some) < 2:
        return
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
        "Log-odds of the first less those of the second; seeds for each prompt, or prompts, that would tell them apart in 8 of 10 "
        "experiments if the difference is as large as it looks.",
        detail=True,
    )


def _sources(results: "Results", several: bool) -> Iterator[Table]:
    overall = results.overall()
    for setting in dict.fromkeys(e.setting for e in overall):
        some = [
            e for e in overall if e.setting == setting and e.chosen and e.strategy not in ("cfg", "apg", "interval") and not _sampled(e)
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
            Cell(f"{said(row['gain'], '{:+.2f}')} [{said(row['low'], '{:+.2f}')}, {said(row['high'], '{:+.2f}')}]"),
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


def interval(found: Interval, bold: bool = False) -> Cell:
    return Cell(str(found), bold)


def p(value: float) -> str:
    """Three digits at most."""
    return "-" if value != value else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def terminal(results: "Results") -> Group:
    """Tables of at most 80 columns, what they come to, what to know about them."""
    parts: list = []
    for table in tables(results):
        if table.detail:
            continue
        shown = RichTable(
            title=table.title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            caption=table.about or None,
            caption_justify="left",
            caption_style="dim",
        )
        for k, column in enumerate(table.columns):
            text = k == 0 or column == "arm"
            shown.add_column(column, justify="left" if text else "right", no_wrap=not text, overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(cell.text, "bold" if cell.bold else "") for cell in row))
        parts.append(shown)
    lines = [*(f"* {sentence}" for sentence in results.conclusions), "", *results.notes]
    return Group(*parts, Text("\n".join(lines)))


def markdown(results: "Results") -> str:
    """Every table as Markdown, and the sentences."""

    def text(cell: Cell) -> str:
        escaped = re.sub(r"([\\|*_`<>\[\]])", r"\\\1", cell.text)
        return f"**{escaped}**" if cell.bold and escaped else escaped

    parts = [f"- {text(Cell(sentence))}" for sentence in results.conclusions]
    for table in tables(results):
        lines = [f"## {text(Cell(table.title))}", "", text(Cell(table.about)), ""]
        lines += ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
        lines += ["| " + " | ".join(map(text, row)) + " |" for row in table.rows]
        parts.append("\n".join(lines))
    return (
        "\n\n".join(
            [
                "\n".join(parts[: len(results.conclusions)]),
                *parts[len(results.conclusions) :],
                "\n".join(f"- {text(Cell(note))}" for note in results.notes),
            ]
        ).strip()
        + "\n"
    )


def latex(results: "Results") -> str:
    """Every table as a LaTeX `table` with rules of booktabs; bold is significance."""
    held = {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }

    def escaped(words: str) -> str:
        return "".join(held.get(letter, letter) for letter in words)

    def text(cell: Cell) -> str:
        # A group in front of a bracket, which LaTeX would take for an option of the row's end.
        words = re.sub(r"^\[", "{[}", escaped(cell.text))
        return rf"\textbf{{{words}}}" if cell.bold and words else words

    parts = ["% Needs \\usepackage{booktabs}."]
    for table in tables(results):
        body = "\n".join("  " + " & ".join(map(text, row)) + r" \\" for row in table.rows)
        head = "  " + " & ".join(escaped(column) for column in table.columns) + r" \\"
        columns = "l" * (2 if table.columns[1:2] == ("arm",) else 1)
        columns += "r" * (len(table.columns) - len(columns))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering\small",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    head,
                    r"\midrule",
                    body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    rf"\caption{{{escaped(table.title)}. {escaped(table.about)}}}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"
