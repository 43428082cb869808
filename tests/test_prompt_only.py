"""Prompt-only baselines against the pipeline at another guidance scale, and against diffusers' own adaptive projected guidance."""

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from tiny_pipelines import call, sd

from guide.guided import guided
from guide.strategies import APG, CFG, Interval
from probes.errors import UserError


def made(strategy=None, scale=5.0, schedule="DDIMScheduler", steps=6):
    pipeline = sd(schedule=schedule)
    if strategy is None:
        return call(pipeline, (1, 2), steps, guidance_scale=scale)
    with guided(pipeline, None if not strategy.strength else lambda *_: None, strategy, seeds=(1, 2)):
        return call(pipeline, (1, 2), steps, guidance_scale=scale)


def close(a, b):
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


@pytest.mark.parametrize("schedule", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("scale", [1.5, 8.0])
def test_cfg_is_the_pipeline_at_that_scale(schedule, scale):
    assert close(made(CFG(strength=scale), schedule=schedule), made(scale=scale, schedule=schedule)) < 2e-4


def test_an_interval_of_the_whole_run_is_cfg_and_a_shorter_one_is_not():
    whole = made(Interval(strength=8.0, start=0.0, stop=1.0))
    assert close(whole, made(CFG(strength=8.0))) < 1e-6
    assert close(made(Interval(strength=8.0, start=0.2, stop=0.7)), whole) > 1e-3


def test_apg_without_projection_and_momentum_is_cfg():
    assert close(made(APG(strength=8.0, eta=1.0, momentum=0.0)), made(CFG(strength=8.0))) < 1e-5
    assert close(made(APG(strength=8.0)), made(CFG(strength=8.0))) > 1e-3


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_apg_is_what_diffusers_computes(threshold):
    generator = torch.Generator().manual_seed(0)
    strategy, carried, buffer = APG(strength=6.0, eta=0.2, momentum=-0.5, threshold=threshold), None, MomentumBuffer(-0.5)
    for _ in range(3):
        conditional, unconditional = torch.randn(2, 1, 4, 8, 8, generator=generator)
        update, carried = strategy.update(None, conditional, conditional - unconditional, carried)
        norm = threshold * float(conditional.norm())
        wanted = normalized_guidance(conditional, unconditional, 6.0 - 1, buffer, 0.2, norm, use_original_formulation=True)
        assert close(conditional + update, wanted) < 1e-4


def test_without_classifier_free_guidance_it_is_refused():
    with pytest.raises(UserError, match="guidance-scale above 1"):
        made(CFG(strength=8.0), scale=1.0)
