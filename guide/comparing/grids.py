"""Pictures of a comparison side by side: the same seeds in every column, never picked; and the worst ones in the judge's eyes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from guide import sheet
from guide.comparing.effects import ALL, Effect, said
from guide.record import typed
from probes.image import load, to_pil

if TYPE_CHECKING:
    from guide.comparing.results import Results

SHOWN, WORST = 8, 12  # columns: the first seeds, whichever they are
MOST_ROWS = 16  # of a page, which then is some 4,500 pixels high
KEYS = ["model", "setting_steps", "guidance_scale", "style", "named"]


def shown(results: "Results") -> list[Effect]:
    """The arms whose pictures are shown: those that stand for their strategies."""
    return [effect for effect in results.effects if effect.chosen and effect.style != ALL] or [e for e in results.overall() if e.chosen]


def blocks(results: "Results") -> list[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """A heading for each style and wording, and below it (arm, its rows at the first seeds in order of the seeds)."""
    report = results.rows[results.rows["set"] == "report"]
    arms = list(dict.fromkeys(effect.arm for effect in results.effects if effect.chosen))
    several = len(report[KEYS[:3]].drop_duplicates()) > 1
    found = []
    for (model, steps, scale, style, named), part in report.groupby(KEYS, sort=False):
        first = part.drop_duplicates("seed")["seed"].tolist()[:SHOWN]
        order = {seed: k for k, seed in enumerate(first)}
        part = part[part["seed"].isin(first)].drop_duplicates(["arm", "seed"])
        rows = [(arm, some.sort_values("seed", key=lambda s: s.map(order))) for arm in arms if len(some := part[part["arm"] == arm])]
        heading = style + (", named in the prompt" if named else ", by guidance alone")
        found.append((heading + (f" ({model}, {steps} steps, CFG {scale:g})" if several else ""), rows))
    return found


def worst(results: "Results", count: int = WORST) -> pd.DataFrame:
    """The guided pictures that the judge likes least against the same seed unguided, the worst first."""
    report = results.rows[results.rows["set"] == "report"]
    column = f"{results.judge}_log_odds"
    base = report.rename(columns={column: "before", "image": "image_before"})[[*KEYS, "prompt", "seed", "arm", "before", "image_before"]]
    guided = report[report["strategy"] != "unguided"]
    pairs = guided.merge(
        base, left_on=[*KEYS, "prompt", "seed", "baseline"], right_on=[*KEYS, "prompt", "seed", "arm"], suffixes=("", "_base")
    )
    return pairs.assign(lost=pairs[column] - pairs["before"]).dropna(subset=["lost"]).sort_values("lost", kind="stable").head(count)


Block = tuple[str, list[tuple[str, pd.DataFrame]]]


def pages(found: Sequence[Block], most: int = MOST_ROWS) -> list[list[Block]]:
    """The blocks on as few pages as hold `most` rows each. A longer block goes on on the next page, below its first row, the plain
    pipeline's, which stands there again."""
    done: list[list[Block]] = [[]]
    for heading, rows in found:
        first, rest = rows[:1], rows[1:]
        parts = [rest[start : start + most - 1] for start in range(0, max(len(rest), 1), most - 1)]
        for k, part in enumerate(parts):
            block = (heading + (", continued" if k else ""), [*first, *part])
            if done[-1] and sum(len(some) for _, some in done[-1]) + len(block[1]) > most:
                done.append([])
            done[-1].append(block)
    return [page for page in done if page]


def sheets(results: "Results") -> dict[str, list[Block]]:
    """By file name: grid.png where one page holds them all, else pages of each style in a folder."""
    found = blocks(results)
    if sum(len(rows) for _, rows in found) <= MOST_ROWS:
        return {"grid.png": found}
    styles: dict[str, list[Block]] = {}
    for heading, rows in found:
        styles.setdefault(rows[0][1]["style"].iloc[0], []).append((heading, rows))
    names = {}
    for style, some in styles.items():
        slug = re.sub(r"[^a-z0-9.]+", "-", style.lower()).strip("-")
        for k, page in enumerate(pages(some)):
            names[f"grids/{slug}{f'-{k + 1}' if k else ''}.png"] = page
    return names


def save(results: "Results", folder: Path) -> None:
    """grid.png, or grids/STYLE.png where there are too many rows for one picture, and worst.png."""
    source, judge = results.asked.out, results.judge

    def cell(row: pd.Series) -> sheet.Cell:
        subject = f"{row['seed']}: {row['prompt']}" if row["prompt"] else f"seed {row['seed']}"
        return sheet.Cell(to_pil(load(source / row["image"])), (subject, caption(row, judge)))

    command = results.asked.command or typed()
    found = sheets(results)
    for old in [folder / "grid.png", *(folder / "grids").glob("*.png")]:
        if old.relative_to(folder).as_posix() not in found:
            old.unlink(missing_ok=True)  # of an earlier reading of this run
    for name, page in found.items():
        told = [
            sheet.Block(heading, tuple(sheet.Row(arm, tuple(cell(row) for _, row in some.iterrows())) for arm, some in rows))
            for heading, rows in page
        ]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(folder / name, "The same seeds, arm by arm; the first ones, not picked", told, command)
    low = worst(results)
    if len(low):
        sheet.save(
            folder / "worst.png", f"What the {judge} likes least against the same seed unguided", _pairs(low, source, judge), command
        )


def _pairs(low: pd.DataFrame, source: Path, judge: str) -> list[sheet.Block]:
    rows: list[sheet.Block] = []
    for start in range(0, len(low), SHOWN):
        part: Sequence[pd.Series] = [row for _, row in low.iloc[start : start + SHOWN].iterrows()]
        before = tuple(sheet.Cell(to_pil(load(source / row["image_before"])), (f"{row['style']}, seed {row['seed']}",)) for row in part)
        after = tuple(sheet.Cell(to_pil(load(source / row["image"])), (row["arm"], f"{judge} {row['lost']:+.2f}")) for row in part)
        rows.append(sheet.Block("", (sheet.Row("unguided", before), sheet.Row("guided", after))))
    return rows


def caption(row: pd.Series, judge: str) -> str:
    """`verdict baroque, P 0.38`."""
    return f"{judge}: {row[f'{judge}_style']}, P {said(row[f'{judge}_probability'])}"
