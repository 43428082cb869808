"""The tables of a comparison as a terminal, Markdown and LaTeX show them."""

import re
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from guide.comparing.tables import Cell, Table, tables

if TYPE_CHECKING:
    from guide.comparing.results import Results


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
    parts = ["\n".join(f"- {escaped(sentence)}" for sentence in results.conclusions)]
    parts += ["\n".join(table_lines(table)) for table in tables(results)]
    parts += ["\n".join(f"- {escaped(note)}" for note in results.notes)]
    return "\n\n".join(parts).strip() + "\n"


def table_lines(table: Table, heading: str = "##") -> list[str]:
    """The lines of one table below its heading."""

    def text(cell: Cell) -> str:
        return f"**{escaped(cell.text)}**" if cell.bold and cell.text else escaped(cell.text)

    lines = [f"{heading} {escaped(table.title)}", "", *([escaped(table.about), ""] if table.about else [])]
    lines += ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    return lines + ["| " + " | ".join(map(text, row)) + " |" for row in table.rows]


def escaped(text: str) -> str:
    """What Markdown would take for its own is marked as text; an interval's brackets are none of it."""
    return re.sub(r"([\\|*_`<>]|\[(?![+-]?[.\d])|(?<![\d%])\])", r"\\\1", text)


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
        words = re.sub(r"(?<!\w)-(?=[\d.])", "$-$", words)  # a minus, not a hyphen
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
