"""What `guided` promises on every family of pipelines, those with a preset and those that nothing here names."""
import inspect

import pytest
import torch
from tiny_families import FAMILIES, built, plain
from tiny_pipelines import Warmth

from guide.guided import guided
from guide.seeds import generators
from guide.strategies import STRATEGIES, CleanImage, Strategy, Unguided
from guide.strategies.strategy import Outcome

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.parametrize("name", FAMILIES)]


def steer(name, strategy, objective=None, seeds=(1, 2), **more):
    """Images and the run of a guided call of a family's pipeline."""
    with guided(built(name), objective or Warmth(), strategy, seeds=seeds) as run:
        return FAMILIES[name](built(name), seeds, **more), run


def loss(images):
    """Of each image, without noise in the view."""
    return Warmth(noise=0.)(images.float(), generators(range(len(images)))).loss


def test_strength_zero_changes_no_bit(name):
    steps = FAMILIES[name].arguments.get("steps", 3)
    for strategy in (Unguided(), CleanImage(strength=0.)):
        images, run = steer(name, strategy)
        assert torch.equal(images, plain(name))
        assert [row["step"] for row in run.trace] == list(range(steps))
        assert run.calls["decodes"] == run.calls["encoder"] == 0 < run.calls["denoiser"]


def test_a_small_strength_acts_linearly(name):
    changes = [(steer(name, CleanImage(strength=s * FAMILIES[name].small))[0].double() - plain(name)).flatten() for s in (1, 2, 4)]
    sizes = [float(change.norm()) for change in changes]
    assert sizes[0] > 0
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=.06)
    assert sizes[2] / sizes[1] == pytest.approx(2, rel=.06)
    assert torch.cosine_similarity(changes[1], changes[2], dim=0) > .98


def test_guidance_lowers_the_loss_in_inference_mode_too(name):
    images, run = steer(name, CleanImage(strength=3.))
    assert (loss(images) < loss(plain(name))).all()
    # What the pipeline decoded is what guidance decoded.
    assert run.notices == []
    with torch.inference_mode():
        again, _ = steer(name, CleanImage(strength=3.))
    assert torch.allclose(again, images, atol=1e-5)


def test_guidance_through_the_denoiser_lowers_the_loss(name):
    images, run = steer(name, STRATEGIES["dps"](strength=2.))
    assert (loss(images) < loss(plain(name))).all()
    assert all(row["guided"] for row in run.trace)


def test_the_combination_is_found_and_the_replay_agrees(name):
    family, seen = FAMILIES[name], []

    class Replays(Strategy):
        def __call__(self, step, carried):
            x = step.x.clone().requires_grad_()
            again = step.predict(x)
            (gradient,) = torch.autograd.grad(again.square().sum(), x)
            seen.append((step.combination, float((again - step.output).norm() / step.output.norm()), float(gradient.norm())))
            return Outcome()

    steps = family.arguments.get("steps", 3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            images, run = steer(name, Replays())
        assert torch.equal(images, plain(name))
        assert run.calls["denoiser"] == steps * 2 * family.calls
    assert len(seen) == 2 * steps
    for combination, error, slope in seen:
        assert combination.weights == pytest.approx(family.weights, rel=1e-3)
        assert (combination.conditional, combination.norm) == (family.conditional, family.norm)
        assert combination.residual < 1e-5
        assert error < 1e-5
        assert slope > 0


def test_the_gradient_through_denoiser_and_decoder_is_the_slope(name):
    """Central differences along two directions in float64, over the pixels that are not clamped (there the gradient is meant to differ: see
    `guide.decoding.clamp`)."""
    pipeline, checked = FAMILIES[name].build().to(torch.float64), []

    class Checks(Strategy):
        def __call__(self, step, carried):
            x = step.x.double().clone().requires_grad_()
            inside = (step.decode(.1 * step.clean_of(x)) - .5).abs() < .4
            assert inside.float().mean() > .5

            def value(x):
                return (step.decode(.1 * step.clean_of(x)).square() * inside).sum()

            (gradient,) = torch.autograd.grad(value(x), x)
            for seed in range(2):
                u = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
                with torch.no_grad():
                    slope = (value(x + 1e-5 * u) - value(x - 1e-5 * u)) / 2e-5
                checked.append((float(slope), float((gradient * u).sum()), float(gradient.norm() * u.norm())))
            return Outcome()

    with guided(pipeline, Warmth(), Checks(), seeds=(1, 2)):
        FAMILIES[name](pipeline, steps=1)
    for slope, expected, size in checked:
        assert abs(slope - expected) < 1e-3 * size, (slope, expected, size)


def test_a_batch_of_three_equals_three_batches_of_one(name):
    together, _ = steer(name, CleanImage(strength=2.), seeds=(4, 5, 6))
    for place, seed in enumerate((4, 5, 6)):
        alone, _ = steer(name, CleanImage(strength=2.), seeds=(seed,))
        assert torch.allclose(together[place], alone[0], atol=3e-4)


def test_everything_is_as_before_even_after_an_exception(name):
    pipeline = built(name)
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    vae = getattr(pipeline, "vae", None) or pipeline.movq
    before = [weight.requires_grad for weight in denoiser.parameters()]
    signature, step = inspect.signature(pipeline.scheduler.step), pipeline.scheduler.step

    def failing(images, generators):
        assert not any(weight.requires_grad for weight in denoiser.parameters())
        raise RuntimeError("objective broke")

    assert any(before)
    with guided(pipeline, failing, CleanImage()):
        assert inspect.signature(pipeline.scheduler.step) == signature
        assert pipeline.scheduler.step != step
    with pytest.raises(RuntimeError, match="objective broke"):
        steer(name, CleanImage(), failing)
    assert pipeline.scheduler.step == step
    assert "step" not in pipeline.scheduler.__dict__
    assert "decode" not in vae.__dict__
    assert not denoiser._forward_hooks
    assert [weight.requires_grad for weight in denoiser.parameters()] == before
