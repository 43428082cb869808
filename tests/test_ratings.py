"""What people said against what was read, and rates with intervals: against other implementations and closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, kendalltau, norm, spearmanr, t

from probes.auditing.rates import rate
from probes.auditing.ratings import agreed, agreement, calibration

RNG = np.random.default_rng(0)


def test_numbers_are_ranked_overall_and_within_prompts():
    rows = [{"prompt": prompt, "rating": str(value), "content": value + offset * 100 + noise}
            for prompt, offset in (("a", 0), ("b", -1)) for value, noise in zip(range(6), RNG.normal(size=6), strict=True)]  # fmt: skip
    found = agreement([*rows, {"prompt": "a", "rating": "", "content": 0.5}, {"error": "empty", "rating": "3"}])["rating"]
    assert found["rated"] == 12
    ranks, values, read = found["readings"]["content"], [float(row["rating"]) for row in rows], [row["content"] for row in rows]
    assert ranks["spearman"] == pytest.approx(spearmanr(values, read).statistic)
    assert ranks["kendall"] == pytest.approx(kendalltau(values, read).statistic)
    inside = [spearmanr(values[k : k + 6], read[k : k + 6]).statistic for k in (0, 6)]
    assert ranks["within_prompt"]["spearman"] == pytest.approx(np.mean(inside))
    assert "verdict_severity" not in found["readings"]


def test_words_are_compared_with_styles():
    pairs = (("Baroque", "baroque"), ("rococo", "rococo"), ("rococo", "baroque"))
    rows = [{"human_style": said, "style_top": read} for said, read in pairs]
    assert agreement(rows)["human_style"]["kappa"]["style_top"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    found = agreement([*rows, {"human_style": "lovely", "style_top": "rococo"}])["human_style"]
    assert (found["rated"], found["no_style"]) == (4, 1)
    assert found["kappa"]["style_top"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert agreement([{"rating": "lovely", "style_top": "rococo"}])["rating"]["kappa"] == {"style_top": None, "verdict_style": None}
    assert agreed([], []) is None
    assert agreed(["a"] * 3, ["a"] * 3) is None


def test_calibration_by_hand():
    found = calibration([0.95, 0.95, 0.15, 0.15], [1, 0, 0, 0])
    assert found["ece"] == pytest.approx((abs(1.9 - 1) + 0.3) / 4)
    assert found["brier"] == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.15**2) / 4)
    rows = [{"rating_kept": str(yes), "style_probability": p} for p, yes in ((0.9, 1), (0.2, 0), (0.3, 1), (0.1, 0))]
    assert agreement(rows)["rating_kept"]["calibration"]["style_probability"]["pictures"] == 4


def test_a_rate_of_single_pictures_has_wilsons_interval():
    for kept in (0, 3, 10):
        mean, low, high = rate([True] * kept + [False] * (10 - kept), range(10))
        interval = binomtest(kept, 10).proportion_ci(method="wilson")
        assert (mean, low, high) == pytest.approx((kept / 10, interval.low, interval.high), abs=1e-12)


def test_a_rate_over_prompts_is_as_wide_as_prompts_differ():
    together = rate([True] * 10 + [False] * 10, ["a"] * 10 + ["b"] * 10)
    mixed = rate([True, False] * 10, [k // 10 for k in range(20)])
    # Two prompts that agree in nothing: the rate varies by .25, not .25 / 19, and a variance of two is taken as Student's quantile has it.
    fewness = (t.ppf(.975, 1) / norm.ppf(.975)) ** 2
    trials, z = 20 / (1 + (19 - 1) * fewness), norm.ppf(.975)
    half = z * math.sqrt(.25 / trials + (z / trials) ** 2 / 4) / (1 + z * z / trials)
    assert together == pytest.approx((.5, .5 - half, .5 + half), abs=1e-12)
    assert mixed[1] == pytest.approx(binomtest(10, 20).proportion_ci(method="wilson").low)
    assert rate([True, True], ["a", "a"])[1] == pytest.approx(binomtest(2, 2).proportion_ci(method="wilson").low)
    assert rate([True], ["a"]) == (1.0, None, None)
    few, many = (rate([k % 3 > 0 for k in range(n * 4)], [k // 4 for k in range(n * 4)]) for n in (6, 60))
    assert many[2] - many[1] < few[2] - few[1]
