"""Effects from rows alone: a planted truth is found, a shuffled one is not, and every figure can be had from the rows by another way."""

from itertools import product
from math import isnan, nan

import numpy as np
import pytest
from made_up_comparison import rows
from scipy.stats import wilcoxon

from guide.comparing.choice import chosen, default_of
from guide.comparing.effects import ALL, duels, effects, paired
from guide.comparing.significance import SIGNS, holm, needed, signed_rank, significant, wins
from guide.statistics import Interval, mean_difference
from probes import judge
from probes.image import load

JUDGES = ("verdict", "referee")
SETTING = "embedded, 25 steps, CFG 4"


def found(frame, recall=None, stands=None, rivals=None):
    return effects(frame, JUDGES, recall or {"baroque": 0.6, "ukiyo-e": 0.8}, stands or {}, rivals or {})


def guided(frame, **more):
    return next(e for e in found(frame, **more) if e.strategy != "unguided")


def test_planted_gains_are_found():
    frame = rows()
    effect = guided(frame)
    guide, verdict = effect.contrasts["guide_gain"], effect.contrasts["verdict_gain"]
    assert guide.difference.low < 1 < guide.difference.high
    assert verdict.difference.low < 0.5 < verdict.difference.high
    assert guide.significant
    assert verdict.significant
    assert effect.transfer["verdict"].low < 0.5 < effect.transfer["verdict"].high
    table = frame.pivot(index=["prompt", "seed"], columns="arm", values="verdict_log_odds")
    differences = table["clean-image 10"] - table["unguided"]
    assert verdict.difference.mean == pytest.approx(differences.mean())
    assert verdict.wins.mean == pytest.approx((differences > 0).mean())
    assert verdict.wilcoxon == pytest.approx(wilcoxon(differences.groupby("prompt").mean()).pvalue)
    assert (verdict.difference.pairs, verdict.difference.clusters, effect.prompts, effect.recall) == (40, 10, 10, 0.6)
    assert effect.means["seconds"] == 2


def test_a_null_transfer_is_undefined():
    effect = guided(rows({"mpgd 10": ("mpgd", 10.0, 0.0, 0.5)}, noise=1.0))
    assert not effect.contrasts["guide_gain"].significant
    assert isnan(effect.transfer["verdict"].mean)


def test_all_styles_stand_before_each_and_are_families_of_their_own():
    frame = rows(styles=("baroque", "ukiyo-e"), prompts=5, named=(True, False))
    some = found(frame.sort_index())
    assert [(e.style, e.named) for e in some if e.strategy == "unguided"] == [
        (ALL, True), ("baroque", True), ("ukiyo-e", True), (ALL, False), ("baroque", False), ("ukiyo-e", False)]  # fmt: skip
    whole = next(e for e in some if e.style == ALL and e.contrasts)
    assert whole.contrasts["verdict_gain"].adjusted == whole.contrasts["verdict_gain"].difference.p  # alone in its family
    assert whole.recall == pytest.approx(0.7)
    each = [e.contrasts["verdict_gain"] for e in some if e.style != ALL and e.named and e.contrasts]
    assert [one.adjusted for one in each] == pytest.approx(holm([one.difference.p for one in each]))


def test_where_the_style_comes_from():
    some = found(rows(named=(True, False)))
    assert {(e.strategy, e.named): e.source for e in some} == {
        ("unguided", True): "prompt",
        ("unguided", False): "neither",
        ("clean-image", True): "both",
        ("clean-image", False): "guidance",
    }


def test_a_style_that_no_judge_knows_has_no_verdict():
    effect = guided(rows(known=False), recall={"cubism": 0.5})
    assert effect.recall is None
    assert isnan(effect.contrasts["verdict_gain"].difference.mean)
    assert not effect.contrasts["verdict_gain"].significant


def test_the_rival_is_best_of_at_the_same_seconds():
    frame = rows({"clean-image 10": ("clean-image", 10.0, 1.0, 0.2), "best of 4": ("best-of", 0.0, 1.0, 1.0)})
    effect = guided(frame, rivals={(SETTING, "clean-image 10"): "best of 4"})
    assert effect.against_best.difference.mean == pytest.approx(-0.8, abs=0.3)
    assert effect.against_best.significant


def test_the_referee_chooses_on_its_own_seeds():
    arms = {f"clean-image {s:g}": ("clean-image", s, 1.0, gain) for s, gain in ((5.0, 0.2), (10.0, 0.9), (20.0, 0.4))}
    frame = rows(arms, which="choice", start=1000)
    table = chosen(frame, SETTING)
    assert [row["arm"] for row in table if row["chosen"]] == ["clean-image 10"]
    assert default_of(table)["arm"] == "clean-image 10"
    assert chosen(frame.assign(set="report"), SETTING) == []  # what reports chooses nothing
    assert [row["arm"] for row in chosen(rows(arms, which="choice", known=False), SETTING) if row["chosen"]] == ["clean-image 10"]


def test_duels_are_of_two_arms():
    frame = rows({"a 1": ("mpgd", 1.0, 0.0, 1.0), "b 1": ("dps", 1.0, 0.0, 0.0)})
    fights = duels(frame, ["unguided", "a 1", "b 1"], "verdict_log_odds")
    assert set(fights) == {("unguided", "a 1"), ("unguided", "b 1"), ("a 1", "b 1")}
    assert fights["a 1", "b 1"].significant
    assert not fights["unguided", "b 1"].significant


def test_holm_in_closed_form():
    assert holm([0.01, 0.04, 0.03, nan]) == pytest.approx([0.03, 0.06, 0.06, nan], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_needed_find_a_planted_effect_in_eight_of_ten():
    draws = np.random.default_rng(0)
    prompts, effect = np.repeat(np.arange(12), 4), 0.4
    seeds = np.median([take.seeds or np.inf for take in (needed(effect + draws.normal(size=48), prompts) for _ in range(60))])
    again = np.repeat(np.arange(12), int(seeds))
    hits = np.mean([mean_difference(effect + draws.normal(size=len(again)), again, resamples=400).excludes_zero for _ in range(150)])
    assert 0.6 < hits < 0.95
    alone = needed([0.1 + (-1) ** k for k in range(8)], range(8))  # a seed a prompt says nothing of what is within a prompt
    assert alone.seeds is None
    assert alone.prompts > 100
    between = np.repeat(draws.normal(size=12), 4)
    assert needed(between - between.mean() + 0.05, prompts).seeds is None
    assert needed(between - between.mean() + 0.05, prompts).prompts > 100
    assert str(needed([0.0, 0.0], [1, 2])) == "-"
    assert needed([1.0, 1.1, 0.9, 1.0], range(4)).prompts == SIGNS  # however clear: fewer are never called significant


def test_wins_count_ties_half():
    one = wins([1.0, -1.0, 0.0, 2.0, nan], ["a", "b", "c", "d", "e"])
    assert one.mean == pytest.approx(0.625)
    assert 0 <= one.low <= one.high <= 1
    assert isnan(signed_rank([0.0, 0.0], ["a", "b"]))


def test_nothing_is_bold_without_significance():
    assert not significant(0.2, Interval(1.0, 0.5, 1.5, 10, 10, ""))
    assert not significant(0.01, Interval(1.0, -0.5, 1.5, 10, 10, ""))
    assert not significant(nan, Interval(1.0, nan, nan, 1, 1, ""))
    assert significant(0.01, Interval(1.0, 0.5, 1.5, 10, 10, ""))


@pytest.mark.parametrize("prompts", [2, 3, 4, 5, 6])
def test_labels_dealt_anew_in_every_way_are_significant_in_one_of_sixteen_at_most(prompts):
    """One seed a prompt, an effect that hardly varies: as many signs as there are, each counted once."""
    tight = 1 + 0.02 * np.random.default_rng(0).normal(size=prompts)
    signs = [np.array(one) for one in product((1, -1), repeat=prompts)]
    found = [mean_difference(tight * one, range(prompts)) for one in signs]
    assert np.mean([significant(one.p, one) for one in found]) <= 1 / 16


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "seeds"), [(4, 8), (8, 4), (20, 4), (60, 1)])
def test_shuffled_labels_are_significant_in_one_of_twenty(prompts, seeds):
    """Rows of ten comparisons; in each of 500 trials a coin decides, seed by seed, which of the two pictures is whose."""
    draws, hits = np.random.default_rng(1), 0
    for comparison in range(10):
        pairs = paired(rows(prompts=prompts, seeds=seeds, start=100 * comparison), "clean-image 10")
        values = pairs.difference("verdict_log_odds")
        for _ in range(50):
            one = mean_difference(values * draws.choice([-1, 1], len(values)), pairs.prompts)
            hits += significant(holm([one.p])[0], one)
    assert 15 <= hits <= 35


@pytest.mark.slow
def test_one_strategy_on_disjoint_seeds_is_significant_in_one_of_twenty():
    hits, draws = 0, np.random.default_rng(2)
    prompts = np.repeat(np.arange(16), 4)
    for _ in range(500):
        shared = draws.normal(size=16)[prompts]  # a prompt is easy or hard for both sets of seeds
        a, b = (shared + draws.exponential(size=64) for _ in range(2))
        one = mean_difference(a - b, prompts)
        hits += significant(holm([one.p])[0], one)
    assert 15 <= hits <= 35


@pytest.mark.slow
def test_real_readings_dealt_to_two_arms_by_chance_are_significant_in_one_of_twenty(data):
    """The verdict's readings of photographs of paintings, dealt anew in each of 500 trials: one strategy on disjoint seeds."""
    verdict = judge.load("verdict")
    paths = sorted((data / "cezanne").rglob("*.jpg"))[:256]
    readings = np.array([float(verdict.log_odds(verdict(load(path)), [("impressionism", 1.0)])[0]) for path in paths])
    draws, pairs = np.random.default_rng(3), len(readings) // 2
    prompts = np.arange(pairs) % 16
    hits = 0
    for _ in range(500):
        dealt = draws.permutation(readings)[: 2 * pairs].reshape(2, pairs)
        one = mean_difference(dealt[0] - dealt[1], prompts)
        hits += significant(holm([one.p])[0], one)
    assert 15 <= hits <= 35
