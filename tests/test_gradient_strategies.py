"""Every strategy that steers by a gradient: it lowers the loss, image k is its own, and methods that contain each other agree."""
import math

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from tiny_families import FAMILIES, built
from tiny_pipelines import Warmth, call, sd

from guide import noise
from guide.guided import guided
from guide.strategies import DPS, DSG, MPGD, NTRK, TFG, CleanImage, FreeDoM, Universal, load, presets
from guide.strategies.noise_shaping import turned, whitened
from probes.errors import UserError

GUIDING = [key for key, preset in presets().items() if preset.gradient and not preset.loop]
THROUGH = [key for key in GUIDING if "denoiser" in presets()[key].gradient]
SHARP = Warmth(noise=0.)


def pipeline_for(key: str):
    """Stable Diffusion with a scheduler that the preset can work with."""
    return sd(schedule="EulerAncestralDiscreteScheduler" if presets()[key].stochastic else "DDIMScheduler")


def run(pipeline, strategy, seeds=(1,), steps=4, objective=SHARP, **arguments):
    with guided(pipeline, objective, strategy, seeds=seeds) as done:
        images = call(pipeline, seeds, steps, **arguments)
    return images, done


def decoded_loss(key: str, strength: float, steps: int = 8) -> float:
    """The loss of the last clean estimate that the trace holds."""
    _, done = run(pipeline_for(key), load(key, strength=strength), (1, 2), steps)
    return [row["loss"] for row in done.trace if row["loss"] is not None][-1]


@pytest.mark.parametrize("key", GUIDING)
def test_it_lowers_the_loss(key):
    assert decoded_loss(key, 4.) < decoded_loss(key, 1e-6)


@pytest.mark.parametrize("key", GUIDING)
def test_image_k_depends_on_seed_k_alone(key):
    together, _ = run(pipeline_for(key), load(key, strength=2.), (1, 2, 3), objective=Warmth())
    for place, seed in enumerate((1, 2, 3)):
        alone, _ = run(pipeline_for(key), load(key, strength=2.), (seed,), objective=Warmth())
        assert torch.allclose(together[place], alone[0], atol=2e-4)


@pytest.mark.parametrize("key", GUIDING)
def test_strength_0_changes_no_bit(key):
    pipeline = pipeline_for(key)
    plain = call(pipeline, (1, 2))
    guided_images, done = run(pipeline, load(key, strength=0.), (1, 2), 3)
    assert torch.equal(plain, guided_images)
    assert done.calls["encoder"] == 0


@pytest.mark.parametrize("key", GUIDING)
def test_small_strengths_act_in_proportion(key):
    """Of latents: twice the strength, twice the change. Against next to none, since time travel alone changes an image."""
    pipeline, changes = pipeline_for(key), []
    plain = _latents(pipeline, load(key, strength=1e-6))
    for strength in (.002, .004):
        changes.append(_latents(pipeline, load(key, strength=strength)) - plain)
    assert (changes[1] - 2 * changes[0]).norm() < .1 * changes[1].norm()


def _latents(pipeline, strategy):
    generators = [torch.Generator().manual_seed(1)]
    arguments = {"prompt": ["aaa"], "num_inference_steps": 2, "generator": generators, "output_type": "latent", "height": 16, "width": 16}
    with guided(pipeline, SHARP, strategy, seeds=(1,)):
        return pipeline(**arguments).images


@pytest.mark.parametrize("family", ["sd 2.1 (v)", "sdxl", "sd3", "flux true cfg", "qwen-image", "z-image", "sana"])
@pytest.mark.parametrize("strategy", ["mpgd", "universal"])
def test_families_of_pipelines_are_steered(family, strategy):
    """Through the denoiser and in clean-image space alone: tests/test_families.py."""
    losses = []
    for strength in (1e-6, 5.):
        with guided(built(family), Warmth(), load(strategy, strength=strength), seeds=(1,)) as done:
            FAMILIES[family](built(family), (1,), steps=4)
        losses.append([row["loss"] for row in done.trace][-1])
        assert all(row["skipped"] == 0 for row in done.trace)
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("method", "setting"), [
    (DPS(strength=2.), TFG(strength=2., rho=1., mu=0.)),
    (DPS(strength=2., samples=3), TFG(strength=2., rho=1., mu=0., samples=3)),
    (MPGD(strength=2.), TFG(strength=2., rho=0., mu=1.)),
    (FreeDoM(strength=2., recurrence=2, travel_from=0., travel_to=1.), TFG(strength=2., rho=1., mu=0., recurrence=2)),
], ids=["DPS", "LGD-MC", "MPGD", "FreeDoM"])
def test_methods_are_settings_of_tfg(method, setting):
    assert torch.equal(*(run(sd(), strategy, (1, 2), objective=Warmth())[0] for strategy in (method, setting)))


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("schedule", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("strategy", [CleanImage(), MPGD(), DPS(), Universal()], ids=lambda strategy: type(strategy).__name__)
def test_strength_means_the_same_displacement(strategy, schedule, steps):
    """What the scheduler returns, against what it would have returned: summed over the run, .2 x that of classifier-free guidance."""
    pipeline, sums = sd(schedule=schedule), [0., 0.]
    guided_step = type(strategy).steer

    class Spied(type(strategy)):
        def steer(self, step, due):
            outcome = guided_step(self, step, due)
            moved = torch.zeros(1)
            if outcome.clean is not None:
                moved = outcome.clean * (step.after[0] if self.move == "fixed noise" else step.responses[step.index])
            moved = moved + (0 if outcome.mean is None else outcome.mean)
            sums[0] += float(moved.square().mean().sqrt())
            sums[1] += float(step.responses[step.index] * step.correction().square().mean().sqrt())
            return outcome

    run(pipeline, Spied(**strategy.settings()), steps=steps)
    assert sums[0] / sums[1] == pytest.approx(.2, rel=.15)


def test_time_travel_needs_a_single_step_scheduler():
    with pytest.raises(UserError, match="single-step"):
        run(sd(schedule="DPMSolverMultistepScheduler"), FreeDoM(travel_from=0., travel_to=1.))


def test_time_travel_pays_for_its_denoiser_calls():
    _, plain = run(sd(), DPS(), steps=10)
    _, travelled = run(sd(), FreeDoM(recurrence=3, travel_from=.3, travel_to=.6), steps=10)
    assert [row["repeats"] for row in travelled.trace] == [0, 0, 0, 2, 2, 2, 0, 0, 0, 0]
    assert travelled.calls["denoiser"] > plain.calls["denoiser"]


def test_noise_cannot_be_shaped_where_there_is_none():
    with pytest.raises(UserError, match="stochastic"):
        run(sd(), DSG())


def test_the_gradient_needs_a_known_combination():
    def bent(pipeline, strategy):
        """A pipeline of one's own, which bends each prediction after the denoiser has returned it."""
        with guided(pipeline, SHARP, strategy, seeds=(1,)) as done:
            pipeline.unet.register_forward_hook(lambda module, args, output: (output[0].tanh(),))
            call(pipeline, (1,))
        return done

    with pytest.raises(UserError, match=r"no known combination.*clean-image"):
        bent(sd(), DPS())
    assert all(row["guided"] and row["residual"] > 1e-3 for row in bent(sd(), MPGD()).trace)


def test_rescaled_guidance_is_known():
    _, done = run(sd(), DPS(strength=2.), guidance_rescale=.7)
    assert all(row["guided"] and row["residual"] < 1e-5 for row in done.trace)


def test_the_gradient_through_the_denoiser_is_the_true_one():
    """Against central differences of the loss along its own direction."""
    found = []

    class Checked(DPS):
        def steer(self, step, due):
            from guide.strategies.gradient import through_denoiser
            ascent, _ = through_denoiser(step)
            unit = ascent.direction / ascent.direction.norm()
            h = 1e-2
            losses = [step.ascent(step.clean_of(step.x + sign * h * unit).detach()).loss for sign in (1, -1)]
            found.append((float((losses[0] - losses[1]) / (2 * h)), -float(ascent.direction.norm())))
            return super().steer(step, due)

    run(sd(), Checked(strength=1e-6), steps=3)
    for numeric, exact in found:
        assert numeric == pytest.approx(exact, rel=.02)


def test_damping_divides_by_the_posterior_variance():
    _, plain = run(sd(timestep_spacing="trailing"), CleanImage(strength=1.), steps=1)
    _, damped = run(sd(timestep_spacing="trailing"), CleanImage(strength=1., damping=3., spread=1.), steps=1)
    # At the first of one step x_t is nearly all noise: v_t is the prior's variance, 1.
    assert damped.trace[0]["norm_ratio"][0] / plain.trace[0]["norm_ratio"][0] == pytest.approx(1 / 7, rel=.02)


def test_noise_is_turned_on_its_sphere():
    generator = torch.Generator().manual_seed(0)
    drawn, target = torch.randn(2, 3, 4, 8, 8, generator=generator)
    angle = torch.tensor([0., .3, math.pi / 2])
    out = turned(drawn, target, angle)
    assert torch.equal(out[0], drawn[0])
    assert torch.allclose(out.flatten(1).norm(dim=1), drawn.flatten(1).norm(dim=1))
    cosine = torch.cosine_similarity(out.flatten(1), drawn.flatten(1))
    assert torch.allclose(cosine, angle.cos(), atol=1e-5)


def test_whitened_noise_is_gaussian_and_keeps_the_direction():
    smooth = torch.nn.functional.interpolate(torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), size=32, mode="bicubic")
    white = whitened(smooth)
    assert white.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    assert white.pow(2).mean(dim=(1, 2, 3)).sub(1).abs().max() < 1e-4
    assert white.flatten(1).pow(4).mean(1).sub(3).abs().max() < .1  # the kurtosis of a Gaussian
    neighbours = (white[..., 1:] * white[..., :-1]).mean()
    assert neighbours < .15 < .9 < (smooth[..., 1:] * smooth[..., :-1]).mean() / smooth.pow(2).mean()
    assert (torch.cosine_similarity(white.flatten(1), smooth.flatten(1)) > .05).all()


@pytest.mark.parametrize("schedule", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_the_scale_of_a_schedulers_noise_is_measured(schedule):
    pipeline = sd(schedule=schedule)
    pipeline.scheduler.set_timesteps(10)
    x = torch.zeros(1, 4, 8, 8)
    t = pipeline.scheduler.timesteps[3]
    pipeline.scheduler.scale_model_input(x, t)

    def step(scheduler):
        return scheduler.step(torch.zeros_like(x), t, x, return_dict=False)[0]

    found = noise.scale(pipeline.scheduler, step)
    draws = torch.cat([step(noise.twin(pipeline.scheduler)) for _ in range(40)])
    assert found == pytest.approx(float(draws.std()), rel=.05)
    assert type(pipeline.scheduler).step.__globals__["randn_tensor"] is randn_tensor


@pytest.mark.parametrize("settings", [{"rho": -1.}, {"rho": 0., "mu": 0.}, {"iterations": 0}, {"samples": 1.5}, {"damping": -1.},
                                      {"spread": 0.}])
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError):
        TFG(**settings)
    assert NTRK().passes == 10
