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


@pytest.mark.parametrize("shape", [(40, 60), (40, 94), (60, 40)])
def test_over_many_steps_no_border_in_the_gradient_stays_in_place(shape):
    """What the views of a step look at, by column (or row) along the longer side: its mean over steps falls off without a jump."""
    views, (generator,) = Views(count=2, smallest=.5, noise=0), generators(0)
    across, reached = 1 if shape[1] > shape[0] else 2, torch.zeros(max(shape))
    for _ in range(600):
        images = torch.ones(1, 3, *shape, requires_grad=True)
        (gradient,) = torch.autograd.grad(views(images, [generator], 24).sum(), images)
        reached += gradient[0].abs().sum((0, across))
    reached /= reached.max()
    assert reached.diff().abs().max() < .12  # a square that stays in place makes a jump of a third and more
    middle = reached[max(shape) // 2 - 3:max(shape) // 2 + 3].mean()
    assert middle > .8


def test_the_largest_view_of_a_square_is_the_whole_of_it_and_moves_in_other_shapes():
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        torch.testing.assert_close(Views(count=2, noise=0)(images, generators(seed))[0], images[0], atol=1e-6, rtol=0)
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 32, 96)
    starts = [float(Views(count=2, noise=0)(ramp, generators(seed), 32)[0, 0, 0, 0]) for seed in (0, 0, 1, 2)]
    assert starts[0] == starts[1]
    assert len(set(starts)) == 3
    assert abs(float(Views(count=1, noise=0)(ramp, generators(0), 32)[0, 0, 0, 0]) - 32 / 95) < .01  # a reading stays in the middle


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
