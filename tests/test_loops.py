"""Whole-run methods: what they keep, that a seed's picture is its own, resampling counted by hand, particles against a known posterior."""
import math

import pytest
import torch
from tiny_pipelines import SIDE, Warmth, sd, tiny_autoencoder

from guide import run
from guide.brief import Brief
from guide.guided import guided
from guide.loops import LOOPS, find
from guide.loops.best_of import BestOf
from guide.loops.noise import ReNO, gaussianity
from guide.loops.particles import DAS, FK
from guide.loops.resampling import Population, effective_size, normalised, systematic
from guide.loops.sample import Loop, Sampler, best, whole_loss
from guide.loops.swarm import Swarm, spread
from guide.seeds import generators, members
from guide.strategies import CleanImage, Unguided, load, presets
from probes.errors import UserError

SHARP = Warmth(noise=0.)


def sampler(schedule: str = "DDIMScheduler", steps: int = 3, objective=SHARP, **more) -> Sampler:
    return Sampler(sd(schedule=schedule), {"prompt": "a painting", "num_inference_steps": steps, "height": SIDE, "width": SIDE}, objective,
                   **more)


@pytest.mark.parametrize("weights", [[.1, .2, .3, .4], [1., 0., 0., 0.], [.25] * 4, [0., .5, .5, 0.], [.01, .01, .97, .01]])
def test_systematic_resampling_gives_each_particle_its_share_rounded_up_or_down(weights):
    weights = torch.tensor(weights, dtype=torch.float64)
    for uniform in (0., .3, .77, .999):
        counts = torch.bincount(systematic(weights, uniform), minlength=4)
        assert ((counts - 4 * weights).abs() < 1).all()
    assert systematic(torch.full((5,), .2), .4).tolist() == [0, 1, 2, 3, 4]


def test_survivors_keep_their_places():
    # 5 w = 0, 1.25, 2.5, 1.25, 0; points at .1, .3, .5, .7, .9 of edges 0, .25, .75, 1, 1: descendants 0, 1, 3, 1, 0.
    assert systematic(torch.tensor([0., .25, .5, .25, 0.]), .5).tolist() == [2, 1, 2, 3, 2]


def test_systematic_resampling_is_unbiased():
    weights = torch.tensor([.15, .5, .35])
    uniforms = (torch.arange(1000) + .5) / 1000
    counts = sum(torch.bincount(systematic(weights, float(u)), minlength=3) for u in uniforms) / 1000
    assert (counts - 3 * weights).abs().max() < .01


def test_effective_sample_size_by_hand():
    weights = torch.tensor([[.25] * 4, [1., 0., 0., 0.], [.5, .5, 0., 0.], [.4, .3, .2, .1]], dtype=torch.float64)
    assert effective_size(weights).tolist() == pytest.approx([4., 1., 2., 1 / .3])


def test_weights_that_are_zero_infinite_or_no_numbers():
    inf, nan = math.inf, math.nan
    rows = torch.tensor([[-inf] * 3, [nan] * 3, [inf, 0., inf], [nan, 0., -inf], [0., math.log(3.), -inf], [-9e9, -9e9, -inf]])
    third = [1 / 3] * 3
    expected = [third, third, [.5, 0., .5], [0., 1., 0.], [.25, .75, 0.], [.5, .5, 0.]]
    assert (normalised(rows) - torch.tensor(expected)).abs().max() < 1e-6
    population = Population((1, 2), 3)
    population.weigh(rows[:2])
    assert population.resample(.5).tolist() == [[0, 1, 2]] * 2


def test_potentials_reach_the_same_target_and_evidence_is_their_mean():
    """One weighing with each potential, then the finished images: the weights are exp(lambda r) whatever came before."""
    reward, final = torch.tensor([[.3, -1., .5]], dtype=torch.float64), torch.tensor([[1., 0., 2.]], dtype=torch.float64)
    for kind in ("difference", "max", "sum"):
        method, population = FK(strength=2., n=3, kind=kind), Population((0,), 3)
        for _ in range(2):
            potential, population.statistic = method.potential(population, reward, .5)
            population.weigh(potential)
        assert (population.close(2 * final) - (2 * final).softmax(1)).abs().max() < 1e-12
        assert float(population.evidence) == pytest.approx(float((2 * final).logsumexp(1)) - math.log(3))


def test_members_begin_with_the_seed_itself_and_depend_on_it_alone():
    assert members(7, 3)[0] == 7
    assert members(7, 3) == members(7, 5)[:3]
    assert len({*members(7, 50), *members(8, 50)}) == 100


@pytest.mark.parametrize("schedule", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler", "PNDMScheduler",
                                      "LMSDiscreteScheduler"])
def test_reordering_takes_the_schedulers_history_along(schedule):
    """Deterministic samplers: images exchanged in the middle of a run come out as those that they were exchanged for."""
    pipeline, order = sd(schedule=schedule), torch.tensor([2, 0, 2])
    swarm = Swarm(method=FK(), population=Population((0,), 3))

    def images(exchange: bool):
        def exchanging(pipe, index, t, kwargs):
            if exchange and index == 2:
                swarm.population.order = order
            return kwargs

        with swarm.attached(pipeline):
            return pipeline(["a painting"] * 3, num_inference_steps=6, generator=generators((1, 2, 3)), height=SIDE, width=SIDE,
                            output_type="pt", callback_on_step_end=exchanging).images

    assert (images(True) - images(False)[order]).abs().max() < 1e-5
    assert "step" not in vars(pipeline.scheduler)


@pytest.mark.parametrize("loop", [BestOf(n=1), FK(n=1, every=1), BestOf(strength=0.), FK(strength=0.), DAS(strength=0.), ReNO(strength=0.)],
                         ids=lambda loop: f"{type(loop).__name__} {loop.strength:g}")
def test_one_candidate_or_no_strength_is_the_plain_pipeline_bit_for_bit(loop):
    make = sampler("DPMSolverMultistepScheduler")
    assert torch.equal(make((1, 2), loop)[0], make((1, 2), Unguided())[0])


@pytest.mark.parametrize("loop", [BestOf(n=2), FK(strength=60., n=3, every=1, ess=1., batch=6), DAS(strength=5., n=2, batch=4),
                                  ReNO(iterations=2)], ids=lambda loop: type(loop).__name__)
def test_image_k_depends_on_seed_k_alone(loop):
    make = sampler("EulerAncestralDiscreteScheduler")
    together, alone = make((4, 9), loop)[0], make((9,), loop)[0]
    assert together.shape == (2, 3, SIDE, SIDE)
    assert (together[1] - alone[0]).abs().max() < 1e-4


def test_best_of_n_keeps_the_guides_choice_in_memory_that_is_bounded():
    rows = []
    make = sampler(on_step=lambda: rows.append(1))
    images, trace, costs = make((1, 2), BestOf(n=3, batch=4))
    assert len(rows) == 3  # two runs count as the steps of one
    everything = torch.cat([make.batch(members(seed, 3), Unguided())[0] for seed in (1, 2)])
    losses = whole_loss(SHARP, everything, [0] * 6).view(2, 3)
    assert trace[-1]["kept"] == losses.argmin(1).tolist()
    assert torch.tensor(trace[-1]["candidates"]) == pytest.approx(losses, abs=1e-5)
    assert (images - everything.view(2, 3, 3, SIDE, SIDE)[torch.arange(2), losses.argmin(1)]).abs().max() < 1e-5
    assert [len(row["candidate_seeds"]) for row in trace[:-1]] == [4] * 3 + [2] * 3
    assert costs["denoiser"] == 6
    assert best(torch.tensor([[math.nan, 2., 1.], [math.nan] * 3])).tolist() == [2, 0]


def test_particles_find_lower_losses_than_chance_and_say_how_many_are_left():
    make = sampler("EulerAncestralDiscreteScheduler", 6)
    plain = make((1, 2), Unguided())[0]
    images, trace, costs = make((1, 2), FK(strength=100., n=4, every=1, batch=8))
    assert (whole_loss(SHARP, images, (1, 2)) < whole_loss(SHARP, plain, (1, 2)) + 1e-6).all()
    weighed = [row for row in trace[:-1] if "ess" in row]
    assert len(weighed) == 5
    assert all(len(row["ess"]) == 2 and all(1 <= size <= 4 for size in row["ess"]) for row in weighed)
    assert all(1 <= lineages <= 4 for row in trace[:-1] if "ess" in row for lineages in row["lineages"])
    assert any(any(row["resampled"]) for row in weighed)
    assert costs["encoder"] == 6
    assert costs["decodes"] == 5


def test_clones_part_even_where_the_scheduler_is_deterministic():
    swarm = Swarm(method=FK(strength=9999., n=4, every=1, ess=1.), objective=SHARP, population=Population((1,), 4))
    make = sampler("DDIMScheduler", 4)
    with swarm.attached(make.pipeline):
        images, trace, _ = make.batch(members(1, 4), swarm)
    assert trace[0]["resampled"] == [True]
    assert trace[0]["lineages"][0] < 4
    assert min(float((a - b).abs().max()) for i, a in enumerate(images) for b in images[:i]) > 1e-3
    assert spread(torch.ones(4, 1, 2, 2), 4) == [0.]


def population_of(method, eta: float, groups: int, steps: int):
    """Particles of benchmarks.posterior's exact Gaussian: weighted mean and deviation along the observation, in the shares of both that
    the sampler's own distribution, which is Gaussian too, times exp(-strength * loss) has."""
    posterior = pytest.importorskip("benchmarks.posterior", reason="benchmarks/ stands beside an installed checkout only")
    prior, observed = posterior.problems()["one Gaussian"]
    pipeline, objective = posterior.Pipeline(prior, eta), posterior.Observation(observed)
    variance, noise = float(pipeline(2048, steps, 99).var()), posterior.NOISE**2 / method.strength
    swarm = Swarm(method=method, objective=objective, population=Population(range(groups), method.n))
    with swarm.attached(pipeline), guided(pipeline, objective, swarm, seeds=range(groups * method.n)):
        x = pipeline(groups * method.n, steps)
    weights = swarm.population.close(-method.strength * objective(x / 2 + .5, None).loss.view(groups, -1).double())
    along = (x * observed / observed.norm()).sum((1, 2, 3)).view(groups, -1)
    mean = (weights * along).sum(1)
    deviation = ((weights * along.pow(2)).sum(1) - mean.pow(2)).sqrt()
    size = observed.numel()
    evidence = size / 2 * math.log(noise / (variance + noise)) - float(observed.pow(2).sum()) / (2 * (variance + noise))
    share = variance / (variance + noise)
    return (float(mean.mean() / (share * observed.norm())), float(deviation.mean() / math.sqrt(share * noise)),
            float(swarm.population.evidence.mean()) - evidence)


def test_das_samples_the_tilted_posterior():
    mean, deviation, evidence = population_of(DAS(strength=4., n=128), 1., 2, 20)
    assert mean == pytest.approx(1., abs=.1)
    assert deviation == pytest.approx(1., abs=.2)
    assert evidence == pytest.approx(0., abs=.5)


def test_das_makes_the_noise_that_a_deterministic_scheduler_does_not_add():
    """An ancestral step of its own is the same as the scheduler's with eta 1, particle by particle."""
    posterior = pytest.importorskip("benchmarks.posterior", reason="benchmarks/ stands beside an installed checkout only")
    prior, observed = posterior.problems()["one Gaussian"]
    found = []
    for eta in (0., 1.):
        pipeline, objective = posterior.Pipeline(prior, eta), posterior.Observation(observed)
        swarm = Swarm(method=DAS(strength=2., n=8), objective=objective, population=Population((0,), 8))
        with swarm.attached(pipeline), guided(pipeline, objective, swarm, seeds=range(8)):
            found.append(pipeline(8, 10))
    assert (found[0] - found[1]).abs().max() < 1e-4


def test_fk_steering_approaches_the_tilted_posterior():
    mean, deviation, evidence = population_of(FK(strength=1., n=256, every=1), 1., 2, 20)
    assert mean == pytest.approx(1., abs=.15)
    assert deviation == pytest.approx(1., abs=.2)
    assert evidence == pytest.approx(0., abs=.5)


def test_resampling_on_the_way_beats_weighing_at_the_end():
    steered, chosen = (population_of(FK(strength=4., n=128, every=1, ess=ess), 1., 2, 20) for ess in (.5, 0.))
    assert abs(steered[0] - 1) < abs(chosen[0] - 1)
    assert steered[1] > chosen[1]


def test_noise_optimisation_lowers_the_loss_and_keeps_the_norm():
    make = sampler(steps=2)
    plain = make((1, 2), Unguided())[0]
    images, trace, costs = make((1, 2), ReNO(iterations=12))
    before, after = (whole_loss(SHARP, x, (1, 2)) for x in (plain, images))
    assert (after < before - .02).all()
    norms = torch.tensor([row["norm"] for row in trace if "norm" in row])
    assert (norms / math.sqrt(4 * (SIDE // 2)**2) - 1).abs().max() < .15
    assert trace[-1]["kept"] == [1, 1]
    assert costs["denoiser"] == 2 * 14
    weights = [weight.requires_grad for weight in make.pipeline.unet.parameters()]
    assert all(weights)


def test_noise_optimisation_through_another_decoder_never_ends_worse():
    make = sampler("LCMScheduler", steps=1, tiny=tiny_autoencoder())
    plain = make((1,), Unguided())[0]
    images, _, _ = make((1,), ReNO(iterations=3))
    assert float(whole_loss(SHARP, images, (1,))) <= float(whole_loss(SHARP, plain, (1,)))


def test_the_regulariser_is_lowest_at_the_norm_of_gaussian_noise():
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    z = (z / z.flatten(1).norm(dim=1).view(2, 1, 1, 1) * math.sqrt(47)).requires_grad_()
    (slope,) = torch.autograd.grad(gaussianity(z).sum(), z)
    assert slope.abs().max() < 1e-5
    assert (gaussianity(1.1 * z) > gaussianity(z)).all()
    assert (gaussianity(.9 * z) > gaussianity(z)).all()
    assert gaussianity(torch.full((1, 60000), 300.).half()).isfinite().all()


def test_presets_load_and_take_a_strength():
    assert {preset.loop for preset in presets().values() if preset.loop} == set(LOOPS)
    assert all(issubclass(find(name), Loop) for name in LOOPS)
    assert load("best-of") == BestOf()
    assert load("fk") == FK(strength=10.)
    assert load("das", strength=3) == DAS(strength=3)
    assert load("reno") == ReNO()


@pytest.mark.parametrize("wrong", [lambda: BestOf(n=0), lambda: FK(n=2.5), lambda: FK(ess=2.), lambda: FK(kind="mean"), lambda: FK(keep=""),
                                   lambda: DAS(gamma=0.), lambda: DAS(eta=2.), lambda: ReNO(momentum=1.), lambda: ReNO(iterations=0),
                                   lambda: load("fk", kind=3), lambda: load("fk", n="many"), lambda: BestOf(batch=-1)])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError):
        wrong()


def test_what_cannot_be_done_is_said():
    with pytest.raises(UserError, match="too many"):
        sampler(steps=25)((1,), ReNO())
    with pytest.raises(UserError, match="whole runs"):
        sampler().batch((1,), BestOf())


def test_a_run_takes_a_loop_as_it_takes_a_strategy():
    images, trace, costs = run.sample(sd(), Brief(prompt="a painting"), (1, 2), BestOf(n=2), SHARP, run.Settings(2, 7.5, SIDE, SIDE))
    assert images.shape == (2, 3, SIDE, SIDE)
    assert (len(trace), costs["denoiser"]) == (5, 4)


def test_best_of_goes_around_a_guided_pipeline_too():
    assert sampler()((1,), BestOf(n=2, inner=CleanImage()))[2]["decodes"] == 6
