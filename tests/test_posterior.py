"""Strategies against a posterior that is known exactly, on the pipeline of `benchmarks.posterior`."""
import pytest

pytest.importorskip("benchmarks.posterior", reason="benchmarks/ stands beside an installed checkout only")
from benchmarks.posterior import NOISE, SPREAD, Pipeline, judged, problems, samples
from guide.strategies import Unguided, load, presets


@pytest.mark.parametrize("problem", problems())
def test_the_denoiser_is_exact(problem):
    """Unguided samples have the prior's mean and variance."""
    prior, observed = problems()[problem]
    found = samples(prior, observed, Unguided(), 0., 512, 100)
    variance = SPREAD**2 + prior.modes.pow(2).mean(0)
    assert found.mean(0).abs().max() < .06
    assert (found.var(0) / variance).mean() == pytest.approx(1., rel=.1)


def test_the_posterior_of_one_gaussian():
    prior, observed = problems()["one Gaussian"]
    means, weights, spread = prior.posterior(observed)
    share = SPREAD**2 / (SPREAD**2 + NOISE**2)
    assert (means[0] - share * observed).abs().max() < 1e-6
    assert spread**2 == pytest.approx(share * NOISE**2)
    assert weights.tolist() == [1.]


@pytest.mark.parametrize("key", ["clean-image", "mpgd", "dps", "universal"])
def test_a_strategy_reaches_the_posteriors_mean_without_collapsing(key):
    prior, observed = problems()["one Gaussian"]
    found = judged(key, prior, observed, 96, 15)
    assert found["mean"] == pytest.approx(1., abs=.05)
    assert .5 < found["along"] < 1.2


def test_steering_brings_samples_nearer_to_the_observation():
    prior, observed = problems()["two modes"]
    for key in ("clean-image", "tfg"):
        steered = [samples(prior, observed, load(key, strength=strength), 0., 64, 15) for strength in (0., 4.)]
        near = [float((found - observed).pow(2).mean()) for found in steered]
        assert near[1] < near[0]
    assert presets()["unguided"].gradient == ""
    assert Pipeline(prior, 0.)(2, 3).shape == (2, 3, 4, 4)
