"""Strength, window and every-k: the displacement that strategies promise, measured at the scheduler."""
import copy
import inspect
from typing import ClassVar

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_pipelines import Warmth, call, sd, tiny_autoencoder

from guide import strategies
from guide.guided import guided
from guide.strategies import STRATEGIES, CleanImage, Outcome, Strategy, Unguided, load, presets
from guide.strategies.gradient import share_of_clean
from probes.errors import UserError


class Measured(CleanImage):
    """CleanImage that also notes what the step would have been given."""

    notes: ClassVar[list] = []

    def __call__(self, step, carried):
        outcome = super().__call__(step, carried)
        self.notes.append((step, outcome))
        return outcome


def displacements(pipeline, strategy: Measured, steps: int, **arguments) -> tuple[float, float, float]:
    """Summed over a run, at a copy of the scheduler in each step: RMS displacement of x_{t-1} by the guidance and by classifier-free
    guidance; and the RMS of the clean estimate at the end."""
    strategy.notes.clear()
    scheduler = pipeline.scheduler
    original, sums = scheduler.step, [0., 0.]

    def spy(output, t, x, *args, **kwargs):
        step, _ = strategy.notes[-1]

        def stepped(other):
            twin = copy.deepcopy(scheduler)
            twin.__dict__.pop("step", None)
            return type(twin).step(twin, other.to(output.dtype), t, x, return_dict=False)[0]

        plain = stepped(step.output)
        conditional = step.raw[step.combination.conditional] if step.combination.conditional is not None else step.output
        sums[0] += float((stepped(output) - plain).square().mean().sqrt())
        sums[1] += float((plain - stepped(conditional)).square().mean().sqrt())
        return original(output, t, x, *args, **kwargs)

    spy.__signature__ = inspect.signature(original)
    scheduler.step = spy
    try:
        with guided(pipeline, Warmth(), strategy, seeds=(1,), tiny=tiny_autoencoder()):
            call(pipeline, (1,), steps, **arguments)
    finally:
        del scheduler.step
    return *sums, float(strategy.notes[-1][0].clean.square().mean().sqrt())


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
@pytest.mark.parametrize("schedule", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_strength_one_displaces_a_fifth_of_classifier_free_guidance(schedule, steps):
    guidance, correction, _ = displacements(sd(schedule=schedule), Measured(), steps)
    assert guidance / correction == pytest.approx(.2, rel=.05)


@pytest.mark.parametrize(("schedule", "every", "steps"), [
    ("DDIMScheduler", 2, 25), ("EulerDiscreteScheduler", 3, 20), ("DPMSolverMultistepScheduler", 2, 20), ("DDIMScheduler", 4, 10)])
def test_every_kth_step_carries_the_strength_of_those_left_out(schedule, every, steps):
    guidance, correction, _ = displacements(sd(schedule=schedule), Measured(every=every), steps)
    assert guidance / correction == pytest.approx(.2, rel=.15)


@pytest.mark.parametrize("steps", [4, 10, 25, 50])
def test_few_gradients_carry_the_strength_of_a_whole_run(steps):
    guidance, correction, _ = displacements(sd(), Measured(evaluations=4), steps)
    assert guidance / correction == pytest.approx(.2, rel=.15)


@pytest.mark.parametrize("schedule", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_without_classifier_free_guidance_the_displacement_does_not_depend_on_the_steps(schedule):
    found = []
    for steps in (10, 40):
        guidance, _, clean = displacements(sd("v_prediction", schedule), Measured(), steps, guidance_scale=1.)
        found.append(guidance / clean)
    assert found[0] == pytest.approx(found[1], rel=.15)
    assert found[0] == pytest.approx(share_of_clean(10), rel=.4)


def test_the_tabulated_share_is_monotone():
    shares = [share_of_clean(steps) for steps in (1, 2, 4, 6, 10, 50)]
    assert shares == sorted(shares)
    assert (shares[0], shares[2], shares[-1]) == pytest.approx((.1, .2, .4))


@pytest.mark.parametrize(("settings", "count", "expected"), [
    ({}, 4, {0, 1, 2, 3}), ({"stop": .5}, 10, {0, 1, 2, 3, 4}), ({"start": .3}, 10, {3, 4, 5, 6, 7, 8, 9}),
    ({"every": 2}, 10, {1, 3, 5, 7, 9}),
    ({"every": 4}, 10, {3, 7, 9}), ({"start": .2, "stop": .8, "every": 2}, 5, {2, 3}), ({"every": 9}, 4, {3}),
    ({"evaluations": 3}, 12, {3, 7, 11}), ({"evaluations": 6}, 4, {0, 1, 2, 3}), ({"evaluations": 2, "stop": .5}, 10, {2, 4}),
])
def test_which_steps_are_guided(settings, count, expected):
    assert CleanImage(**settings).guided_steps(count) == expected


@pytest.mark.parametrize("settings", [{"strength": -1.}, {"strength": float("nan")}, {"start": .5, "stop": .5}, {"start": -.1},
                                      {"stop": 1.1}, {"every": 0}, {"every": 1.5}, {"evaluations": -1},
                                      {"evaluations": .5}])
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError):
        CleanImage(**settings)


def test_every_preset_loads_and_every_strategy_has_one():
    for key, preset in presets().items():
        assert isinstance(load(key), Strategy)
        assert preset.about.endswith(".")
    assert {preset.strategy for preset in presets().values()} == set(STRATEGIES)
    assert isinstance(load("unguided", strength=2.), Unguided)
    assert load("unguided").strength == 0
    assert load("clean-image-full") == CleanImage()
    assert load("Clean Image", strength=2, every=None) == CleanImage(strength=2, evaluations=4)
    assert load("clean-image").settings() == {
        "strength": 1., "start": 0., "stop": 1., "every": 1, "evaluations": 4, "damping": 0., "spread": 1.}


def test_unknown_names_and_settings_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="clean-image"):
        load("clean-imgae")
    with pytest.raises(UserError, match="strength"):
        load("clean-image", strenght=1.)
    with pytest.raises(UserError, match="number"):
        load("clean-image", strength="much")


def test_strategies_keep_nothing_between_steps():
    """Frozen, and the same from the same start: what is carried is returned."""
    strategy = CleanImage(every=2)
    with pytest.raises(AttributeError):
        strategy.strength = 2.
    pipeline, images = sd(), []
    for _ in range(2):
        with guided(pipeline, Warmth(), strategy, seeds=(1,)):
            images.append(call(pipeline, (1,)))
    assert torch.equal(*images)


def test_a_strategy_that_does_nothing_changes_nothing():
    class Looks(Strategy):
        def __call__(self, step, carried):
            assert step.after[0] >= step.before[0]
            assert len(step.responses) == step.count
            return Outcome(carried=(carried or 0) + 1)

    pipeline = sd()
    plain = call(pipeline)
    with guided(pipeline, Warmth(), Looks()) as run:
        images = call(pipeline)
    assert torch.equal(images, plain)
    assert not any(row["guided"] for row in run.trace)


def test_the_exports_are_there():
    assert set(strategies.__all__) <= set(dir(strategies))
    assert DDIMScheduler
