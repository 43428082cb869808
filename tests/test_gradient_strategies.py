"""Every strategy that steers by a gradient: it lowers the loss, image k is its own, and methods that contain each other agree."""
import functools
import math

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from tiny_families import FAMILIES, built
from tiny_pipelines import Values, Warmth, call, sd

from guide import noise
from guide.guided import guided
from guide.strategies import DPS, DSG, MPGD, NTRK, TFG, CleanImage, FreeDoM, Universal, load, presets
from guide.strategies.gradient import share_of_clean
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
    (Universal(strength=2., forward=.5, backward=2), TFG(strength=2., rho=.5, mu=.5, iterations=2, consistent=True)),
    (Universal(strength=2., forward=1., backward=0, recurrence=2), TFG(strength=2., rho=1., mu=0., recurrence=2, consistent=True)),
    (Universal(strength=2., forward=0., backward=3), TFG(strength=2., rho=0., mu=1., iterations=3, consistent=True)),
], ids=["DPS", "LGD-MC", "MPGD", "FreeDoM", "universal", "universal forward", "universal backward"])
@pytest.mark.parametrize("schedule", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_methods_are_settings_of_tfg(method, setting, schedule):
    one, other = (run(sd(schedule=schedule), strategy, (1, 2), objective=Warmth())[0] for strategy in (method, setting))
    assert torch.equal(one, other)


DPM = "DPMSolverMultistepScheduler"
SAMPLERS = {  # and those of the same family that add noise, for strategies that shape it
    "DDIM": ({"schedule": "DDIMScheduler"}, {"schedule": "DDIMScheduler"}),
    "Euler": ({"schedule": "EulerDiscreteScheduler"}, {"schedule": "EulerAncestralDiscreteScheduler"}),
    "DPM++": ({"schedule": DPM}, {"schedule": DPM, "algorithm_type": "sde-dpmsolver++"}),
}


def displacement(key: str, sampler: str, steps: int, **arguments) -> tuple[float, float, float]:
    """Summed over a run at strength 1, at the scheduler: RMS change of x_{t-1} by guidance and by classifier-free guidance; and the RMS of
    the last clean estimate. From the same x_t, with the same noise and history. Steps are taken once: a repeated one begins elsewhere."""
    preset, once = presets()[key], {"recurrence": 1} if key in ("freedom", "universal", "tfg") else {}
    pipeline = sd(**SAMPLERS[sampler][preset.stochastic])
    arguments |= {"eta": 1.} if preset.stochastic and sampler == "DDIM" else {}
    strategy, seen, sums = load(key, **once), [], [0., 0.]

    class Spied(type(strategy)):
        def __call__(self, step, carried):
            seen.append(step)
            return super().__call__(step, carried)

    with guided(pipeline, SHARP, Spied(**strategy.settings()), seeds=(1,)):
        stand_in = pipeline.scheduler.step

        @functools.wraps(stand_in)
        def step(output, t, x, *args, **kwargs):
            twins = [noise.twin(pipeline.scheduler) for _ in range(2)]
            generators = kwargs.get("generator") or []
            states = [generator.get_state() for generator in generators]

            def drawn(take, changed):
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)
                return take(changed.to(output.dtype), t, x, *args, **kwargs)

            answer = drawn(stand_in, output.clone())
            chosen = seen[-1].combination.conditional
            plain, alone = (drawn(twin.step, other)[0] for twin, other in
                            zip(twins, (output, output if chosen is None else seen[-1].raw[chosen]), strict=True))
            sums[0] += float((answer[0] - plain).square().mean().sqrt())
            sums[1] += float((plain - alone).square().mean().sqrt())
            return answer

        pipeline.scheduler.step = step
        call(pipeline, (1,), steps, **arguments)
        pipeline.scheduler.step = stand_in
    return *sums, float(seen[-1].clean.square().mean().sqrt())


@pytest.mark.parametrize("steps", [10, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (25, 50, 100))])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("key", [key for key in GUIDING if key not in ("clean-image-fast", "clean-image-full")])
def test_strength_means_the_same_displacement(key, sampler, steps):
    guidance, correction, _ = displacement(key, sampler, steps)
    assert guidance / correction == pytest.approx(.2, rel=.15)


@pytest.mark.parametrize("key", ["mpgd", "dps", "universal", "tfg"])
def test_without_classifier_free_guidance_it_is_a_share_of_the_clean_estimate(key):
    found = []
    for steps in (6, 12):
        guidance, _, clean = displacement(key, "DDIM", steps, guidance_scale=1.)
        found.append(guidance / clean)
    assert found[0] == pytest.approx(found[1], rel=.3)
    assert found[0] == pytest.approx(share_of_clean(6), rel=.5)


@pytest.mark.parametrize("family", ["sd3", "flux"])
@pytest.mark.parametrize("key", [key for key in GUIDING if key not in ("clean-image-fast", "clean-image-full")])
def test_flow_models_are_steered_in_velocity(key, family):
    """The move of the clean estimate is one of the velocity, by -1 / sigma; noise is shaped where the scheduler adds some, else refused."""
    losses, stochastic = [], presets()[key].stochastic
    kind = FAMILIES[family]
    if stochastic:
        with pytest.raises(UserError, match="stochastic"):
            run(kind.build(), load(key), steps=2, **kind.arguments)
    for strength in (1e-6, 8.):
        pipeline = kind.build()
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, stochastic_sampling=stochastic)
        _, done = run(pipeline, load(key, strength=strength), steps=4, **kind.arguments)
        losses.append([row["loss"] for row in done.trace if row["loss"] is not None][-1])
        assert done.calls["skipped"] == 0
    assert losses[1] < losses[0]


@pytest.mark.parametrize("key", ["clean-image", "mpgd"])
def test_a_move_of_the_velocity_is_the_move_of_the_clean_estimate(key):
    """`x0 = x_t - sigma v`: in one step to sigma 0 nothing but the clean estimate is left, moved by what the trace says."""
    images = []
    for strength in (0., 1.):
        pipeline, generator = FAMILIES["sd3"].build(), torch.Generator().manual_seed(1)
        with guided(pipeline, SHARP, load(key, strength=strength), seeds=(1,)) as done:
            images.append(pipeline("aaa", num_inference_steps=1, generator=generator, output_type="latent", height=16, width=16).images)
    moved = float((images[1] - images[0]).square().mean().sqrt() / images[0].square().mean().sqrt())
    assert moved == pytest.approx(done.trace[0]["norm_ratio"][0], rel=1e-3)


@pytest.mark.parametrize(("key", "decodes", "backward"), [
    ("clean-image-full", 1, 0), ("mpgd", 1, 0), ("dps", 1, 1), ("lgd-mc", 4, 1), ("tfg", 5, 1), ("universal", 3, 1)])
def test_what_a_guided_step_costs(key, decodes, backward, small_encoder):
    """Crops and probes are gathered at the clean estimate: an encoder pass per decode, one vector-Jacobian product through the denoiser."""
    from guide.brief import Brief
    from guide.objectives import aimed
    objective = aimed(Brief("lemons", (("baroque", 1.),), ("rococo",), (1600, 1650), scene="landscape", origin="person"), small_encoder)
    objective.read(torch.rand(1, 3, 96, 96))  # an encoder finds out once how long its descriptions are
    pipeline, passes, products = sd(), [], []
    handles = [small_encoder.clip.visual.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))]

    def heard(module, inputs, output):
        if output[0].requires_grad:
            output[0].register_hook(lambda gradient: products.append(gradient.shape))

    handles.append(pipeline.unet.register_forward_hook(heard))
    _, done = run(pipeline, load(key), (1, 2), steps=3, objective=objective)
    for handle in handles:
        handle.remove()
    assert len(objective.terms) == 5
    assert passes == [2 * objective.views.count] * 3 * decodes
    assert done.calls["decodes"] == done.calls["encoder"] == 3 * decodes
    assert len(products) == 3 * backward


def test_memory_does_not_grow_with_the_probes_of_an_encoder(small_encoder):
    """Bytes that autograd holds for the backward pass, of one probe and of five."""
    from guide.brief import Brief
    from guide.objectives import aimed
    from probes.objective import Objective
    whole = aimed(Brief("lemons", (("baroque", 1.),), ("rococo",), (1600, 1650), scene="landscape", origin="person"), small_encoder)
    images, held = torch.rand(2, 3, 96, 96).requires_grad_(), []
    for objective in (Objective(whole.terms[:1]), whole):
        seen: dict[int, int] = {}

        def pack(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            objective(images, [torch.Generator().manual_seed(k) for k in (0, 1)])
        held.append(sum(seen.values()))
    assert held[1] < 1.05 * held[0]


@pytest.mark.parametrize(("key", "value"), [*((key, math.nan) for key in GUIDING), ("clean-image", math.inf), ("dps", math.inf)])
def test_a_gradient_that_is_no_number_is_skipped_and_counted(key, value):
    class Broken(Warmth):
        def __call__(self, images, generators):
            values = super().__call__(images, generators)
            return Values(values.loss * torch.where(torch.arange(len(images)) == 1, value, 1.), values.terms) if len(images) > 1 else values

    plain, _ = run(pipeline_for(key), load(key, strength=1e-6), (1, 2), 3)
    images, done = run(pipeline_for(key), load(key, strength=4.), (1, 2), 3, objective=Broken(noise=0.))
    assert images.isfinite().all()
    assert torch.allclose(images[1], plain[1], atol=1e-3), "it is as if it were not steered"
    assert not torch.allclose(images[0], plain[0], atol=1e-3)
    assert done.calls["skipped"] == sum(row["skipped"] for row in done.trace) >= 2


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
