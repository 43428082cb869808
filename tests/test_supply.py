"""What a step is given that its pipeline does not hand on: noise that depends on the seed alone, and an eta whose steps are numbers."""
import diffusers
import pytest
import torch
from tiny_families import FAMILIES
from tiny_pipelines import Warmth, call, sd

from guide import run
from guide.brief import Brief
from guide.guided import guided
from guide.loops.best_of import BestOf
from guide.loops.noise import ReNO
from guide.loops.particles import FK
from guide.noise import steadied
from guide.strategies import CleanImage, Unguided, load
from probes.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FLOWS = ["sd3", "flux", "qwen-image", "z-image", "auraflow", "lumina 2"]


def stochastic(name: str, schedule: str = "FlowMatchEulerDiscreteScheduler"):
    pipeline = FAMILIES[name].build()
    more = {"stochastic_sampling": True} if "Euler" in schedule else {}
    pipeline.scheduler = getattr(diffusers, schedule).from_config(pipeline.scheduler.config, **more)
    return pipeline


def painted(name, pipeline, strategy, seeds=(1, 2), pinned=False):
    with guided(pipeline, Warmth(), strategy, seeds=seeds, pinned=pinned):
        return FAMILIES[name](pipeline, seeds)


@pytest.mark.parametrize("name", FLOWS)
def test_the_noise_of_flow_schedulers_is_each_images_own(name):
    """Neither torch's global state nor the batch changes a picture, and the plain pipeline is left as it is at strength 0."""
    pipeline, strategy = stochastic(name), CleanImage(strength=2.)
    torch.manual_seed(1)
    together = painted(name, pipeline, strategy, (4, 5, 6))
    torch.manual_seed(2)
    alone = torch.cat([painted(name, pipeline, strategy, (seed,)) for seed in (4, 5, 6)])
    assert torch.allclose(together, alone, atol=3e-4)
    torch.manual_seed(3)
    plain = FAMILIES[name](pipeline)
    assert not torch.equal(FAMILIES[name](pipeline), plain), "this pipeline draws from the global state"
    torch.manual_seed(3)
    assert torch.equal(painted(name, pipeline, CleanImage(strength=0.)), plain)


def test_the_noise_of_the_other_flow_scheduler_too():
    pipeline = stochastic("sd3", "FlowMatchLCMScheduler")
    together = painted("sd3", pipeline, CleanImage(strength=2.), (4, 5))
    assert torch.allclose(together[1], painted("sd3", pipeline, CleanImage(strength=2.), (5,))[0], atol=3e-4)


@pytest.mark.parametrize("strategy", [Unguided(), CleanImage(strength=1e-9), BestOf(n=1), FK(n=2, every=1), ReNO(iterations=1)],
                         ids=lambda strategy: type(strategy).__name__)
def test_runs_draw_the_same_noise_whatever_steers(strategy):
    """Pictures are compared by seed, so that the unguided one has to meet the noise of the guided one."""
    pipeline, settings = stochastic("sd3"), run.Settings(3, 7., 16, 16)
    first, again = (run.sample(pipeline, Brief(prompt="a painting"), (1, 2), strategy, Warmth(0.), settings)[0] for _ in range(2))
    assert torch.equal(first, again)
    alone = run.sample(pipeline, Brief(prompt="a painting"), (2,), strategy, Warmth(0.), settings)[0]
    assert torch.allclose(first[1], alone[0], atol=3e-4)
    if isinstance(strategy, CleanImage | BestOf):
        plain = run.sample(pipeline, Brief(prompt="a painting"), (1, 2), Unguided(), Warmth(0.), settings)[0]
        assert torch.allclose(first, plain, atol=1e-5)


def silent(**more):
    """A schedule that begins without any signal, as the embedded pipeline's."""
    return diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
                                   clip_sample=False, beta_schedule="squaredcos_cap_v2", **more)


def rounded() -> list[int]:
    """The numbers of steps with which eta 1 is changed: which they are depends on the processor's rounding."""
    schedule, changed = silent(), []
    for steps in range(1, 101):
        schedule.set_timesteps(steps)
        changed += [steps] if steadied(schedule, 1.) != 1 else []
    return changed


def test_ddim_with_eta_1_stays_a_number_from_a_start_without_signal():
    schedule = silent()
    for steps in range(1, 101):
        schedule.set_timesteps(steps)
        eta = steadied(schedule, 1.)
        assert eta == pytest.approx(1., abs=2e-6)
        x = torch.ones(1, 1, 2, 2)
        assert all(schedule.step(x, t, x, eta=eta).prev_sample.isfinite().all() for t in schedule.timesteps)
    assert 0 < len(rounded()) < 50


@pytest.mark.parametrize("strategy", [Unguided(), CleanImage(), load("dsg"), load("dps")], ids=lambda strategy: type(strategy).__name__)
def test_a_run_with_eta_1_where_it_is_no_number_for_rounding(strategy):
    steps = min(rounded(), key=lambda steps: abs(steps - 25))
    pipeline = sd("v_prediction")
    pipeline.scheduler, lines = silent(), []
    with guided(pipeline, Warmth(), strategy, seeds=(1,), on_notice=lines.append) as run:
        images = call(pipeline, (1,), steps, eta=1.)
    assert images.isfinite().all()
    assert images.std() > 0
    assert run.calls["skipped"] == 0
    assert len(lines) == 1
    assert "millionth" in lines[0]


def test_an_eta_that_no_step_can_have_is_refused():
    pipeline = sd()
    with pytest.raises(UserError, match="from 0 to 1"), guided(pipeline, Warmth(), CleanImage(), seeds=(1,)):
        call(pipeline, (1,), eta=1.7)
