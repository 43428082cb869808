"""Constraints by multipliers against a closed form, schedules over noise, regions: what an objective is at a moment of a run."""
from dataclasses import dataclass

import pytest
import torch
from tiny_pipelines import call, sd

from guide.guided import guided
from guide.strategies import CleanImage
from probes.constraints import Constraint
from probes.errors import UserError
from probes.objective import Objective, Term
from probes.probe import Measure
from probes.region import Region
from probes.schedules import Schedule
from probes.views import Views


@dataclass(frozen=True, eq=False, kw_only=True)
class Channel(Measure):
    """The mean of one colour, read from whole images."""

    place: int = 0
    name: str = "red"
    unit: str = "share"
    range: tuple[float, float] = (0., 1.)
    higher_is_better: bool = True
    scale: float = .1
    reads_maps: bool = True

    def __call__(self, images):
        return images[:, self.place].mean((1, 2))

    def score(self, embeddings):
        raise AssertionError("it reads no embeddings")


@pytest.fixture
def red(small_encoder):
    return Channel(encoder=small_encoder)


@pytest.fixture
def green(small_encoder):
    return Channel(encoder=small_encoder, place=1, name="green")


def test_multipliers_find_the_constrained_optimum(red):
    """min (x - 1)^2 with x at most .4: the optimum is x = .4, and the multiplier is the slope that it holds against, 1.2 in units of x."""
    limit = Constraint(red, .4, "at most", rate=30.)
    x, multiplier = torch.tensor([0.], requires_grad=True), torch.zeros(1)
    for _ in range(400):
        violation = limit.violation(x)
        loss = (x - 1).square().sum() + limit.loss(violation, multiplier).sum()
        (slope,) = torch.autograd.grad(loss, x)
        multiplier = limit.climbed(multiplier, violation.detach(), 1 / 400)
        x = (x.detach() - .005 * slope).requires_grad_()
    assert float(x) == pytest.approx(.4, abs=.01)
    assert float(multiplier / red.scale) == pytest.approx(1.2, rel=.05)


def test_a_constraint_with_room_asks_for_nothing(red):
    keep, limit = Constraint(red, .3, rate=20.), Constraint(red, .3, "at most")
    scores = torch.tensor([.2, .5], requires_grad=True)
    assert keep.violation(scores).tolist() == pytest.approx([1., -2.])
    assert limit.holds(scores).tolist() == [True, False]
    (slope,) = torch.autograd.grad(keep.loss(keep.violation(scores), torch.zeros(2)).sum(), scores)
    assert slope.tolist() == pytest.approx([-10., 0.])
    assert keep.climbed(torch.tensor([0., 1.]), torch.tensor([1., -2.]), .1).tolist() == [2., 0.]
    assert keep.climbed(torch.tensor([3.]), torch.tensor([float("nan")]), .1).tolist() == [3.]
    assert (str(keep), str(limit)) == ("red>=0.3", "red<=0.3")
    near = Constraint(red, .3, margin=1.)
    assert near.loss(near.violation(torch.tensor([.2, .35, .45])), torch.zeros(3)).tolist() == pytest.approx([2., .125, 0.])
    with pytest.raises(UserError, match="margin -1"):
        Constraint(red, .3, margin=-1.)
    with pytest.raises(UserError, match="from 0 to 1"):
        Constraint(red, 28.)
    with pytest.raises(UserError, match="at least"):
        Constraint(red, .3, "around")


def test_in_a_run_the_constraint_holds_where_the_goal_alone_breaks_it(red, green):
    """Red is to rise and green to stay: the multipliers, in the trace, grow while it does not and are each image's own."""
    free, bound = Objective([Term(red), Term(green, -1.)]), Objective([Term(red), Term(green, -1.), Constraint(green, .52)])
    pipeline, found = sd(), {}
    for name, objective in (("free", free), ("bound", bound)):
        with guided(pipeline, objective, CleanImage(strength=30.), seeds=(1, 2)) as run:
            found[name] = call(pipeline, (1, 2), 12), run.trace
    assert (green(found["free"][0]) < .51).all()
    assert (green(found["bound"][0]) > .515).all()
    multipliers = torch.tensor([row["multipliers"]["green>=0.52"] for row in found["bound"][1]])
    assert multipliers.shape == (12, 2)
    assert (multipliers.amax(0) > 0).all()
    assert multipliers[-1, 0] != multipliers[-1, 1]
    assert "multipliers" not in found["free"][1][0]
    with guided(pipeline, bound, CleanImage(strength=30.), seeds=(2,)) as run:
        alone = call(pipeline, (2,), 12)
    assert torch.allclose(alone[0], found["bound"][0][1], atol=2e-4)


def test_a_bound_is_read_from_the_whole_image_and_pressed_through_crops(small_encoder):
    from guide.brief import Brief
    from probes.content import ContentProbe
    content = ContentProbe(small_encoder).aim(Brief(prompt="lemons"))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).requires_grad_()
    passes = []
    handle = small_encoder.clip.visual.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    values = Objective([Term(content), Constraint(content, .9)], Views(count=3))(images, [torch.Generator().manual_seed(k) for k in (0, 1)])
    handle.remove()
    assert passes == [2 * 3 + 2]
    torch.testing.assert_close(values.violations["content>=0.9"], (.9 - content(images.detach())) / content.scale)
    torch.testing.assert_close(values.terms["content>=0.9"], content(images.detach()))
    assert torch.autograd.grad(values.loss.sum(), images)[0].abs().sum() > 0


def test_schedules_are_lines_between_points():
    window = Schedule.window(.9, .3)
    assert [window(noise) for noise in (1., .91, .9, .5, .3, .29, 0.)] == [0, 0, 1, 1, 1, 0, 0]
    assert [Schedule.window(1., .5)(noise) for noise in (1., .5, .4)] == [1, 1, 0]
    ramp = Schedule(((1., 0.), (.5, 2.), (.2, 1.)))
    assert [ramp(noise) for noise in (1., .75, .5, .35, .1)] == pytest.approx([0., 1., 2., 1.5, 1.])
    for points in ((), ((.5, 1.), (.9, 1.)), ((1.5, 1.),)):
        with pytest.raises(UserError):
            Schedule(points)


def test_a_schedule_leaves_steps_without_goal_unguided(red):
    objective = Objective([Term(red, schedule=Schedule.window(1., .6))])
    pipeline = sd()
    with guided(pipeline, objective, CleanImage(strength=3.), seeds=(1,)) as run:
        call(pipeline, (1,), 10)
    assert [row["guided"] for row in run.trace] == [row["noise"] >= .6 for row in run.trace]
    assert 0 < run.calls["decodes"] == sum(row["guided"] for row in run.trace) < 10


def test_two_terms_take_turns(red, green, small_encoder):
    objective = Objective([Term(red, schedule=Schedule.window(1., .5)), Term(green, schedule=Schedule.window(.5, 0.))])
    images = torch.full((1, 3, 8, 8), .5).requires_grad_()
    slopes = {noise: torch.autograd.grad(objective.at(noise)(images, [torch.Generator()]).loss.sum(), images)[0] for noise in (.8, .2)}
    assert slopes[.8][0, 0].abs().sum() > 0 == slopes[.8][0, 1].abs().sum()
    assert slopes[.2][0, 1].abs().sum() > 0 == slopes[.2][0, 0].abs().sum()


def test_a_region_is_all_that_is_seen_and_changed(red, small_encoder):
    mask = torch.zeros(32, 32)
    mask[8:20, 4:16] = 1.
    region = Region(mask)
    images = torch.zeros(1, 3, 64, 64)
    images[:, 0, 16:40, 8:32] = 1.
    images.requires_grad_()
    values = Objective([Term(red, region=region)])(images, [torch.Generator()])
    assert float(values.terms["red"]) == pytest.approx(1.)
    (slope,) = torch.autograd.grad(values.loss.sum(), images)
    assert slope[0, 0, 16:40, 8:32].abs().min() > 0
    outside = slope.clone()
    outside[..., 15:41, 7:33] = 0
    assert not outside.any()
    with pytest.raises(UserError, match="empty"):
        Region(torch.zeros(4, 4))


def test_regions_and_wholes_share_the_encoders_pass(small_encoder):
    from guide.brief import Brief
    from probes.content import ContentProbe
    content, mask = ContentProbe(small_encoder).aim(Brief(prompt="lemons")), torch.zeros(16, 16)
    mask[:8] = 1.
    images, passes = torch.rand(2, 3, 80, 64, generator=torch.Generator().manual_seed(0)), []
    handle = small_encoder.clip.visual.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    goal = Objective([Term(content), Term(content, region=Region(mask)), Constraint(content, 0., region=Region(mask))], Views(count=2))
    values = goal(images, [torch.Generator().manual_seed(k) for k in (0, 1)])
    handle.remove()
    assert passes == [2 * (2 + 2 + 2 + 1)]
    read = goal.read(images)
    torch.testing.assert_close(read["content>=0"], content(images[:, :, :40]), atol=1e-4, rtol=1e-4)
    assert set(values.terms) == set(read) == {*(f"content ({small_encoder.name}) {k}" for k in (1, 2)), "content>=0"}
