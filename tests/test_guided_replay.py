"""How predictions are combined: the rule of a family, the fit that checks it, and what a replay exchanges in the denoiser's input."""
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline
from tiny_pipelines import SIDE, Warmth, call, ready, sd, unet

from guide.combination import combination
from guide.guided import guided
from guide.replay import Call, predictions
from guide.strategies import Outcome, Strategy
from probes.errors import UserError


def drawn(count: int, dtype=torch.float32):
    return [part.to(dtype) for part in torch.randn(count, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batched", "swapped", "conditional"), [(True, False, 1), (True, True, 0), (False, False, 0), (False, True, 1)])
def test_the_conditional_prediction_is_found_in_either_order(dtype, batched, swapped, conditional):
    """Unconditional first is the rule in one call, conditional first in two; a pipeline that does it the other way is found out."""
    raw = drawn(2, dtype)
    combined = raw[1 - conditional] + 7.5 * (raw[conditional] - raw[1 - conditional])
    for scales in ((7.5,), ()):
        found = combination(raw, combined, batched, scales)
        assert found.conditional == conditional
        assert found.weights[conditional] == pytest.approx(7.5, rel=1e-2)
        assert not found.refusal
    assert combination(raw, combined, batched, (7.5,)).weights[conditional] == 7.5


def test_equal_predictions_follow_the_rule():
    raw = drawn(1) * 2
    assert combination(raw, raw[0], batched=True, scales=(5.,)).weights == (-4., 5.)
    assert combination(raw, raw[0], batched=True).conditional == 1
    assert combination(raw, raw[0], batched=False).conditional == 0
    assert combination(raw, raw[0], batched=True).residual < 1e-6


def test_three_predictions_are_fitted():
    """As in InstructPix2Pix: text, image, neither."""
    raw = drawn(3)
    found = combination(raw, raw[2] + 7.5 * (raw[0] - raw[1]) + 1.5 * (raw[1] - raw[2]), batched=True, scales=(7.5,))
    assert found.weights == pytest.approx((7.5, -6., -.5), abs=1e-4)
    assert found.conditional == 0


def test_what_is_no_fixed_combination_is_refused():
    raw = drawn(2)
    combined = raw[0] + 5 * (raw[1] - raw[0])
    renormalised = combined / combined.norm(dim=1, keepdim=True)
    found = combination(raw, renormalised, batched=True, scales=(5.,))
    assert "no known combination" in found.refusal
    assert found.conditional == 1
    assert combination([], combined, batched=True).refusal


def test_single_predictions_have_no_conditional_part():
    (raw,) = drawn(1)
    assert combination([raw], raw, batched=False, scales=(3.5,)).weights == (1.,)
    assert combination([raw], raw, batched=False).conditional is None


def test_further_channels_and_tokens_are_cut_off():
    like = torch.zeros(2, 4, 8, 8)
    assert [part.shape for part in predictions([Call((), {}, torch.zeros(4, 8, 8, 8))], like)] == [like.shape] * 2
    assert [part.shape for part in predictions([Call((), {}, torch.zeros(2, 30, 16))], torch.zeros(2, 20, 16))] == [(2, 20, 16)]
    assert predictions([Call((), {}, torch.zeros(3, 4, 8, 8))], like) == ()
    assert predictions([Call((), {}, torch.zeros(2, 4, 4, 4))], like) == ()


class Replays(Strategy):
    """Checks the replay in every step."""

    def __call__(self, step, carried):
        x = step.x.clone().requires_grad_()
        again = step.predict(x)
        assert (again - step.output).norm() < 1e-5 * step.output.norm()
        assert torch.autograd.grad(again.sum(), x)[0].abs().sum() > 0
        return Outcome(carried=(carried or 0) + 1)


@pytest.mark.parametrize(("kind", "channels"), [(StableDiffusionInpaintPipeline, 9), (StableDiffusionInstructPix2PixPipeline, 8)])
def test_only_the_latents_are_exchanged_where_more_is_concatenated(kind, channels):
    parts = {**sd().components, "unet": unet(channels)}
    extra = {"mask_image": torch.ones(2, 1, SIDE, SIDE), "strength": 1.} if channels == 9 else {}
    pipeline = ready(kind(**parts, requires_safety_checker=False))
    picture = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    plain = call(pipeline, image=picture, **extra)
    with guided(pipeline, Warmth(), Replays()) as run:
        assert torch.equal(call(pipeline, image=picture, **extra), plain)
    assert len(run.trace) == 3


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_scaling_of_the_input_belongs_to_the_replay(name):
    pipeline = sd(schedule=name)
    with guided(pipeline, Warmth(), Replays()) as run:
        call(pipeline)
    assert len(run.trace) == pipeline.num_timesteps


def test_a_denoiser_that_sees_something_else_is_refused():
    pipeline = sd()
    inner = pipeline.unet.conv_in.forward
    pipeline.unet.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
    with guided(pipeline, Warmth(), Replays()), pytest.raises(UserError, match="cannot be replayed"):
        call(pipeline)
    assert pipeline.unet.conv_in.forward == inner
