"""Calibration: known answers on data whose truth is known."""
import numpy as np
import pytest
import torch

from probes.calibration import at_an_end, calibration_error, monotone, temperature


@pytest.mark.parametrize("true", [.4, 1., 2.5])
def test_temperature_finds_the_one_the_labels_were_drawn_with(true):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20000, 5, generator=generator)
    labels = (logits / true).softmax(-1).multinomial(1, generator=generator)[:, 0]
    assert temperature(logits, labels) == pytest.approx(true, rel=.05)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = torch.tensor([[.8, .2]]).repeat(100, 1)
    labels = torch.tensor([0] * 50 + [1] * 50)
    assert calibration_error(probabilities, labels) == pytest.approx(.3)
    assert calibration_error(torch.eye(2).repeat(50, 1), torch.tensor([0, 1] * 50)) == pytest.approx(0)


def test_a_calibrated_head_has_a_small_error_and_an_overconfident_one_a_large():
    generator = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(5000, 4, generator=generator)).softmax(-1)
    labels = p.multinomial(1, generator=generator)[:, 0]
    assert calibration_error(p, labels) < .03
    assert calibration_error((4 * p.log()).softmax(-1), labels) > .1


def test_monotone_recalibration_undoes_a_shrunken_mean_and_never_lies_flat():
    rng = np.random.default_rng(0)
    true = rng.uniform(1500, 1900, 4000)
    predicted = 1750 + .5 * (true - 1750) + rng.normal(0, 5, 4000)
    x, y = monotone(predicted, true)
    inner = slice(3, -3)
    assert np.abs(y - (1750 + 2 * (x - 1750)))[inner].max() < 25
    assert (np.diff(y) / np.diff(x)).min() > .099
    x, y = monotone(predicted, rng.uniform(1500, 1900, 4000), least_slope=.2)
    assert (np.diff(y) / np.diff(x)).min() > .199


def test_monotone_is_isotonic_regression_without_a_least_slope():
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(1)
    predicted = rng.uniform(0, 1, 300)
    true = predicted + rng.normal(0, .3, 300)
    x, y = monotone(predicted, true, least_slope=0)
    expected = isotonic.IsotonicRegression(out_of_bounds="clip").fit(predicted, true).predict(x)
    np.testing.assert_allclose(y, expected, atol=1e-9)


def test_a_search_that_ended_at_an_end_is_known():
    sure = torch.eye(3).repeat(4, 1)
    labels = torch.arange(3).repeat(4)
    assert at_an_end(temperature(sure, labels)), "always right: as sure as can be"
    assert at_an_end(temperature(-sure, labels)), "always wrong: as unsure as can be"
    assert not at_an_end(1.)
