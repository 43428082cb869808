"""What a comparison came to: rows, effects, the choice of strengths, duels, conclusions; and the files that tell them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from guide.comparing.asked import Asked
from guide.comparing.choice import default_of
from guide.comparing.conclusions import conclusions
from guide.comparing.effects import ALL, Contrast, Effect, duels, effects, setting_of
from guide.comparing.plan import Plan
from guide.comparing.remarks import remarks
from guide.comparing.spending import Spent, against_best, against_budget
from guide.record import commit, typed, versions
from probes.atomic import replacing, write_text
from probes.plain import plain

MOST_DUELS = 10


@dataclass(frozen=True)
class Results:
    """`rows`: every picture, also those on which strengths were chosen (`set` "choice"); `effects`: of those that report alone.

    `duels`: every two of the chosen arms in the first judge's log-odds, by setting and wording. `spending`: what each arm spent beside
    the budget, where there was one, and beside its best-of.
    """

    rows: pd.DataFrame
    asked: Asked
    effects: tuple[Effect, ...]
    choice: tuple[dict, ...]
    duels: dict[tuple[str, bool], dict[tuple[str, str], Contrast]]
    conclusions: tuple[str, ...]
    notes: tuple[str, ...]
    plans: Mapping[str, Plan] = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    spending: tuple[Spent, ...] = ()

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        asked: Asked,
        summary: dict,
        recall: Mapping[str, float],
        choice: Sequence[dict],
        rivals: Mapping[tuple[str, str], str],
        plans: Mapping[str, Plan],
    ) -> "Results":
        report = rows[rows["set"] == "report"]
        stands = {(row["setting"], row["strategy"]): row["arm"] for row in choice if row["chosen"]}
        found = tuple(effects(report, asked.judges, recall, stands, rivals))
        fights = {}
        for scope in dict.fromkeys((e.setting, e.named) for e in found):
            arms = [e.arm for e in found if e.style == ALL and (e.setting, e.named) == scope and e.chosen][:MOST_DUELS]
            some = report[(report["named"] == scope[1]) & (setting_of(report) == scope[0])]
            fights[scope] = duels(some, arms, f"{asked.judges[0]}_log_odds")
        spent = (*against_budget(report, asked.budget, plans), *against_best(report, rivals))
        notes = tuple(remarks(found, asked, summary, choice, plans, spent))
        said = tuple(conclusions(found, choice, asked, fights))
        return cls(rows, asked, found, tuple(choice), fights, said, notes, plans, summary, spent)

    @property
    def judge(self) -> str:
        """The first judge, who gives the verdict."""
        return self.asked.judges[0]

    def overall(self) -> list[Effect]:
        return [effect for effect in self.effects if effect.style == ALL]

    def spent(self) -> dict[str, float]:
        """Totals by arm, for the record."""
        names = [name for name in ("seconds", "compute_seconds", "denoiser_calls") if name in self.rows]
        totals = self.rows.groupby("arm", sort=False)[names].sum()
        return {f"{arm} {name}": float(value) for arm, row in totals.iterrows() for name, value in row.items()}

    def save(self, folder: Path) -> None:
        """results.parquet, results.csv, results.json, table.md, table.tex, benchmark.md, plots (PNG and SVG), grids and report.html."""
        from guide.comparing import grids, plots, publishing, rendering, report

        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "results.parquet") as temporary:
            self.rows.to_parquet(temporary, index=False)
        with replacing(folder / "results.csv") as temporary:
            self.rows.drop(columns="features").to_csv(temporary, index=False, float_format="%.6g")
        write_text(folder / "results.json", json.dumps(plain(self.to_dict()), indent=1, ensure_ascii=False) + "\n")
        write_text(folder / "table.md", rendering.markdown(self))
        write_text(folder / "table.tex", rendering.latex(self))
        write_text(folder / "benchmark.md", publishing.section(self))
        plots.save(self, folder / "plots")
        grids.save(self, folder)
        write_text(folder / "report.html", report.page(self))

    def to_dict(self) -> dict:
        """All figures as plain values; an interval is {mean, low, high, pairs, clusters, method, p}."""
        return {
            "kind": "compare",
            "command": self.asked.command or typed(),
            "request": vars(self.asked),
            "versions": versions(),
            "git": commit(),
            "pictures": len(self.rows),
            "judges": list(self.asked.judges),
            "effects": [_effect(e) for e in self.effects],
            "choice": list(self.choice),
            "default": default_of(self.choice),
            "duels": [
                {"setting": setting, "named": named, "a": a, "b": b, **_contrast(one)}
                for (setting, named), some in self.duels.items()
                for (a, b), one in some.items()
            ],
            "budget": {setting: one.amount for setting, one in self.plans.items()},
            "spending": [vars(one) | {"off": one.off} for one in self.spending],
            "samplers": {setting: one.samplers for setting, one in self.plans.items()},
            "conclusions": list(self.conclusions),
            "notes": list(self.notes),
            "reliability": self.summary.get("reliability", {}),
            "encoder": self.summary.get("encoder"),
            "judge": self.summary.get("judge"),
        }

    def table(self):
        """For a terminal of 80 columns."""
        from guide.comparing.rendering import terminal

        return terminal(self)


def _effect(effect: Effect) -> dict:
    told = {name: value for name, value in vars(effect).items() if name not in ("contrasts", "transfer", "against_best")}
    return told | {
        "source": effect.source,
        "contrasts": {name: _contrast(one) for name, one in effect.contrasts.items()},
        "transfer": {judge: vars(one) for judge, one in effect.transfer.items()},
        "against_best": _contrast(effect.against_best) if effect.against_best else None,
    }


def _contrast(one: Contrast) -> dict:
    return {
        "difference": vars(one.difference),
        "p_adjusted": one.adjusted,
        "wilcoxon": one.wilcoxon,
        "wilcoxon_adjusted": one.wilcoxon_adjusted,
        "significant": one.significant,
        "wins": vars(one.wins) if one.wins else None,
        "needed": asdict(one.needed) if one.needed else None,
    }
