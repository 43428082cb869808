"""What `guided` promises, on the pipeline that ships."""
import pytest
import torch
from diffusers import AutoPipelineForImage2Image
from tiny_pipelines import Warmth

from guide import pipelines
from guide.guided import guided
from guide.seeds import generators
from guide.strategies import CleanImage


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.load("embedded")


def made(pipeline, seeds=(1, 2), **arguments):
    return pipeline(["a baroque painting of lemons"] * len(seeds), num_inference_steps=3, guidance_scale=4., height=128, width=128,
                    generator=generators(seeds), output_type="pt", **arguments).images


def steered(pipeline, strength, seeds=(1, 2)):
    with guided(pipeline, Warmth(), CleanImage(strength=strength), seeds=seeds) as run:
        return made(pipeline, seeds), run


def test_strength_zero_and_small_strengths(pipeline):
    plain = made(pipeline, (1,))
    assert plain.shape == (1, 3, 128, 128)
    assert torch.equal(steered(pipeline, 0., (1,))[0], plain)
    sizes = [float((steered(pipeline, s, (1,))[0] - plain).double().norm()) for s in (1e-4, 2e-4, 4e-4)]
    assert sizes[0] > 0
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=.06)
    assert sizes[2] / sizes[1] == pytest.approx(2, rel=.04)


def test_one_image_alone_and_in_a_batch(pipeline):
    together, run = steered(pipeline, 1., (5, 6))
    alone, _ = steered(pipeline, 1., (6,))
    assert torch.allclose(together[1], alone[0], atol=1e-3)
    assert run.trace[0]["residual"] < 1e-5
    assert all(row["skipped"] == 0 for row in run.trace)


def test_image_to_image_without_a_step_to_take_ends_as_without_guidance(pipeline):
    painter = AutoPipelineForImage2Image.from_pipe(pipeline)
    options = {"image": torch.rand(1, 3, 128, 128), "strength": .1, "num_inference_steps": 4, "output_type": "pt"}
    plain = painter("a baroque painting", **options).images
    with guided(painter, Warmth(), CleanImage(), seeds=(1,)) as run:
        images = painter("a baroque painting", **options).images
    assert images.shape == plain.shape
    assert run.trace == []
