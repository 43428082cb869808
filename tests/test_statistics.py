"""Intervals against closed forms and against simulated experiments whose truth is known."""

from math import isnan, nan, sqrt

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from guide.statistics import mean_difference, ratio


def test_few_prompts_use_students_t_in_closed_form():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    found = mean_difference(values[:3], ["a", "b", "c"])
    half = student.ppf(0.975, 2) * values[:3].std(ddof=1) / sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.method == "Student's t over 3 clusters, by prompt"
    assert found.p == pytest.approx(ttest_1samp(values[:3], 0).pvalue)


def test_equal_clusters_equal_their_means():
    values = np.arange(12.0) ** 1.5
    prompts = np.repeat(["a", "b", "c"], 4)
    whole = mean_difference(values, prompts)
    means = mean_difference(values.reshape(3, 4).mean(1), ["a", "b", "c"])
    assert (whole.mean, whole.low, whole.high) == pytest.approx((means.mean, means.low, means.high))


def test_one_prompt_is_clustered_by_pair_and_says_so():
    found = mean_difference(np.arange(10.0), ["only"] * 10)
    assert found.clusters == 10
    assert "one prompt only" in found.method
    assert found.low < 4.5 < found.high


def test_the_same_seed_gives_the_same_interval():
    values, prompts = np.random.default_rng(0).normal(size=30), np.arange(30) % 10
    assert mean_difference(values, prompts, seed=1) == mean_difference(values, prompts, seed=1)
    assert mean_difference(values, prompts, seed=1) != mean_difference(values, prompts, seed=2)


@pytest.mark.parametrize("clusters", [3, 6, 10, 24])
def test_intervals_cover_what_they_claim(clusters):
    draws = np.random.default_rng(clusters)
    trials, prompts = 400, np.repeat(np.arange(clusters), 3)
    shared = draws.normal(size=(trials, clusters, 1))
    values = (0.5 + shared + draws.normal(size=(trials, clusters, 3))).reshape(trials, -1)
    intervals = [mean_difference(row, prompts, resamples=500, seed=k) for k, row in enumerate(values)]
    covered = np.mean([i.low <= 0.5 <= i.high for i in intervals])
    assert 0.915 < covered < 0.985
    naive = np.mean([abs(row.mean() - 0.5) < 1.96 * row.std(ddof=1) / sqrt(len(row)) for row in values])
    assert naive < 0.85  # what ignoring the prompts would have claimed


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "no pairs"), ([nan, nan], "no pairs"), ([2.0], "one pair"), ([0.0, 0.0, 0.0], "no variation"), ([0.1] * 9, "no variation")],
)
def test_without_an_interval_the_reason_is_said(values, said):
    found = mean_difference(values, range(len(values)))
    assert isnan(found.low)
    assert isnan(found.high)
    assert not found.excludes_zero
    assert said in found.method


def test_missing_pairs_are_left_out_and_counted():
    found = mean_difference([1.0, nan, 3.0, 5.0], ["a", "b", "c", "d"])
    assert (found.mean, found.pairs, found.clusters) == (3, 3, 3)


def test_ratio_of_proportional_gains_is_their_factor():
    guide = np.array([1.0, 1.2, 0.9, 1.4, 1.1])
    found = ratio(0.5 * guide, guide, range(5))
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_ratio_interval_is_where_the_residual_test_passes():
    draws = np.random.default_rng(3)
    guide, verdict = draws.normal(2, 0.5, 12), draws.normal(1, 0.5, 12)
    found = ratio(verdict, guide, range(12))
    for end in (found.low, found.high):
        residual = verdict - end * guide
        assert abs(residual.mean()) / (residual.std(ddof=1) / sqrt(12)) == pytest.approx(student.ppf(0.975, 11))


def test_ratio_is_undefined_where_the_guide_gained_nothing():
    found = ratio([1.0, 2.0, 1.5], [0.5, -0.6, 0.2], "abc")
    assert isnan(found.mean)
    assert "contains 0" in found.method
    assert isnan(ratio([1.0], [1.0], "a").mean)
    assert str(found) == "undefined"


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_rare_changes_of_a_yes_or_no_have_an_interval_of_their_own_size(changed):
    found = mean_difference([1.0] * changed + [0.0] * (12 - changed), [f"prompt {i}" for i in range(12)])
    assert -1 < found.low < found.mean < found.high < 1
    assert found.method.startswith("Student's t")
