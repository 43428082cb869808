"""Reference images as targets: nearest to themselves, nearer to their own kind than to others, and reached by descent."""
import pytest
import torch
from conftest import synthetic_photo

from guide import goals
from probes import content, image, reference
from probes.errors import UserError
from probes.objective import Objective, Term
from probes.views import Views


@pytest.fixture(scope="module")
def pictures():
    return [image.from_pil(synthetic_photo(seed, size)) for seed, size in ((1, (120, 96)), (2, (96, 96)))]


@pytest.mark.parametrize("kind", reference.KINDS)
def test_a_picture_is_nearest_to_itself(embedded_encoder, pictures, kind):
    measure = reference.aim(embedded_encoder, pictures[:1], [1.], kind)
    own, other = (float(measure(picture)) for picture in pictures)
    best = 1. if measure.higher_is_better else 0.
    assert own == pytest.approx(best, abs=1e-3)
    assert abs(other - best) > abs(own - best) + .01
    assert measure.name == "reference"
    assert measure.reliability == "not validated"


@pytest.mark.parametrize("kind", reference.KINDS)
def test_weights_mix_references(embedded_encoder, pictures, kind):
    near, far = (reference.aim(embedded_encoder, pictures, weights, kind) for weights in ([9., 1.], [1., 9.]))
    gap = float(near(pictures[0]) - far(pictures[0]))
    assert (gap > 0) == near.higher_is_better


@pytest.mark.parametrize("kind", reference.KINDS)
def test_descent_comes_nearer(embedded_encoder, pictures, kind):
    goal = Objective([Term(reference.aim(embedded_encoder, pictures[:1], [1.], kind))], Views(count=2, noise=.02))
    moved, losses = pictures[1].clone(), []
    for _ in range(4):
        moved.requires_grad_()
        loss = goal(moved, [torch.Generator().manual_seed(0)]).loss
        losses.append(float(loss.detach()))
        (slope,) = torch.autograd.grad(loss.sum(), moved)
        moved = (moved - .02 * slope / slope.square().mean().sqrt()).clamp(0, 1).detach()
    assert losses[-1] < losses[0]


def test_maps_come_from_the_pass_that_embeds(small_encoder, pictures):
    from guide.brief import Brief
    passes = []
    terms = [Term(content.ContentProbe(small_encoder).aim(Brief(prompt="lemons"))),
             *(Term(reference.aim(small_encoder, pictures, [1., 1.], kind)) for kind in reference.KINDS)]
    handle = small_encoder.clip.visual.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    Objective(terms, Views(count=3))(pictures[1], [torch.Generator()])
    handle.remove()
    assert passes == [3]


def test_moments_do_not_see_where_things_are(small_encoder, pictures):
    maps = torch.rand(1, 5, 6, 6)
    turned = maps.flip(-1).roll(2, -2)
    for kind in ("moments", "gram"):
        torch.testing.assert_close(reference.statistics(maps, kind), reference.statistics(turned, kind))
    moments = reference.statistics(maps, "moments")[0]
    torch.testing.assert_close(moments[0], maps[0].mean((1, 2)))
    torch.testing.assert_close(moments[1], maps[0].flatten(1).std(1, unbiased=False), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_compared_is_refused(small_encoder, pictures):
    with pytest.raises(UserError, match="moments"):
        reference.aim(small_encoder, pictures, [1., 1.], "colour")
    with pytest.raises(UserError, match="above 0"):
        reference.aim(small_encoder, pictures, [1., 0.])
    with pytest.raises(UserError, match="images"):
        reference.aim(small_encoder, pictures, [1., 1.]).score(torch.zeros(1, 4))


def test_the_command_line_knows_the_same_kinds():
    assert goals.BY == reference.KINDS
    assert goals.CONTENT == content.MODES
