"""A referee that falls while the guide climbs is told, and damps or stops the steering of that image alone."""
import pytest
import torch
from tiny_pipelines import Warmth, call, sd

from guide.guided import guided
from guide.strategies import CleanImage, load
from guide.watch import Conflict, Watch
from probes.errors import UserError


def falling(images):
    """Dislikes what the guide likes: red."""
    return -images[:, 0].mean((1, 2))


def steered(watch, steps=12, strategy=None, schedule="DDIMScheduler"):
    pipeline = sd(schedule=schedule)
    with guided(pipeline, Warmth(noise=0.), strategy or CleanImage(strength=20.), seeds=(1, 2), watch=watch) as done:
        images = call(pipeline, (1, 2), steps)
    return images, done


def test_the_reactions_of_a_conflict():
    loss = [torch.tensor([3., 3.]), torch.tensor([2., 2.]), torch.tensor([1., 1.])]
    score = [torch.tensor([0., 0.]), torch.tensor([-1., 1.]), torch.tensor([-2., 2.])]
    for reaction, left in (("off", 1.), ("warn", 1.), ("damp", .5), ("stop", 0.)):
        conflict = Conflict(Watch(falling, reaction, patience=2))
        seen = [conflict.see(*pair).tolist() for pair in zip(loss, score, strict=True)]
        assert seen == [[False, False], [False, False], [reaction != "off", False]]
        assert conflict.factor.tolist() == [left, 1.]


@pytest.mark.parametrize("reaction", ["off", "warn"])
def test_a_warning_changes_no_bit(reaction):
    plain, _ = steered(None)
    warned, done = steered(Watch(falling, reaction))
    assert torch.equal(plain, warned)
    assert (done.calls["conflicts"] > 0) == (reaction == "warn")
    assert all(len(row["watch"]["referee"]) == len(row["losses"]) == 2 for row in done.trace)


@pytest.mark.parametrize(("key", "schedule"), [("clean-image", "DDIMScheduler"), ("dsg", "EulerAncestralDiscreteScheduler")])
def test_stopping_leaves_the_rest_of_the_run_unguided(key, schedule):
    strategy = load(key, strength=20.)
    stopped, done = steered(Watch(falling, "stop", patience=2), strategy=strategy, schedule=schedule)
    full, _ = steered(None, strategy=strategy, schedule=schedule)
    assert not torch.equal(stopped, full)
    assert [row["steering_left"] for row in done.trace if "steering_left" in row][-1] == [0., 0.]
    assert done.trace[-1]["decodes"] == 0, "what no longer steers costs nothing"


def test_a_referee_that_does_not_fall_is_not_in_the_way():
    plain, _ = steered(None)
    watched, done = steered(Watch(lambda images: torch.zeros(len(images)), "stop", patience=2))
    assert torch.equal(plain, watched)
    assert done.calls["conflicts"] == 0


def test_several_are_watched_and_each_reacts_to_its_own():
    rising = Watch(lambda images: images[:, 0].mean((1, 2)), "stop", 2, "rising")
    wrong_way = Watch(lambda images: images[:, 0].mean((1, 2)), "damp", 2, "distance", higher_is_better=False)
    _, done = steered((rising, wrong_way))
    seen = done.trace[-1]
    assert seen["watch"]["rising"] == seen["watch"]["distance"], "the trace has the measures' own units"
    assert not any(any(row["conflict"]["rising"]) for row in done.trace)
    assert any(any(row["conflict"]["distance"]) for row in done.trace)
    assert 0 < seen["steering_left"][0] < 1
    with pytest.raises(UserError, match="twice"), guided(sd(), Warmth(), CleanImage(), watch=(rising, rising)):
        pass


def test_reactions_without_meaning_are_refused():
    with pytest.raises(UserError, match="damp"):
        Watch(falling, "panic")
    with pytest.raises(UserError, match="1 step"):
        Watch(falling, patience=0)
