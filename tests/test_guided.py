"""What `guided` promises on every family: nothing at strength 0, a linear response near it, everything as before afterwards."""
import contextlib
import warnings

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from tiny_pipelines import Values, Warmth, call, pixels, scheduler, sd, sdxl, tiny_autoencoder

from guide.guided import guided
from guide.seeds import generators, seeds_of, view_generators
from guide.strategies import CleanImage, Strategy, Unguided
from guide.strategies.strategy import Outcome
from probes.errors import UserError

warnings.filterwarnings("ignore", category=DeprecationWarning)
SCHEDULERS = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler", "EulerDiscreteScheduler",
              "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler",
              "KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
              "DEISMultistepScheduler", "SASolverScheduler"]


def steer(pipeline, strategy, objective=None, seeds=(1, 2), **arguments):
    """Images and the run of a guided call."""
    with guided(pipeline, objective or Warmth(), strategy, seeds=seeds) as run:
        return call(pipeline, seeds, **arguments), run


def loss(images):
    """Of each image, without noise in the view."""
    return Warmth(noise=0.)(images.float(), generators(range(len(images)))).loss


def test_without_seeds_the_views_follow_each_images_own_noise():
    pipeline = sd()
    with guided(pipeline, Warmth(), CleanImage(strength=2.)):
        together, alone = call(pipeline, (5, 6)), call(pipeline, (6,))
    assert torch.allclose(together[1], alone[0], atol=2e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_bit_for_bit_and_steered(name):
    pipeline = sd(schedule=name)
    plain = call(pipeline)
    zero, _ = steer(pipeline, CleanImage(strength=0.))
    steered, run = steer(pipeline, CleanImage(strength=1.))
    assert torch.equal(zero, plain)
    assert not torch.equal(steered, plain)
    assert all(row["guided"] and row["loss"] is not None for row in run.trace)
    assert len(run.trace) == pipeline.num_timesteps


@pytest.mark.parametrize(("name", "prediction"), [
    ("EulerDiscreteScheduler", "v_prediction"), ("DPMSolverMultistepScheduler", "v_prediction"),
    ("UniPCMultistepScheduler", "v_prediction"), ("DDIMScheduler", "sample")])
def test_other_predictions_are_steered_downhill(name, prediction):
    pipeline = sd(prediction, name)
    plain = call(pipeline)
    zero, _ = steer(pipeline, CleanImage(strength=0.))
    images, _ = steer(pipeline, CleanImage(strength=3.))
    assert torch.equal(zero, plain)
    assert (loss(images) < loss(plain)).all()


def test_in_double_precision_the_response_is_exactly_linear():
    pipeline = sd().to(torch.float64)
    plain = call(pipeline)
    small, double = (steer(pipeline, CleanImage(strength=s))[0] - plain for s in (1e-4, 2e-4))
    assert plain.dtype == torch.float64
    assert (double - 2 * small).norm() < 1e-3 * double.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [sd, sdxl])
def test_half_precision(build, dtype):
    """SDXL in half precision decodes with a float32 copy, and its own decoder is left as it was."""
    pipeline = build().to(dtype)
    plain = call(pipeline)
    zero, _ = steer(pipeline, CleanImage(strength=0.))
    images, run = steer(pipeline, CleanImage(strength=3.))
    assert torch.equal(zero, plain)
    assert images.dtype == plain.dtype
    assert pipeline.vae.dtype == dtype
    assert run.calls["skipped"] == 0
    assert not torch.equal(images, plain)
    assert (loss(images) < loss(plain)).all()


def test_image_to_image_guides_the_steps_that_run():
    base = sd()
    pipeline = StableDiffusionImg2ImgPipeline(**base.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = call(pipeline, image=picture, strength=.5, steps=8)
    zero, _ = steer(pipeline, CleanImage(strength=0.), image=picture, strength=.5, steps=8)
    images, run = steer(pipeline, CleanImage(stop=.5), image=picture, strength=.5, steps=8)
    assert torch.equal(zero, plain)
    assert [row["guided"] for row in run.trace] == [True, True, False, False]
    assert not torch.equal(images, plain)


def test_diffusion_of_pixels_without_text_or_decoder():
    pipeline = pixels()

    def made(strength):
        with guided(pipeline, Warmth(), CleanImage(strength=strength), seeds=(1, 2)) as run:
            return pipeline(batch_size=2, generator=generators((1, 2)), num_inference_steps=4, output_type="np").images, run

    plain = pipeline(batch_size=2, generator=generators((1, 2)), num_inference_steps=4, output_type="np").images
    assert (made(0.)[0] == plain).all()
    images, run = made(1.)
    assert (images != plain).any()
    assert run.calls["decodes"] == 4


def test_decodes_only_where_a_loss_needs_them():
    pipeline, objective = sd(), Warmth()
    _, run = steer(pipeline, CleanImage(start=.25, stop=.75, every=2), objective, steps=8)
    assert [row["guided"] for row in run.trace] == [False, False, False, True, False, True, False, False]
    assert [row["decodes"] for row in run.trace] == [0, 0, 0, 1, 0, 1, 0, 0]
    assert run.calls["decodes"] == run.calls["encoder"] == objective.calls == 2


def test_a_window_leaves_the_steps_before_it_alone():
    pipeline, latents = sd(), {}

    def kept(name):
        def keep(pipe, index, t, tensors):
            latents.setdefault(name, []).append(tensors["latents"].clone())
            return tensors
        return keep

    call(pipeline, steps=6, callback_on_step_end=kept("plain"))
    steer(pipeline, CleanImage(start=.5), steps=6, callback_on_step_end=kept("late"))
    same = [torch.equal(a, b) for a, b in zip(latents["plain"], latents["late"], strict=True)]
    assert same == [True, True, True, False, False, False]


class Broken(Warmth):
    """Not a number for the second image of a batch of two, in its loss and so in its gradient."""

    def __call__(self, images, generators):
        values = super().__call__(images, generators)
        if len(images) == 1:
            return values
        return Values(values.loss * torch.tensor([1., float("nan")]), values.terms)


def test_a_gradient_that_is_not_a_number_skips_that_image_and_is_counted():
    pipeline = sd()
    plain = call(pipeline)
    images, run = steer(pipeline, CleanImage(strength=2.), Broken())
    healthy, _ = steer(pipeline, CleanImage(strength=2.))
    assert torch.equal(images[1], plain[1])
    assert torch.allclose(images[0], healthy[0], atol=1e-5)
    assert [row["skipped"] for row in run.trace] == [1] * 3
    assert run.calls["skipped"] == 3
    assert run.trace[0]["losses"][1] is None
    assert run.trace[0]["loss"] == pytest.approx(run.trace[0]["losses"][0])


@pytest.mark.parametrize("schedule", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_moves_of_the_mean_and_at_fixed_noise(schedule):
    """A clean move of d at fixed noise is a move of a' * d of x_{t-1}; as a move of the mean the same is said directly."""
    class AtFixedNoise(Strategy):
        move = "fixed noise"

        def __call__(self, step, carried):
            return Outcome(clean=torch.ones_like(step.clean))

    class OfTheMean(Strategy):
        def __call__(self, step, carried):
            return Outcome(mean=step.after[0] * torch.ones_like(step.clean))

    pipeline = sd(schedule=schedule)
    plain = call(pipeline)
    one, _ = steer(pipeline, AtFixedNoise())
    two, _ = steer(pipeline, OfTheMean())
    assert torch.equal(one, two)
    assert not torch.equal(one, plain)


def test_several_runs_in_one_block_and_the_trace_of_them():
    pipeline, rows = sd(), []
    with guided(pipeline, Warmth(), CleanImage(), seeds=(1, 2), on_step=rows.append) as run:
        first, second = call(pipeline), call(pipeline)
        call(pipeline, steps=6)
    assert torch.equal(first, second)
    assert [row["step"] for row in run.trace] == [*range(3), *range(3), *range(6)]
    assert rows == run.trace
    wanted = {"step", "t", "sigma", "loss", "losses", "terms", "terms_per_image", "gradient_norm", "norm_ratio", "skipped", "decodes",
              "seconds"}
    assert wanted <= set(run.trace[0])
    assert set(run.trace[0]["terms"]) == {"colour", "texture"}
    assert run.calls["seconds"] >= sum(row["seconds"] for row in run.trace) * .9


def test_a_judge_is_watched_and_changes_nothing():
    class Judge:
        labels = ("cold", "warm")

        def __call__(self, images):
            warmth = images[:, 0].mean((1, 2))
            values = {"styles": torch.stack([1 - warmth, warmth], 1), "years": 1600 + warmth, "severity": warmth}
            return type("Opinion", (), values)()

    pipeline = sd()
    with guided(pipeline, Warmth(), CleanImage(), seeds=(1, 2), judge=Judge()) as run:
        images = call(pipeline)
    assert torch.equal(images, steer(pipeline, CleanImage())[0])
    assert set(run.trace[-1]["watched"]) == {"styles", "years", "severity"}


def test_a_tiny_decoder_stands_in():
    pipeline, tiny = sd(), tiny_autoencoder()
    with guided(pipeline, Warmth(), CleanImage(), seeds=(1, 2), tiny=tiny):
        images = call(pipeline)
    assert not torch.equal(images, steer(pipeline, CleanImage())[0])


def test_equal_prompt_and_negative_prompt_still_guide():
    pipeline = sd()
    arguments = {"prompts": ["", ""], "negative_prompt": ["", ""]}
    plain, (images, run) = call(pipeline, **arguments), steer(pipeline, CleanImage(), **arguments)
    assert not torch.equal(images, plain)
    assert run.trace[0]["correction_ratio"] == [0., 0.]


def test_misuse_is_told_in_a_sentence():
    pipeline = sd()
    with guided(pipeline, Warmth(), CleanImage(), seeds=(1, 2)), pytest.raises(UserError, match="one seed per image"):
        call(pipeline, (1, 2, 3))
    with pytest.raises(UserError, match="objective"), guided(pipeline, None, CleanImage()):
        pass
    with pytest.raises(UserError, match="already"), guided(pipeline, None, Unguided()), guided(pipeline, None, Unguided()):
        pass
    exchanged = sd()
    with guided(exchanged, Warmth(), CleanImage()):
        exchanged.scheduler = scheduler("EulerDiscreteScheduler")
        with pytest.raises(UserError, match="exchanged"):
            call(exchanged)
    with pytest.raises(UserError, match="depends on the images"):
        steer(sd(), CleanImage(), lambda images, generators: Values(torch.zeros(2), {}))
    with pytest.raises(UserError, match="window"):
        steer(sd(), CleanImage(start=.5, stop=.6), steps=1)
    with pytest.raises(UserError, match="scheduler and a unet"), guided(torch.nn.Linear(1, 1), Warmth(), CleanImage()):
        pass


def test_sequential_offloading_is_refused():
    pipeline = sd()
    from accelerate import cpu_offload

    cpu_offload(pipeline.vae, "cpu", offload_buffers=True)
    with pytest.raises(UserError, match="offloading"), guided(pipeline, Warmth(), CleanImage()):
        pass


def test_generators_are_one_per_image_and_views_have_their_own_stream():
    def draw(found):
        return [torch.rand(3, generator=generator).tolist() for generator in found]

    assert draw(generators((3, 4))) == draw(generators((3,))) + draw(generators((4,)))
    assert draw(view_generators((3, 4)))[1] == draw(view_generators((4,)))[0]
    assert draw(view_generators((3,))) != draw(generators((3,)))
    latents = torch.randn(2, 4, 8, 8)
    assert seeds_of(latents)[1] == seeds_of(latents[1:])[0] != seeds_of(latents)[0]
    with pytest.raises(UserError, match="seed"):
        generators((-1,))


def test_nothing_remains_of_a_block_that_never_ran():
    pipeline = sd()
    with contextlib.suppress(KeyError), guided(pipeline, None, Unguided()):
        raise KeyError
    assert torch.equal(call(pipeline), call(pipeline))
    assert "step" not in pipeline.scheduler.__dict__
