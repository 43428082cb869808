"""`guide compare` on the embedded model: what it writes, going on after a kill, two processes, reading anew, going by the plan."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from guide import record, run
from guide.brief import Brief
from guide.comparing import making, plan, tournament
from guide.comparing.asked import Asked, cells
from guide.comparing.report import page
from guide.comparing.suites import resolved, suites
from guide.strategies import presets
from probes.auditing.processes import Process
from probes.errors import UserError
from probes.image import load

CLOCK = ["seconds", "compute_seconds", "peak_memory"]


def asked(folder, **more):
    given = {"styles": ("baroque",), "strategies": ("clean-image",), "seeds": (0, 4, 1), "choice_seeds": (1000,), "strengths": ("5,20",),
             "style_from": ("both",), "best_of": (2,), "prompt_only": False, "steps": (2,), "batch": 2, "device": "cpu",
             "command": "guide compare"}  # fmt: skip
    return Asked(**{"out": folder, **given, **more})


def same(one, other, columns=()):
    drop = [*CLOCK, *columns]
    pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One comparison of the embedded model, run through."""
    request = asked(tmp_path_factory.mktemp("whole"))
    return request, tournament.compare(request)


def test_a_comparison_writes_what_it_found(finished):
    request, results = finished
    frame = pd.read_parquet(request.out / "results.parquet")
    assert frame.groupby("set").size().to_dict() == {"choice": 3, "report": 12}
    assert set(frame["arm"]) == {"unguided", "clean-image 5", "clean-image 20", "best of 2"}
    assert frame[["style_log_odds", "verdict_log_odds", "referee_log_odds", "year_error", "seconds"]].notna().all(axis=None)
    calls = frame.groupby("strategy")[["denoiser_calls", "decodes"]].mean()
    # Two steps of two predictions each; a guided step decodes its estimate besides; best-of makes two pictures for one.
    assert calls["denoiser_calls"].to_dict() == {"best-of": 8, "clean-image": 4, "unguided": 4}
    assert calls["decodes"].to_dict() == {"best-of": 2, "clean-image": 3, "unguided": 1}
    plain = frame["strategy"] == "unguided"
    assert frame.loc[plain, "ms_ssim"].to_numpy() == pytest.approx(1)
    assert (frame.loc[~plain & (frame["strategy"] != "best-of"), "ms_ssim"] < 0.9999).all()
    for name in ("record.json", "plan.json", "choice.json", "results.json", "results.csv", "table.md", "table.tex", "grid.png", "worst.png",
                 "report.html", "trace.jsonl", "benchmark.md", "plots/frontier-cost.svg", "plots/guide-and-judge.png"):  # fmt: skip
        assert (request.out / name).stat().st_size > 0
    read = record.read(request.out)
    assert (read.complete, read.kind) == (True, "compare")
    assert not list(request.out.rglob("*.part"))
    assert sum(row["chosen"] for row in results.choice) == 1


def test_figures_can_be_had_from_the_rows_by_another_program(finished):
    request, _ = finished
    frame, told = pd.read_parquet(request.out / "results.parquet"), json.loads((request.out / "results.json").read_text())
    report = frame[frame["set"] == "report"]
    wide = report.pivot(index=["prompt", "seed"], columns="arm", values="verdict_log_odds")
    for effect in told["effects"]:
        if effect["contrasts"]:
            difference = wide[effect["arm"]] - wide[effect["baseline"]]
            assert effect["contrasts"]["verdict_gain"]["difference"]["mean"] == pytest.approx(difference.mean())
        kept = report.loc[report["arm"] == effect["arm"], "verdict_kept"].astype(float)
        assert effect["means"]["verdict_kept"] == pytest.approx(kept.mean())
    choice = frame[frame["set"] == "choice"].pivot(index=["prompt", "seed"], columns="arm", values="referee_log_odds")
    gains = {arm: (choice[arm] - choice["unguided"]).mean() for arm in choice.columns if arm != "unguided"}
    assert [row["arm"] for row in told["choice"] if row["chosen"]] == [max(gains, key=gains.get)]


def test_a_killed_comparison_goes_on_to_the_same_result(finished, tmp_path, monkeypatch):
    _, whole = finished
    request, made = asked(tmp_path), []

    def dying(*arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return write(*arguments)

    write = making.write
    monkeypatch.setattr(making, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        tournament.compare(request)
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("seed-*.png")}
    assert left
    gone, cut, *_ = left
    left.pop(gone)
    left.pop(cut)
    gone.unlink()  # a batch of which one picture was lost is made again, its others are kept
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(making, "write", write)
    said = []
    results = tournament.compare(request, notice=said.append)
    assert f"The picture {cut.relative_to(tmp_path)} was not whole and was made again." in said
    assert any("was made again" in note for note in record.read(tmp_path).notes)
    assert torch.equal(load(cut), load(finished[0].out / cut.relative_to(tmp_path)))
    assert all(path.stat().st_mtime_ns == then for path, then in left.items())
    same(results.rows, whole.rows)
    assert repr([e.contrasts for e in results.effects]) == repr([e.contrasts for e in whole.effects])  # nan is nan
    with pytest.raises(UserError, match="another"):
        tournament.compare(replace(request, steps=(3,)))


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:200], lambda data: b"", lambda data: b"no picture" + data,
                                  lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:]])  # fmt: skip
def test_a_picture_that_is_not_whole_is_missing(finished, tmp_path, harm):
    request, _ = finished
    folder = shutil.copytree(next(request.out.glob("baroque_*")), tmp_path / next(request.out.glob("baroque_*")).name).parent
    plans = plan.read(request.out / "plan.json", request.settings())
    every = [job for _, job in plans[0].jobs(request)]
    assert making.missing(every, folder) == []
    path = every[0].paths(folder)[0]
    path.write_bytes(harm(path.read_bytes()))
    assert making.missing(every, folder) == every[:1]
    assert making.broken(every[0], folder) == [path]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(finished, tmp_path):
    _, whole = finished
    request, wait = asked(tmp_path), lambda: None
    assert tournament.compare(request, plan_only=True) is None
    assert not list(tmp_path.rglob("seed-*.png"))
    assert tournament.compare(request, process=Process(1, 2, "cpu", wait)) is None
    share = len(list(tmp_path.rglob("seed-*.png")))
    results = tournament.compare(request, process=Process(0, 2, "cpu", wait))
    assert 0 < share < len(list(tmp_path.rglob("seed-*.png")))
    assert {path.name for path in tmp_path.glob("trace-*")} == {"trace-0-of-2.jsonl", "trace-1-of-2.jsonl"}
    same(results.rows, whole.rows)


def test_a_picture_is_what_generate_makes_of_that_seed(finished, tmp_path):
    request, _ = finished
    brief = Brief(styles=(("baroque", 1.0),))
    made = run.generate(run.Request(brief, tmp_path, seeds=request.seeds, strength=20.0, steps=2, device="cpu", batch=2, command="guide"))
    for seed in request.seeds:
        one = load(run.picture(request.out / "baroque_embedded-2-4", seed, "clean-image-20"))
        assert torch.equal(one, load(run.picture(made.folder, seed, "guided")))


def test_rescoring_makes_no_picture_and_keeps_the_choice(finished):
    request, whole = finished
    before = {path: path.stat().st_mtime_ns for path in request.out.rglob("seed-*.png")}
    results, target = tournament.rescore(request.out, judges=("referee",), device="cpu")
    assert before == {path: path.stat().st_mtime_ns for path in request.out.rglob("seed-*.png")}
    assert target == request.out / "rescored-referee"
    assert (target / "report.html").is_file()
    assert results.judge == "referee"
    assert "verdict_log_odds" not in results.rows
    assert [(row["arm"], row["chosen"]) for row in results.choice] == [(row["arm"], row["chosen"]) for row in whole.choice]
    np.testing.assert_array_equal(results.rows["referee_log_odds"], whole.rows["referee_log_odds"])
    whole_again, _ = tournament.rescore(request.out, request.out / "again", judges=("verdict",), device="cpu")
    same(whole_again.rows, whole.rows[whole_again.rows.columns])
    assert whole_again.conclusions[-1] == whole.conclusions[-1]  # what the referee chose then
    assert whole_again.asked.command == "guide compare"
    with pytest.raises(UserError, match="referee, who is no judge here"):
        tournament.compare(replace(request, judges=("verdict",)))
    (request.out / "plan.json").rename(request.out / "gone")
    with pytest.raises(UserError, match="plan"):
        tournament.rescore(request.out, device="cpu")
    (request.out / "gone").rename(request.out / "plan.json")


def test_the_terminal_gets_at_most_80_columns(finished, tmp_path):
    _, results = finished
    with (tmp_path / "out").open("w") as file:
        console = Console(width=80, record=True, file=file)
        console.print(results.table())
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for part in ("verdict", "kept", "transfer", "SSIM", "denoiser calls", "Holm", "LPIPS", "referee", "best of 2", "Student's t"):
        assert part in text


def test_markdown_and_latex_have_every_table(finished):
    request, _ = finished
    markdown, latex = (request.out / "table.md").read_text(), (request.out / "table.tex").read_text()
    for title in ("Gains in log-odds", "Style kept", "What else changes", "What a picture costs", "How the strengths were chosen"):
        assert f"## {title}" in markdown
        assert rf"\caption{{{title}" in latex
    rows = [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
    assert min(rows) >= 4
    for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", latex, re.S):
        assert len({line.count("&") for line in table.splitlines() if "&" in line}) == 1
    assert not re.search(r"[ &\[]-\d", latex.split(r"\caption")[0])
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}")


def test_no_network_is_asked_for_by_the_page_and_text_is_escaped(finished):
    _, results = finished
    hostile = "<script>alert(1)</script>"
    rows = results.rows.assign(prompt=hostile)
    text = page(replace(results, rows=rows, notes=(hostile,)))
    assert hostile not in text
    assert text.count("<script>") == 1
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text.replace("xlink:href", "href"))
    assert len(re.findall("data:image/webp", text)) >= 12


@pytest.mark.slow
def test_another_sampler_brings_its_own_baseline(tmp_path):
    results = tournament.compare(asked(tmp_path, strategies=("dsg",), strengths=("10",), choice_seeds=(), seeds=(0, 1)))
    rows = results.rows.set_index(["arm", "seed"])
    assert set(results.rows["arm"]) == {"unguided", "unguided, stochastic", "dsg 10", "best of 2"}
    assert rows.loc[("dsg 10", 0), "baseline"] == "unguided, stochastic"
    assert rows.loc[("unguided", 0), "style_log_odds"] != rows.loc[("unguided, stochastic", 0), "style_log_odds"]
    assert any("DDIM with eta 1" in note for note in results.notes)
    assert results.choice == ()


@pytest.mark.slow
def test_a_budget_of_calls_is_met_exactly(tmp_path):
    more = {"strategies": ("dps", "clean-image"), "strengths": ("10",), "best_of": (), "budget": "calls", "steps": (4,)}
    results = tournament.compare(asked(tmp_path, **more))
    named = [one.arm for one in results.spending if not one.beside]
    spent = results.rows[results.rows["arm"].isin(named)].groupby("arm")["denoiser_calls"].mean()
    assert spent.nunique() == 1
    assert len(spent) == 3
    # At equal seconds, which are others than equal calls, there is a best-of too.
    assert {one.arm for one in results.spending if one.beside} == {arm for arm in named if not arm.startswith("best of")}
    assert {one.share for one in results.spending if not one.beside} == {1.0}
    assert results.rows.loc[results.rows["strategy"] == "best-of", "candidates"].min() >= 2


@pytest.mark.slow
def test_a_budget_of_seconds_is_met_on_a_busy_machine(tmp_path):
    more = {"strategies": ("dps", "clean-image"), "strengths": ("10",), "best_of": (), "budget": "seconds", "steps": (10,)}
    results = tournament.compare(asked(tmp_path, choice_seeds=(), **more))
    shares = {one.arm: one.share for one in results.spending if not one.beside}
    assert len(shares) == 3
    # Half a step of ten is a twentieth; the rest is the clock's.
    assert max(abs(share - 1) for share in shares.values()) < 0.2
    assert all(("not within" in note) == any(one.off for one in results.spending if not one.beside)
               for note in results.notes if "the budget is" in note)  # fmt: skip


@pytest.mark.parametrize("key", sorted(suites()))
def test_suites_can_be_asked_for(tmp_path, key):
    request = resolved(tmp_path, key, seeds="0-1")
    assert request.seeds == (0, 1)
    assert request.suite == key
    assert len(request.styles) >= 5
    tournament._checked(request)


def test_the_standard_suite_has_thirty_prompts_and_every_strategy(tmp_path):
    request = resolved(tmp_path, "standard")
    found = cells(request, request.settings()[0])
    assert len({(cell.style, cell.brief.prompt) for cell in found}) >= 30
    assert len(request.seeds) == 16
    assert set(request.strategies) | {"cfg", "apg", "interval"} == set(presets()) - {"reno"}
