"""What needs an accelerator: half precision, offloading that really moves weights, memory that really runs out. Run with -m gpu."""
import pytest
import torch
from tiny_families import NAMED
from tiny_pipelines import Warmth, call, sd, sdxl

from guide.guided import guided
from guide.planning.plan import plan
from guide.seeds import generators
from guide.strategies import DPS, CleanImage

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def steer(pipeline, strategy, seeds=(1, 2), **arguments):
    with guided(pipeline, Warmth(), strategy, seeds=seeds) as run:
        return call(pipeline, seeds, **arguments).cpu(), run


def loss(images):
    return Warmth(noise=0.)(images.float().cpu(), generators(range(len(images)))).loss


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_on_a_gpu(name, dtype):
    family = NAMED[name]
    pipeline = family.build().to("cuda", dtype)
    plain = family(pipeline).cpu()
    for strategy, equal in ((CleanImage(strength=0.), True), (CleanImage(strength=3.), False), (DPS(strength=3.), False)):
        with guided(pipeline, Warmth(), strategy, seeds=(1, 2)) as run:
            images = family(pipeline).cpu()
        assert torch.equal(images, plain) is equal
        assert run.calls["skipped"] == 0
        if not equal and dtype == torch.float32:
            assert (loss(images) < loss(plain)).all()


@pytest.mark.parametrize("build", [sd, sdxl])
def test_offloading_of_whole_models_gives_the_same_pictures(build):
    strategy = DPS(strength=2.)
    expected, _ = steer(build().to("cuda"), strategy)
    moved = build()
    moved.enable_model_cpu_offload()
    images, _ = steer(moved, strategy)
    assert torch.allclose(images, expected, atol=1e-3)


def test_memory_that_really_runs_out_is_survived():
    """The share of the card that this process may take is set so that the whole batch's decoder does not fit and one image's does."""
    pipeline, seeds = sd().to("cuda"), tuple(range(8))
    arguments = {"height": 512, "width": 512, "steps": 2}
    steer(pipeline, CleanImage(strength=2.), seeds[:1], **arguments)
    torch.cuda.reset_peak_memory_stats()
    steer(pipeline, CleanImage(strength=2.), seeds[:1], **arguments)
    one = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    expected, _ = steer(pipeline, CleanImage(strength=2.), seeds, **arguments)
    every = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(max(1.2 * one, .6 * every) / total)
    try:
        with guided(pipeline, Warmth(), CleanImage(strength=2.), seeds=seeds, on_notice=lambda line: None) as run:
            images = call(pipeline, seeds, **arguments).cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.)
    assert any("Memory ran out" in line for line in run.notices)
    assert torch.allclose(images, expected, atol=1e-2)


def test_a_plan_can_be_made_for_the_gpu(tmp_path):
    sd().save_pretrained(tmp_path / "tiny")
    found = plan(str(tmp_path / "tiny"), "clean-image", (256, 256), 4, 2, 2, device="cuda", dtype="float32")
    assert found.memory > found.weights > 0
    assert found.seconds > 0
