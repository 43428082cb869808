"""What a comparison says of itself: sentences, notes, costs beside budgets, pages of pictures, a section for the benchmarks."""

import re
from dataclasses import replace
from math import nan

import numpy as np
import pytest
from made_up_comparison import rows
from PIL import Image
from rich.console import Console

from guide import pipelines, png
from guide.comparing import grids, plots
from guide.comparing.asked import Arm, Asked
from guide.comparing.budget import Cost
from guide.comparing.choice import read as read_choice
from guide.comparing.conclusions import conclusions
from guide.comparing.effects import effects
from guide.comparing.plan import Plan, size_of
from guide.comparing.publishing import section
from guide.comparing.rendering import escaped, markdown
from guide.comparing.results import Results
from guide.comparing.significance import needed
from guide.comparing.spending import Spent, against_budget
from guide.comparing.tables import tables
from guide.statistics import Interval

SETTING = "embedded, 25 steps, CFG 4"
ARMS = {
    "clean-image 10": ("clean-image", 10.0, 1.0, 0.5),
    "clean-image 20": ("clean-image", 20.0, 1.0, 0.9),
    "best of 2, 17 steps": ("best-of", 0.0, 2.0, 2.0),
}


def asked(folder, **more):
    return Asked(**{"out": folder, "styles": ("baroque",), "strategies": ("clean-image",), "seeds": (0, 1), "choice_seeds": ()} | more)


def results(folder, frame, choice=(), rivals=None, plans=None, **more):
    return Results.of(frame, asked(folder, **more), {}, {"baroque": 0.5, "ukiyo-e": 0.8}, choice, rivals or {}, plans or {})


def test_best_of_is_no_guidance_and_one_arm_is_followed_through(tmp_path):
    frame = rows(ARMS, named=(True, False), prompts=6)
    # The referee likes one strength where the style is named, the other where it is not; best-of most of all.
    frame.loc[frame["named"] & (frame["arm"] == "clean-image 10"), "referee_log_odds"] += 1.5
    found = effects(frame, ("verdict", "referee"), {"baroque": 0.5}, {}, {})
    said = next(line for line in conclusions(found, (), asked(tmp_path)) if "Style kept" in line)
    assert re.search(r"guidance alone \d+% and with the prompt's words \d+% \(clean-image (10|20)\)", said)
    assert re.search(r"selection alone \d+% and with the prompt's words \d+% \(best of 2, 17 steps\)", said)
    arm = re.search(r"\((clean-image \d+)\)", said)[1]
    for named, before in ((False, "guidance alone"), (True, r"guidance alone \d+% and with the prompt's words")):
        kept = frame.loc[(frame["arm"] == arm) & (frame["named"] == named), "verdict_kept"].mean()
        assert re.search(rf"{before} {kept:.0%}", said)
    assert {(e.strategy, e.named): e.source for e in found if e.strategy == "best-of"} == {
        ("best-of", True): "prompt and selection",
        ("best-of", False): "selection",
    }


def test_what_to_use_is_what_gains_most_and_what_does_for_less(tmp_path):
    gains = {"dps 10": 2.0, "mpgd 10": 1.9, "tfg 10": 0.7, "lgd-mc 10": 0.0}
    arms = {arm: (arm.removesuffix(" 10"), 10.0, 3.0, gain) for arm, gain in gains.items()}
    frame = rows(arms, prompts=20)
    frame["compute_seconds"] = frame["arm"].map({"unguided": 1.0, "dps 10": 4.0, "mpgd 10": 1.5, "tfg 10": 1.2, "lgd-mc 10": 1.0})
    said = results(tmp_path, frame).conclusions[0]
    top = r"use dps 10 at 4\.0 times the cost of a plain picture \(\+[12]\.\d\d\)"
    assert re.search(top + "; for less, and not told apart from it, mpgd 10", said)
    assert "tfg" not in said
    none = results(tmp_path, rows({"lgd-mc 1": ("lgd-mc", 1.0, 1.0, 0.0)}, prompts=20)).conclusions[0]
    assert "use the plain pipeline" in none


def test_the_referees_choice_is_told_beside_what_generate_does(tmp_path):
    row = {"setting": SETTING, "strategy": "clean-image", "strength": 20.0, "chosen": True, "gain": 0.7, "low": 0.2, "high": 1.1}
    found = results(tmp_path, rows(ARMS), choice=[row | {"arm": "clean-image 20"}], choice_seeds=(1000, 1001))
    said = found.conclusions[-1]
    assert "would have `guide generate` do clean-image 20 (+0.70 [+0.20, +1.10]" in said
    own = f"clean-image {pipelines.find('embedded').strength:g}"
    assert f"does {own} as it stands" in said
    same = results(tmp_path, rows(ARMS), choice=[row | {"arm": own, "low": nan}], choice_seeds=(1000, 1001))
    assert f"do {own} (+0.70 log-odds" in same.conclusions[-1]
    assert "which is what it does" in same.conclusions[-1]
    none = results(tmp_path, rows(ARMS), choice=[row | {"arm": "clean-image 20", "gain": -0.1}], choice_seeds=(1000, 1001))
    assert "sees no gain by any" in none.conclusions[-1]
    (tmp_path / "choice.json").write_text('[{"arm": "a", "gain": 0.5, "low": null, "high": null}]')
    assert np.isnan(read_choice(tmp_path / "choice.json")[0]["low"])


@pytest.mark.parametrize(("prompts", "arms", "holm", "bootstrap"), [(8, 3, True, True), (3, 3, True, False), (8, 1, False, True)])
def test_only_what_was_used_is_explained(tmp_path, prompts, arms, holm, bootstrap):
    text = " ".join(results(tmp_path, rows(dict(list(ARMS.items())[:arms]), prompts=prompts)).notes)
    assert ("Holm" in text) == holm
    assert ("ootstrap-t" in text) == bootstrap
    assert ("Student's t over" in text) == (not bootstrap)


def test_nothing_is_explained_or_bold_without_an_interval(tmp_path):
    found = results(tmp_path, rows(ARMS, prompts=1, seeds=1))
    assert not re.search("Holm|ootstrap|Wilcoxon's test", " ".join(found.notes))
    text = markdown(found)
    assert "**" not in text
    assert "[-, -]" not in text
    assert "nan" not in text


def test_no_table_is_wider_than_a_terminal(tmp_path):
    found = results(tmp_path, rows(ARMS, named=(True, False)), rivals={(SETTING, "clean-image 10"): "best of 2, 17 steps"})
    with (tmp_path / "out").open("w") as file:
        console = Console(width=80, record=True, file=file)
        console.print(found.table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in ("verdict's severity", "guide's artifact probe", "Against best-of", "fine detail", "computing"):
        assert part in " ".join(text.split())


def test_what_was_spent_is_measured_beside_the_plain_pipeline(tmp_path):
    frame = rows(ARMS, prompts=4)
    # The machine is three times as slow while one prompt is made; every arm costs what it should but one.
    slow = np.where(frame["prompt"] == "2", 3.0, 1.0)
    costs = {"unguided": 1.0, "clean-image 10": 2.0, "clean-image 20": 2.0, "best of 2, 17 steps": 2.4}
    frame["compute_seconds"] = slow * frame["arm"].map(costs)
    one = Cost({"compute_seconds": 0.0, "denoiser_calls": 0.0}, {"compute_seconds": 0.04, "denoiser_calls": 2.0})
    arms = (Arm("unguided"), Arm("clean-image", 10.0), Arm("clean-image", 20.0), Arm("best-of", candidates=2, steps=17))
    setting = asked(tmp_path).settings()[0]
    plan = Plan(setting, arms, {(name, ""): one for name in ("unguided", "best-of")}, {"": "DDIM"}, amount=2.0)
    spent = {one.arm: one for one in against_budget(frame, "seconds", {SETTING: plan})}
    assert {arm: one.share for arm, one in spent.items()} == {
        "clean-image 10": pytest.approx(1.0), "clean-image 20": pytest.approx(1.0), "best of 2, 17 steps": pytest.approx(1.2)}  # fmt: skip
    assert [arm for arm, one in spent.items() if one.off] == ["best of 2, 17 steps"]
    found = results(tmp_path, frame, plans={SETTING: plan}, budget="seconds", rivals={(SETTING, "clean-image 10"): "best of 2, 17 steps"})
    assert any("not within a tenth of it: best of 2, 17 steps" in note for note in found.notes)
    assert any("clean-image 10 0.83 times best of 2, 17 steps" in note for note in found.notes)
    text = markdown(found)
    assert "misses by more than a tenth" in text
    assert r"| clean-image 10 | best of 2, 17 steps | 0.83 (!) |" in text
    calls = {one.arm: one.share for one in against_budget(frame, "calls", {SETTING: replace(plan, amount=50.0)})}
    assert set(calls.values()) == {1.0}


def test_a_share_that_is_not_known_is_not_off():
    assert not Spent(SETTING, "a", nan, 1.0, 1.0).off
    assert Spent(SETTING, "a", 1.11, 1.0, 1.0).off
    assert not Spent(SETTING, "a", 0.95, 1.0, 1.0).off


def test_advice_names_seeds_and_prompts(tmp_path):
    draws = np.random.default_rng(1)
    prompts = np.repeat(np.arange(6), 4)
    take = needed(0.3 + draws.normal(size=24), prompts)
    assert re.fullmatch(r"(\d+ seeds? for each of the 6 prompts, or )?\d+ prompts at 4 seeds each.*", take.long())
    assert re.fullmatch(r"(6 x \d+ or )?\d+ x 4", str(take))
    # With few prompts the same spread takes more than the normal approximation says.
    few, many = (needed(0.5 + np.tile([1, -1, 2, -2], count), np.repeat(range(count), 4)) for count in (2, 8))
    assert few.seeds * 2 > many.seeds * 8
    assert "one prompt" in needed(0.3 + draws.normal(size=8), [0] * 8).long()
    assert needed(0.3 + draws.normal(size=8), [0] * 8).prompts is None


def test_an_endless_interval_does_not_hide_the_means():
    gains = [Interval(m, low, high, 4, 4, "") for m, low, high in ((2.0, 1.0, 3.0), (1.0, 0.0, 80.0), (nan, nan, nan), (-0.5, nan, nan))]
    low, high = plots._limits(gains)
    assert -1 < low < -0.5
    assert 3 < high < 6
    assert plots._limits([]) == pytest.approx((-0.006, 0.006))


@pytest.mark.parametrize(("size", "said"), [(3, "1 KiB"), (5 * 2**20, "5 MiB"), (2.5 * 2**30, "2.5 GiB"), (500 * 2**30, "500 GiB")])
def test_sizes_are_never_nothing(size, said):
    assert size_of(size) == said


def test_many_rows_become_pages(tmp_path):
    arms = {f"mpgd {k}": ("mpgd", float(k), 1.0, 0.5) for k in range(1, 6)}
    frame = rows(arms, styles=("baroque", "ukiyo-e"), named=(True, False), prompts=1, seeds=2).sort_index()
    for name in frame["image"]:
        png.save(Image.fromarray(np.zeros((16, 16, 3), np.uint8)), tmp_path / name, {})
    found = results(tmp_path, frame, styles=("baroque", "ukiyo-e"))
    sheets = grids.sheets(found)
    assert set(sheets) == {"grids/baroque.png", "grids/ukiyo-e.png"}
    shown = [(heading, arm) for page in sheets.values() for heading, some in page for arm, _ in some]
    assert len(shown) == len(set(shown)) == 4 * 6
    long = grids.pages([("one", [(f"arm {k}", frame) for k in range(40)])], 16)
    assert [[len(some) for _, some in page] for page in long] == [[16], [16], [10]]
    assert all(page[0][1][0][0] == "arm 0" for page in long)
    assert {arm for page in long for _, some in page for arm, _ in some} == {f"arm {k}" for k in range(40)}
    (tmp_path / "grid.png").touch()
    grids.save(found, tmp_path)
    assert not (tmp_path / "grid.png").exists()
    with Image.open(tmp_path / "grids" / "baroque.png") as image:
        assert image.height < 5000


def test_the_section_for_the_benchmarks_can_be_pasted(tmp_path):
    found = results(tmp_path, rows(ARMS, named=(True, False)), command="guide compare --suite quick", suite="quick")
    text = section(found)
    assert text.startswith("## Comparison (`guide compare --suite quick`)")
    assert "```\nguide compare --suite quick\n```" in text
    assert "6 | 7" not in text
    heads = re.findall(r"^### (.*)$", text, re.M)
    assert heads == [table.title for table in tables(found) if not table.detail or table.title.startswith("Every")]
    for head in re.findall(r"(?m)^\|---.*$", text):
        assert head.count("|") > 3
    assert escaped("+0.2 [-0.1, +1.3], 40% [.2, 55%]") == "+0.2 [-0.1, +1.3], 40% [.2, 55%]"
    assert escaped("[x](y) <b> a|b") == r"\[x\](y) \<b\> a\|b"
