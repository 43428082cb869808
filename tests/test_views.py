"""Views: what they cut, that each image draws for itself, and that a gradient passes."""
import pytest
import torch

from probes import image
from probes.errors import UserError
from probes.views import Views


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_there_are_four_noisy_views_by_default():
    views = Views()(torch.full((2, 3, 40, 60), .5), generators(0, 1))
    assert Views().count == 4
    assert views.shape == (8, 3, 40, 40)
    assert (views.flatten(1).std(1) - Views().noise).abs().max() < .01


def test_a_single_noiseless_view_is_the_image_resized():
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for side in (96, 128, 150):
        view = Views(count=1, noise=0)(images, generators(0), side)
        torch.testing.assert_close(view, image.resize(images, side, "bilinear"), atol=1e-5, rtol=0)


def test_crops_are_mirrored_half_of_the_time_and_stay_inside():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 48, 64)
    views = Views(count=200, noise=0, whole=False)(ramp, generators(0), 32)
    rising = views[:, 0, 0, -1] > views[:, 0, 0, 0]
    assert .35 < rising.float().mean() < .65
    share = (views[:, 0, 0, -1] - views[:, 0, 0, 0]).abs() * 63 / 64 * 32 / 31 / (48 / 64)
    assert share.min() > .6 - .03
    assert share.max() < 1 + .03
    assert Views(count=50, mirror=False, noise=0)(ramp, generators(0), 32)[:, 0, 0].diff().min() >= 0


def test_an_image_draws_from_its_own_generator_alone():
    images = torch.rand(3, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    together = Views()(images, generators(5, 6, 7), 32).view(3, 4, 3, 32, 32)
    alone = Views()(images[1:2], generators(6), 32)
    torch.testing.assert_close(together[1], alone, atol=1e-6, rtol=0)
    assert not torch.equal(together[0], together[1])


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    Views()(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), generators(0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_passes_to_every_pixel(dtype):
    images = torch.ones(2, 3, 33, 47, dtype=dtype, requires_grad=True)
    Views(count=16)(images, generators(0, 1), 24).sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad != 0).float().mean() > .95


@pytest.mark.parametrize("wrong", [{"count": 0}, {"smallest": 0}, {"smallest": 1.5}, {"noise": -1}, {"noise": float("nan")}])
def test_impossible_views_are_refused(wrong):
    with pytest.raises(UserError, match="must be"):
        Views(**wrong)


def test_a_generator_is_needed_per_image():
    with pytest.raises(UserError, match="2 images came with 1"):
        Views()(torch.rand(2, 3, 32, 32), generators(0))
