"""Figures of reliability against hand-computed truth, scikit-learn and coverage; distance to the domain."""
import json

import numpy as np
import pytest
import torch

from probes import domain, reliability
from probes.errors import UserError

TRUTH, GUESS = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 2, 2, 0])


def test_hand_computed_agreement():
    assert reliability.accuracy(TRUTH, GUESS) == 5 / 8
    assert reliability.balanced_accuracy(TRUTH, GUESS) == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    # Guesses 4, 2, 2 as the truth: chance (16 + 4 + 4) / 64.
    assert reliability.kappa(TRUTH, GUESS) == pytest.approx((5 / 8 - 3 / 8) / (1 - 3 / 8))


def test_kappa_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    assert reliability.kappa(TRUTH, GUESS, quadratic=True) == pytest.approx(metrics.cohen_kappa_score(TRUTH, GUESS, weights="quadratic"))


def test_within_is_blind_to_the_subject():
    prompts = np.repeat(np.arange(6), 5)
    inside = np.tile(np.arange(5), 6)
    truth = 10 * prompts + inside
    assert reliability.rank_correlation(truth, prompts * 10 - inside) > .8
    assert reliability.within(truth, prompts * 10 - inside, prompts) == pytest.approx(-1)
    assert reliability.within(truth, 1. * prompts, prompts) == 0  # a reading of the subject alone says nothing within


def test_a_perfectly_calibrated_head_lies_in_its_band_and_a_sure_one_does_not():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.random((400, 1)) > p.cumsum(1)).sum(1).clip(max=4)
    good = reliability.calibration_figures(p, truth)
    assert good["ece_band"][0] <= good["ece"] <= good["ece_band"][1]
    sharp = p**4 / (p**4).sum(1, keepdims=True)
    sure = reliability.calibration_figures(sharp, truth)
    assert sure["ece"] > sure["ece_band"][1]
    assert sure["nll"] > good["nll"]
    assert sure["brier"] > good["brier"]


def test_brier_and_nll_by_hand():
    figures = reliability.calibration_figures(np.array([[.5, .5], [.75, .25]]), np.array([0, 1]))
    assert figures["brier"] == pytest.approx((.5 + 2 * .75**2) / 2)
    assert figures["nll"] == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_the_interval_covers_what_it_claims():
    rng, hits = np.random.default_rng(1), 0
    for seed in range(60):
        groups = np.repeat(np.arange(40), 5)
        values = rng.normal(size=40)[groups] + .1 * rng.normal(size=200)
        found = reliability.interval(lambda rows, values=values: values[rows].mean(), groups, resamples=200, seed=seed)
        hits += found.low <= 0 <= found.high
    assert hits >= 52  # .95 of 60 is 57; a naive interval over rows covers about 36


def test_few_groups_are_told():
    values = np.arange(12.)
    found = reliability.interval(lambda rows: values[rows].mean(), np.repeat(np.arange(4), 3))
    # The jackknife of a mean over groups of one size is its usual standard error: sd(1, 4, 7, 10) / 2, t(3) = 3.182.
    assert found.high - found.value == pytest.approx(3.1824 * np.std([1, 4, 7, 10], ddof=1) / 2, rel=1e-4)
    assert "few" in found.method
    assert np.isnan(reliability.interval(lambda rows: 1., ["a", "a"]).low)


def test_ten_of_ten_right_are_no_certainty():
    for share, low, high in ((1., 10 / (10 + 1.96**2), 1.), (0., 0., 1.96**2 / (10 + 1.96**2))):
        found = reliability.interval(lambda rows, share=share: share, range(10), bounds=(0., 1.))
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    figures = reliability.of_labels(np.eye(2)[[0, 1] * 20], np.array([0, 1] * 20), "ab", list(range(40)), held_out="", data="")
    assert figures["accuracy"]["low"] == figures["balanced_accuracy"]["low"] == pytest.approx(40 / (40 + 1.96**2), abs=1e-4)


def test_an_error_in_years_is_never_below_none():
    truth, read = np.array([1500., 1600, 1700]), np.array([1500., 1600, 1790])
    error = reliability.of_numbers(read, truth, "abc", held_out="", data="", unit="years")["mae"]
    assert (error["value"], error["low"]) == (30, 0)
    assert reliability.of_numbers(truth, truth, "abc", held_out="", data="", unit="years")["mae"]["high"] == 0


def test_confusions_name_the_commonest_first():
    assert reliability.confusions(TRUTH, GUESS, "abc")[0] == {"label": "a", "read_as": "b", "share": .25, "images": 1}


def test_cards_are_json_and_a_sentence():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 90)
    groups = [f"artist {k}" for k in np.arange(90) // 2]
    card = reliability.of_labels(p, p.argmax(1), ["a", "b", "c"], groups, held_out="artists", data="made-up", before=p)
    assert "balanced accuracy 1.00" in reliability.sentence(json.loads(json.dumps(card)))
    years = rng.uniform(1500, 1900, 90)
    card = reliability.of_numbers(years + 10, years, groups, held_out="artists", data="made-up", unit="years", inside=groups,
                                  steps=np.arange(1400, 2000, 100))
    assert "mean error 10 years" in reliability.sentence(json.loads(json.dumps(card)))
    assert card["slope"] == pytest.approx(1)
    assert card["within_one_step"] == 1
    with pytest.raises(UserError, match="group"):
        reliability.of_labels(p, p.argmax(1), ["a", "b", "c"], groups[1:], held_out="artists", data="made-up")


def test_the_domain_tells_far_from_near(tmp_path):
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(10, 40, generator=generator)

    def draw(n):
        return torch.randn(n, 10, generator=generator) @ basis + .3 * torch.randn(n, 40, generator=generator)
    found = domain.fit(draw(400), [k // 4 for k in range(400)], rank=10)
    assert 40 < found.percentile(draw(400)).mean() < 60
    assert (found.percentile(3 * torch.randn(50, 40, generator=generator)) > 99).all()
    domain.save(tmp_path / "domain", found)
    again, probe = domain.load(tmp_path / "domain"), draw(50)
    torch.testing.assert_close(again.distance(probe), found.distance(probe), rtol=.02, atol=.02)
    with pytest.raises(UserError, match="rank"):
        domain.fit(draw(30), list(range(30)), rank=40)


def test_labels_are_drawn_as_they_are_and_never_as_formulas():
    pytest.importorskip("matplotlib", reason="diagrams need matplotlib")
    from probes import diagrams
    assert diagrams.png(diagrams.confusion(np.eye(2), ["$x^$", "a\nb"])).startswith(b"\x89PNG")
    assert diagrams.png(diagrams.relevance(np.ones((4, 4, 3)), np.eye(4), "$x^$")).startswith(b"\x89PNG")
