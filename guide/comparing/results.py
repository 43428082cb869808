"""What a comparison came to: rows, effects, the choice of strengths, duels, conclusions; and the files that tell them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path

import pandas as pd

from guide.comparing.asked import Asked
from guide.comparing.choice import default_of
from guide.comparing.conclusions import conclusions
from guide.comparing.effects import ALL, Contrast, Effect, duels, effects
from guide.comparing.plan import Plan
from guide.record import commit, typed, versions
from guide.statistics import Interval
from probes import distance
from probes.atomic import replacing, write_text
from probes.plain import plain

MOST_DUELS = 10


@dataclass(frozen=True)
class Results:
    """`rows`: every picture, also those on which strengths were chosen (`set` "choice"); `effects`: of those that report alone.

    `duels`: every two of the chosen arms in the first judge's log-odds, by setting and wording. `spending`: seconds and calls a picture by
    setting and arm beside the budget, where there was one.
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
            some = report[
                (report["named"] == scope[1])
                & (
                    report["model"]
                    + ", "
                    + report["setting_steps"].astype(str)
                    + " steps, CFG "
                    + report["guidance_scale"].map("{:g}".format)
                    == scope[0]
                )
            ]
            fights[scope] = duels(some, arms, f"{asked.judges[0]}_log_odds")
        notes = _notes(found, asked, summary, choice, plans)
        return cls(rows, asked, found, tuple(choice), fights, tuple(conclusions(found, choice, asked)), tuple(notes), plans, summary)

    @property
    def judge(self) -> str:
        """The first judge, who gives the verdict."""
        return self.asked.judges[0]

    def overall(self) -> list[Effect]:
        return [effect for effect in self.effects if effect.style == ALL]

    def spent(self) -> dict[str, float]:
        """Totals by arm, for the record."""
        totals = self.rows.groupby("arm", sort=False)[["seconds", "denoiser_calls"]].sum()
        return {f"{arm} {name}": float(value) for arm, row in totals.iterrows() for name, value in row.items()}

    def save(self, folder: Path) -> None:
        """results.parquet, results.csv, results.json, table.md, table.tex, plots (PNG and SVG), grids and report.html."""
        from guide.comparing import grids, plots, report, tables

        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "results.parquet") as temporary:
            self.rows.to_parquet(temporary, index=False)
        with replacing(folder / "results.csv") as temporary:
            self.rows.drop(columns="features").to_csv(temporary, index=False, float_format="%.6g")
        write_text(folder / "results.json", json.dumps(plain(self.to_dict()), indent=1, ensure_ascii=False) + "\n")
        write_text(folder / "table.md", tables.markdown(self))
        write_text(folder / "table.tex", tables.latex(self))
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
            "samplers": {setting: one.samplers for setting, one in self.plans.items()},
            "conclusions": list(self.conclusions),
            "notes": list(self.notes),
            "reliability": self.summary.get("reliability", {}),
            "encoder": self.summary.get("encoder"),
            "judge": self.summary.get("judge"),
        }

    def table(self):
        """For a terminal of 80 columns."""
        from guide.comparing.tables import terminal

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


def _notes(found: Sequence[Effect], asked: Asked, summary: dict, choice: Sequence[dict], plans: Mapping[str, Plan]) -> list[str]:
    """What a reader has to know: methods, choice, samplers, what is missing, how far readings can be trusted."""
    first = asked.judges[0]
    intervals: dict[str, Interval] = {e.contrasts[f"{first}_gain"].difference.method: None for e in found if e.contrasts}
    notes = [f"Intervals (95 %) of paired differences: {'; '.join(filter(None, intervals))}."] if intervals else []
    notes.append(
        "Bold: p < .05 (mean of the bootstrap-t's and Student's t's) after Holm's correction over all arms of the table, and an interval "
        "without 0. "
        "Wilcoxon's test is on the means of the prompts."
    )
    if choice:
        said = ", ".join(dict.fromkeys(row["arm"] for row in choice if row["chosen"]))
        notes.append(
            f"Strengths chosen by the referee on seeds {_span(asked.choosing())}, which report nothing: {said}. The referee's own "
            "column is therefore not impartial between strengths; the verdict's is."
        )
    for setting, one in plans.items():
        if others := [f"{kind} ({words})" for kind, words in one.samplers.items() if kind]:
            plain_one = one.samplers.get("", "")
            notes.append(
                f"{setting}: the sampler is {plain_one}; strategies that need another ({', '.join(others)}) are compared with the "
                "plain pipeline on that one."
            )
        if one.amount is not None:
            notes.append(_spending(setting, one, asked, found))
    if missing := distance.lpips_missing():
        notes.append(f"LPIPS is left out: {missing}.")
    notes.append(
        "Denoiser calls are images through the denoiser (conditional and unconditional count apart, replays again); what runs "
        "backward is in the seconds. Peak memory is the process's."
    )
    notes.append("Diversity within a prompt is in the first judge's features; recall: of the plain pipeline's pictures.")
    return [
        *notes,
        *(
            f"Reliability of {name}: {sentence}." if not sentence.endswith(".") else f"Reliability of {name}: {sentence}"
            for name, sentence in summary.get("reliability", {}).items()
        ),
    ]


def _spending(setting: str, one: Plan, asked: Asked, found: Sequence[Effect]) -> str:
    what = "seconds" if asked.budget.startswith("seconds") else "denoiser_calls"
    unit = what.replace("_", " ")
    spent = [(e.arm, e.means[what]) for e in found if e.style == ALL and e.setting == setting and e.strategy != "unguided"]
    shares = [value / one.amount for _, value in spent if not isnan(value)]
    if not shares:
        return f"{setting}: the budget is {one.amount:.3g} {unit} a picture."
    return (
        f"{setting}: the budget is {one.amount:.3g} {unit} a picture; the arms spent {min(shares):.0%} to {max(shares):.0%} of it "
        f"({', '.join(f'{arm}: {value:.3g}' for arm, value in dict(spent).items())})."
    )


def _span(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
