"""Probes as losses: every one improves by ascent, shares its encoder's single pass, and keeps images apart."""
from dataclasses import dataclass

import pytest
import torch

from guide.brief import Brief
from probes import encoders, image, objective, reference
from probes.content import ContentProbe
from probes.errors import UserError
from probes.heads import ape, tip_adapter
from probes.lineage import Lineage
from probes.objective import PROBES, Objective, Term
from probes.probe import Measure
from probes.style import StyleProbe
from probes.views import Views

BRIEF = Brief(prompt="a still life with lemons", styles=(("ukiyo-e", .7), ("cubism", .3)), avoid=("baroque",), period=(1500, 1520),
              scene="landscape", origin="person")
ENCODERS = ("small_encoder", "embedded_encoder")


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def seen(measure, images):
    return (measure.encoder.describe if measure.reads_layers else measure.encoder)(images)


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def images(photos):
    return torch.cat([image.resize(image.from_pil(photo), 112) for photo in photos[:2]])


@pytest.mark.parametrize("name", PROBES)
def test_a_measure_declares_itself_and_scores_each_image(encoder, images, name):
    measure = PROBES[name](encoder).aim(BRIEF)
    assert isinstance(measure, Measure)
    assert measure.name == name
    assert measure.unit
    assert measure.reliability
    scores = measure(images)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert (scores >= measure.range[0]).all()
    assert (scores <= measure.range[1]).all()
    expected = (-scores if measure.higher_is_better else scores) / measure.scale
    torch.testing.assert_close(measure.loss(seen(measure, images)), expected)
    torch.testing.assert_close(measure(images[1:]), scores[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PROBES)
def test_a_gradient_reaches_the_image_and_not_the_weights(encoder, images, name):
    measure = PROBES[name](encoder).aim(BRIEF)
    images = images.clone().requires_grad_()
    score = measure(images)
    assert score.requires_grad == measure.differentiable
    score.sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("crops", [Views(count=1, noise=0), Views()], ids=["plain", "crops"])
@pytest.mark.parametrize("name", PROBES)
def test_three_steps_of_ascent_improve_the_reading(encoder, images, name, crops):
    goal = Objective([Term(PROBES[name](encoder).aim(BRIEF))], crops)
    better = 1 if goal.terms[0].measure.higher_is_better else -1
    before, moved = goal.read(images)[name], images.clone()
    for _ in range(3):
        moved.requires_grad_()
        loss = goal(moved, generators(2)).loss
        gradient, = torch.autograd.grad(loss.sum(), moved)
        moved = (moved - .01 * gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt()).clamp(0, 1).detach()
    assert (better * (goal.read(moved)[name] - before) > 0).all()


@pytest.mark.parametrize("name", PROBES)
def test_the_loss_and_the_reading_are_one_definition(encoder, images, name):
    measure = PROBES[name](encoder).aim(BRIEF)
    goal = Objective([Term(measure)], Views(count=1, noise=0))
    read = goal.read(images)[name]
    torch.testing.assert_close(read, measure(images))
    sided = image.resize(images, encoder.side, "bilinear")
    values = goal(sided, generators(2))
    torch.testing.assert_close(values.terms[name], measure(sided), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(values.loss, measure.loss(seen(measure, sided)), atol=1e-3, rtol=1e-3)


def test_all_probes_of_an_encoder_share_one_pass_over_all_crops(encoder, images):
    goal = objective.aim(BRIEF, encoder)
    assert goal.names == list(PROBES)
    batches, towers = [], []
    handles = [encoder.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0]))),
               encoder.clip.visual.register_forward_hook(lambda _, inputs, __: towers.append(len(inputs[0])))]
    values = goal(images, generators(2))
    for handle in handles:
        handle.remove()
    assert towers == [2 * Views().count]
    assert batches == ([] if any(term.measure.stages for term in goal.terms) else towers)
    assert values.loss.shape == (2,)
    assert values.loss.dtype == torch.float32


def test_two_encoders_take_a_pass_each(small_encoder, embedded_encoder, images):
    measures = [PROBES["content"](encoder).aim(BRIEF) for encoder in (small_encoder, embedded_encoder, small_encoder)]
    goal = Objective([Term(measure) for measure in measures], Views(count=2))
    calls = []
    handles = [encoder.register_forward_hook(lambda *_: calls.append(1)) for encoder in (small_encoder, embedded_encoder)]
    values = goal(images, generators(2))
    for handle in handles:
        handle.remove()
    assert len(calls) == 2
    assert len(values.terms) == len(goal.read(images)) == 3
    assert {lineage.weights for lineage in goal.lineages} == {small_encoder.fingerprint, embedded_encoder.fingerprint}
    assert all(isinstance(lineage, Lineage) for lineage in goal.lineages)


def test_an_image_does_not_depend_on_its_neighbours(small_encoder, images):
    goal = objective.aim(BRIEF, small_encoder)
    together, alone = goal(images, generators(2)), goal(images[1:], generators(2)[1:])
    torch.testing.assert_close(together.loss[1:], alone.loss, atol=1e-4, rtol=1e-4)


def test_an_image_with_nan_spoils_only_itself(small_encoder, images):
    goal = objective.aim(BRIEF, small_encoder)
    spoiled = images.clone()
    spoiled[0, :, :5] = float("nan")
    spoiled.requires_grad_()
    loss = goal(spoiled, generators(2)).loss
    gradient, = torch.autograd.grad(loss.sum(), spoiled)
    assert loss.isnan().tolist() == [True, False]
    assert gradient[0].isnan().any()
    assert gradient[1].isfinite().all()
    assert gradient[1].abs().sum() > 0
    with pytest.raises(UserError, match="finite"):
        goal.read(spoiled.detach())


def test_weights_weigh_and_zero_only_watches(small_encoder, images):
    measure = PROBES["content"](small_encoder).aim(BRIEF)
    one, three, none = (Objective([Term(measure, weight)], Views(count=2))(images, generators(2)) for weight in (1., 3., 0.))
    torch.testing.assert_close(three.loss, 3 * one.loss)
    assert not none.loss.any()
    assert torch.equal(none.terms["content"], one.terms["content"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Rough(Measure):
    """The mean of an early map of whole images."""

    name: str = "rough"
    unit: str = "activation"
    range: tuple[float, float] = (0., float("inf"))
    higher_is_better: bool = False
    scale: float = 2.
    reads_maps: bool = True

    def __call__(self, images):
        seen = []
        handle = self.encoder.clip.visual.layer1.register_forward_hook(lambda _, __, output: seen.append(output.mean((1, 2, 3))))
        self.encoder(images)
        handle.remove()
        return seen[0]

    def score(self, embeddings):
        raise AssertionError("it reads no embeddings")


def test_a_measure_of_maps_sees_whole_images_beside_the_views_of_the_others(small_encoder, images):
    rough, content = Rough(encoder=small_encoder), PROBES["content"](small_encoder).aim(BRIEF)
    alone, both = Objective([Term(rough)]), Objective([Term(content), Term(rough, 3.)])
    images = images.clone().requires_grad_()
    value = both(images, generators(2))
    torch.testing.assert_close(value.terms["rough"], rough(images.detach()))
    torch.testing.assert_close(value.loss, 3 * rough(images) / 2 + Objective([Term(content)])(images, generators(2)).loss)
    torch.testing.assert_close(alone(images, generators(2)).loss, rough(images) / 2)
    torch.testing.assert_close(both.read(images)["rough"], rough(images))
    assert torch.autograd.grad(value.loss.sum(), images)[0].isfinite().all()


def test_enough_is_a_constraint_that_asks_for_nothing_once_it_is_kept(small_encoder, images):
    scores = torch.tensor([.1, .3])
    content, period = (PROBES[name](small_encoder).aim(BRIEF) for name in ("content", "period"))
    torch.testing.assert_close(Term(content, enough=.2).loss(scores), torch.tensor([.1 / content.scale, 0.]))
    torch.testing.assert_close(Term(period, enough=50.).loss(torch.tensor([40., 75.])), torch.tensor([0., 1.]))
    torch.testing.assert_close(Term(period).loss(torch.tensor([40., 75.])), torch.tensor([1.6, 3.]))
    kept = Term(period, enough=9999.)
    steered, beside = (Objective(terms, Views(count=2))(images, generators(2)).loss for terms in ([Term(content)], [Term(content), kept]))
    torch.testing.assert_close(steered, beside)


@pytest.fixture(scope="module")
def exact_encoder(clip_folder):
    """A small CLIP with random weights, in float64."""
    return encoders.load(str(clip_folder("resnet", side=64)), dtype=torch.float64)


def measured(name, encoder):
    """A measure by the name of its probe, of a mode of content, of a kind of reference or of a head that ships in fp32."""
    if name in PROBES:
        return PROBES[name](encoder).aim(BRIEF)
    if name in ("spherical", "directional"):
        source = torch.full((1, 3, 64, 64), .4, dtype=torch.float64)
        return ContentProbe(encoder, name, source if name == "directional" else None).aim(BRIEF)
    draw = torch.Generator().manual_seed(5)
    if name in ("tip-adapter", "ape"):
        labels, fit = ["ukiyo-e", "cubism", "baroque", "rococo"], {"tip-adapter": tip_adapter.fit, "ape": ape.fit}[name]
        features = torch.nn.functional.normalize(torch.randn(12, encoder.dim, generator=draw), dim=1)
        return StyleProbe(encoder, fit(features, [0, 1, 2, 3] * 3, labels)).aim(BRIEF)
    pictures = [torch.rand(1, 3, 80, 64, generator=draw) for _ in range(2)]
    return reference.aim(encoder, pictures, [.7, .3], name.split()[-1])


@pytest.mark.parametrize("name", [*PROBES, "spherical", "directional", "tip-adapter", "ape",
                                  *(f"reference by {kind}" for kind in reference.KINDS)])
def test_the_gradient_through_views_encoder_and_head_is_that_of_finite_differences(exact_encoder, name):
    """In float64, over pixels that no view clamps (there the gradient is meant to differ: see `image.clamp`)."""
    goal = Objective([Term(measured(name, exact_encoder), 2.)], Views(count=2, noise=.01))
    draw = torch.Generator().manual_seed(4)
    images, way = (.2 + .6 * torch.rand(2, 3, 72, 88, generator=draw, dtype=torch.float64) for _ in range(2))
    images.requires_grad_()
    loss = goal(images, generators(2)).loss
    assert loss.dtype == goal.read(images.detach())[goal.names[0]].dtype == torch.float64
    slope = torch.autograd.grad(loss.sum(), images)[0].mul(way).sum((1, 2, 3))
    with torch.no_grad():
        ahead, behind = (goal(images + sign * 1e-8 * way, generators(2)).loss for sign in (1, -1))
    assert (slope.abs() > 1e-6).all()
    torch.testing.assert_close(slope, (ahead - behind) / 2e-8, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("given", "wanted"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32),
                                               (torch.float64, torch.float64)])
def test_losses_are_in_single_precision_at_least_and_in_double_where_the_images_are(small_encoder, images, given, wanted):
    goal = objective.aim(BRIEF, small_encoder)
    images = images.to(given).requires_grad_()
    values, views = goal(images, generators(2)), Views()(images, generators(2))
    assert values.loss.dtype == values.goal.dtype == views.dtype == wanted
    assert torch.autograd.grad(values.loss.sum(), images)[0].dtype == given
    torch.testing.assert_close(values.loss.float(), goal(images.float(), generators(2)).loss, rtol=1e-4, atol=1e-4)


def test_what_cannot_steer_is_refused(small_encoder, images):
    with pytest.raises(UserError, match="nothing to steer by"):
        objective.aim(Brief(), small_encoder)
    measure = PROBES["content"](small_encoder).aim(BRIEF)
    with pytest.raises(UserError, match="finite number"):
        Objective([Term(measure, float("nan"))])
    goal = Objective([Term(measure)])
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        goal(images * 2 - 1, generators(2))
    with pytest.raises(UserError, match="shape"):
        goal(images[0], generators(1))
    with pytest.raises(UserError, match="generator of its own"):
        goal(images, generators(1))
