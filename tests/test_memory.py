"""A run whose memory runs out goes on with less at once: real networks that take only so much, at each rung of the ladder."""
import pytest
import torch
from tiny_pipelines import Values, Warmth, call, sd, tiny_autoencoder

from guide.guided import guided
from guide.loops.noise import ReNO
from guide.loops.particles import DAS, FK
from guide.loops.sample import Sampler
from guide.memory import ran_out
from guide.run import unlike
from guide.strategies import DPS, CleanImage
from probes.errors import UserError
from probes.image import check
from probes.objective import Objective, Term
from probes.probe import Measure
from probes.views import Views

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Cramped(Warmth):
    """An objective that takes `most` images at once, or none, where a gradient is asked for."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def __call__(self, images, generators):
        if len(images) > self.most and images.requires_grad:
            raise torch.OutOfMemoryError(FULL)
        return super().__call__(images, generators)


def cramp(module, most, error=torch.OutOfMemoryError):
    """Lets a network take at most so many at once where it holds activations for a gradient."""
    def hook(module, args):
        if torch.is_grad_enabled() and args[0].requires_grad and len(args[0]) > most:
            raise error(FULL)
    return module.register_forward_pre_hook(hook)


def steer(pipeline, strategy, objective=None, seeds=(1, 2, 3), **more):
    lines = []
    with guided(pipeline, objective or Warmth(), strategy, seeds=seeds, on_notice=lines.append, **more) as run:
        images = call(pipeline, seeds)
    assert lines == run.notices
    return images, run


@pytest.mark.parametrize(("error", "expected"), [
    (torch.OutOfMemoryError(FULL), True), (MemoryError(), True), (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
    (RuntimeError("size mismatch"), False), (UserError("no"), False)])
def test_what_counts_as_running_out(error, expected):
    assert ran_out(error) is expected


def test_fewer_images_at_once_change_nothing():
    pipeline = sd()
    expected, _ = steer(pipeline, CleanImage(strength=2.))
    images, run = steer(pipeline, CleanImage(strength=2.), Cramped(1))
    assert torch.allclose(images, expected, atol=1e-5)
    assert run.notices == ["Memory ran out in a guided step: from here on the objective sees 1 of 3 images at a time."]
    assert run.trace[0]["notices"] == run.notices
    assert "notices" not in run.trace[1]


class Mean(Measure):
    """A measure of embeddings, by an encoder."""

    def score(self, embeddings):
        return embeddings[:, :4].sum(1)


def test_fewer_crops_at_once_change_nothing(small_encoder):
    measure = Mean(encoder=small_encoder, name="mean", unit="", range=(-1., 1.), higher_is_better=True, scale=1.)
    pipeline, objective = sd(), Objective([Term(measure)], Views(count=4))
    expected, _ = steer(pipeline, CleanImage(strength=2.), objective)
    handle = cramp(small_encoder.clip.visual, 2)
    try:
        images, run = steer(pipeline, CleanImage(strength=2.), objective)
    finally:
        handle.remove()
    assert torch.allclose(images, expected, atol=1e-4)
    assert any("the encoder takes 2 crops at a time" in line for line in run.notices)
    assert small_encoder.per_pass == 0


def test_the_decoder_goes_on_image_by_image_with_activations_computed_again():
    pipeline = sd()
    expected, _ = steer(pipeline, DPS(strength=2.))
    cramp(pipeline.vae.decoder, 1)
    images, run = steer(pipeline, DPS(strength=2.))
    assert torch.allclose(images, expected, atol=1e-4)
    assert "computes its activations again" in run.notices[-1]
    assert all(row["guided"] for row in run.trace)


def test_then_with_the_tiny_decoder_which_is_loaded_only_then():
    pipeline, loaded = sd(), []

    def spare():
        loaded.append(tiny_autoencoder())
        return loaded[-1]

    steer(pipeline, CleanImage(strength=2.), spare=spare)
    assert not loaded
    cramp(pipeline.vae.decoder, 0)
    images, run = steer(pipeline, CleanImage(strength=2.), spare=spare)
    assert len(loaded) == 1
    assert "tiny decoder" in run.notices[-1]
    assert all(row["guided"] for row in run.trace)
    assert not torch.equal(images, call(pipeline, (1, 2, 3)))


def test_then_in_clean_image_space_at_the_same_strength():
    pipeline = sd()
    expected, _ = steer(pipeline, CleanImage(strength=2., stop=.8))
    cramp(pipeline.unet, 0, RuntimeError)
    images, run = steer(pipeline, DPS(strength=2., stop=.8))
    assert torch.allclose(images, expected, atol=1e-4)
    assert "clean-image space" in run.notices[-1]


def test_what_no_rung_helps_is_one_sentence():
    pipeline = sd()
    with pytest.raises(UserError, match="Memory does not suffice"):
        steer(pipeline, CleanImage(strength=2.), Cramped(0))
    assert "decode" not in pipeline.vae.__dict__
    with pytest.raises(RuntimeError, match="broke"):
        steer(pipeline, CleanImage(), broken)


def broken(images, generators):
    check(images)
    raise RuntimeError("something else broke")


def test_a_tiny_decoder_that_cannot_be_had_is_told():
    pipeline = sd()
    cramp(pipeline.vae.decoder, 0)

    def spare():
        raise UserError("no network")

    lines = []
    with pytest.raises(UserError, match="Memory does not suffice"), \
            guided(pipeline, Warmth(), CleanImage(), seeds=(1,), spare=spare, on_notice=lines.append):
        call(pipeline, (1,))
    assert any("cannot be had (no network)" in line for line in lines)


def test_pictures_are_made_fewer_at_a_time_where_the_pipeline_itself_does_not_fit():
    pipeline, seeds = sd(), (1, 2, 3)
    arguments = {"prompt": "a painting", "num_inference_steps": 2, "width": 16, "height": 16}
    sampler = Sampler(pipeline, arguments, Warmth())
    expected, _, _ = sampler(seeds, CleanImage(strength=2.))

    def hook(module, args):
        if len(args[0]) > 2:  # classifier-free guidance doubles one picture
            raise torch.OutOfMemoryError(FULL)

    pipeline.unet.register_forward_pre_hook(hook)
    images, trace, costs = sampler(seeds, CleanImage(strength=2.))
    assert torch.allclose(images, expected, atol=2e-4)
    assert len(unlike(trace, ())) == 2
    assert costs["decodes"] == 6


def test_the_same_views_are_seen_again():
    """A step that is taken again draws what it drew the first time."""
    class Once(Warmth):
        def __call__(self, images, generators):
            values = super().__call__(images, generators)
            if self.calls == 1:
                raise torch.OutOfMemoryError(FULL)
            return Values(values.loss, values.terms)

    pipeline = sd()
    expected, _ = steer(pipeline, CleanImage(strength=2.), seeds=(1,))
    images, _ = steer(pipeline, CleanImage(strength=2.), Once(), seeds=(1,))
    assert torch.allclose(images, expected, atol=1e-5)


def optimised(pipeline, objective, seeds=(1, 2, 3), **more):
    arguments = {"prompt": "a painting", "num_inference_steps": 1, "width": 16, "height": 16}
    return Sampler(pipeline, arguments, objective, **more)(seeds, ReNO(iterations=3))


def test_noise_optimisation_finds_the_same_with_less_at_once():
    pipeline = sd()
    expected, trace, _ = optimised(pipeline, Warmth())
    assert unlike(trace, ()) == []
    images, trace, _ = optimised(pipeline, Cramped(1))
    assert torch.allclose(images, expected, atol=1e-4)
    assert [line.rsplit("here on ")[-1] for line in unlike(trace, ())] == ["the objective sees 1 of 3 images at a time."]
    cramp(pipeline.vae.decoder, 1)
    images, trace, _ = optimised(pipeline, Warmth())
    assert torch.allclose(images, expected, atol=1e-4)
    assert "computes its activations again" in unlike(trace, ())[-1]
    handle = cramp(pipeline.unet, 2)  # classifier-free guidance doubles one picture
    images, trace, _ = optimised(pipeline, Warmth())
    assert torch.allclose(images, expected, atol=1e-4)
    assert any("optimised 1 at a time" in line for line in unlike(trace, ()))
    handle.remove()
    cramp(pipeline.vae.decoder, 0)
    images, trace, _ = optimised(pipeline, Warmth(), (1,), spare=tiny_autoencoder)
    assert "tiny decoder" in unlike(trace, ())[-1]
    with pytest.raises(UserError, match="Memory does not suffice to optimise"):
        optimised(pipeline, Warmth(), (1, 2))


@pytest.mark.parametrize("loop", [FK(strength=60., n=3, every=1, ess=1.), DAS(strength=5., n=3, ess=1.)], ids=["FK", "DAS"])
def test_particles_are_not_weighed_twice_for_want_of_memory(loop):
    pipeline, arguments = sd(), {"prompt": "a painting", "num_inference_steps": 3, "width": 16, "height": 16}
    expected = Sampler(pipeline, arguments, Warmth(0.))((1,), loop)[0]
    cramp(pipeline.vae.decoder, 1) if isinstance(loop, DAS) else pipeline.vae.decoder.register_forward_pre_hook(once())
    images, trace, _ = Sampler(pipeline, arguments, Warmth(0.))((1,), loop)
    assert torch.allclose(images, expected, atol=1e-4)
    assert unlike(trace, ())


def once():
    """A hook that lets memory run out the first time."""
    seen = []

    def hook(module, args):
        seen.append(1)
        if len(seen) == 1:
            raise torch.OutOfMemoryError(FULL)
    return hook
