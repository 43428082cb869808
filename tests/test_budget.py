"""Equal budgets in closed form, and what a comparison is made of."""

import pytest

from guide.comparing.asked import Arm, Asked, cells, field_of, strengths
from guide.comparing.budget import Cost, best_of, equal, parsed, rival
from guide.strategies import presets
from probes.errors import UserError

COSTS = {
    ("unguided", ""): Cost({"seconds": 0.05, "denoiser_calls": 0.0}, {"seconds": 0.05, "denoiser_calls": 2.0}),
    ("best-of", ""): Cost({"seconds": 0.06, "denoiser_calls": 0.0}, {"seconds": 0.05, "denoiser_calls": 2.0}),
    ("clean-image", ""): Cost({"seconds": 0.05, "denoiser_calls": 0.0}, {"seconds": 0.3, "denoiser_calls": 2.0}),
    ("dps", ""): Cost({"seconds": 0.1, "denoiser_calls": 0.0}, {"seconds": 0.41, "denoiser_calls": 4.0}),
    ("fk", ""): Cost({"seconds": 0.1, "denoiser_calls": 0.0}, {"seconds": 0.21, "denoiser_calls": 8.0}),
}
ARMS = [Arm("unguided"), Arm("clean-image", 10.0), Arm("dps", 10.0), Arm("fk", 10.0)]


def asked(tmp_path, **more):
    return Asked(**{"out": tmp_path, "styles": ("baroque",), "strategies": ("clean-image",), "seeds": (0, 1, 2, 3)} | more)


@pytest.mark.parametrize("budget", ["seconds", "calls", "seconds:20", "calls:300", "seconds:4"])
@pytest.mark.parametrize("steps", [4, 25, 50])
def test_every_arm_spends_the_budget_to_half_a_step(budget, steps):
    arms, amount = equal(ARMS, COSTS, steps, budget)
    what, given = parsed(budget)
    assert amount == (given or max(COSTS[arm.kind].of(what, steps) for arm in ARMS))
    assert Arm("unguided") in arms
    assert any(arm.strategy == "best-of" for arm in arms)
    for arm in arms:
        if arm.strategy != "unguided":
            spent = COSTS[arm.kind].of(what, arm.steps or steps, arm.candidates)
            assert abs(spent - amount) <= arm.candidates * COSTS[arm.kind].per_step[what] / 2 + 0.021 * amount + 1e-9
            assert (arm.steps or steps) >= min(steps, 2)


def test_best_of_matches_the_arms_seconds():
    some = best_of(ARMS, COSTS, 25)
    assert [arm.candidates for arm in some] == [4, 6, 8]
    assert rival(ARMS[1], [*ARMS, *some], COSTS, 25).candidates == 6
    assert rival(ARMS[2], [*ARMS, *some], COSTS, 25).candidates == 8
    assert rival(ARMS[0], [*ARMS, *some], COSTS, 25) is None
    assert rival(ARMS[2], [*ARMS, Arm("best-of", candidates=2)], COSTS, 25) is None  # a fifth of its seconds is no match
    assert [arm.candidates for arm in best_of(ARMS, COSTS, 25, (3, 3))] == [3]


def test_a_cost_is_the_line_through_two_measurements():
    cost = Cost.between((5, {"seconds": 1.0, "denoiser_calls": 10}), (10, {"seconds": 1.5, "denoiser_calls": 20}))
    assert (cost.of("seconds", 25), cost.of("denoiser_calls", 25, 2)) == (pytest.approx(3.0), 100)
    noisy = Cost.between((5, {"seconds": 2.0, "denoiser_calls": 10}), (10, {"seconds": 1.5, "denoiser_calls": 20}))
    assert noisy.of("seconds", 25) == pytest.approx(1.5)


@pytest.mark.parametrize("text", ["minutes", "seconds:0", "calls:x", "seconds:-1", "seconds:inf", ""])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="budget"):
        parsed(text)


def test_every_strategy_has_a_frontier_and_its_baseline(tmp_path):
    request = asked(tmp_path, strategies=("unguided", "clean-image", "ntrk", "freedom", "fk"))
    arms = field_of(request, request.settings()[0])
    for name in ("clean-image", "ntrk", "freedom", "cfg", "apg", "interval"):
        assert len([arm for arm in arms if arm.strategy == name]) >= 2
    assert {arm.label for arm in arms if arm.strategy == "unguided"} == {"unguided", "unguided, stochastic", "unguided, single-step"}
    assert all(arm.baseline() in arms for arm in arms)
    assert {arm.strength for arm in arms if arm.strategy == "clean-image"} == {5, 10, 20}
    assert 4 not in {arm.strength for arm in arms if arm.strategy == "cfg"}


@pytest.mark.parametrize("key", sorted(presets()))
def test_strengths_are_counted_in_the_unit_of_the_preset(tmp_path, key):
    setting = asked(tmp_path).settings()[0]
    default = {"guidance": 10.0, "guidance scale": 4.0, "own": float(presets()[key].settings.get("strength", 1))}[presets()[key].unit]
    found = strengths(presets()[key], setting)
    assert min(found) <= default <= max(found)
    assert strengths(presets()[key], setting, (3.0, 3.0, 7.0)) == (3.0, 7.0)


def test_strengths_as_typed(tmp_path):
    request = asked(tmp_path, strategies=("mpgd", "dps"), strengths=("5,20", "dps=7", "cfg=2"))
    arms = field_of(request, request.settings()[0])
    assert [arm.label for arm in arms if arm.strategy in ("mpgd", "dps", "cfg")] == ["mpgd 5", "mpgd 20", "dps 7", "cfg 2"]


def test_cells_cross_styles_wordings_and_prompts(tmp_path):
    request = asked(tmp_path, styles=("baroque", "baroque:.7+ukiyo-e:.3"), crossed=2)
    found = cells(request, request.settings()[0])
    assert len(found) == 8
    assert len({cell.folder for cell in found}) == 8
    mixed = next(cell for cell in found if "+" in cell.spec)
    assert dict(mixed.brief.styles) == pytest.approx({"baroque": 0.7, "ukiyo-e": 0.3})
    assert mixed.style == "baroque 0.7 + ukiyo-e 0.3"
    around = cells(asked(tmp_path), request.settings()[0])[0]
    assert sorted(seed for _, seeds in around.per_prompt(range(6)) for seed in seeds) == list(range(6))


def test_choice_seeds_are_others_than_those_that_report(tmp_path):
    assert asked(tmp_path).choosing() == (1000, 1001)
    assert not set(asked(tmp_path, seeds=tuple(range(1000, 1008))).choosing()) & set(range(1000, 1008))
    with pytest.raises(UserError, match="apart"):
        asked(tmp_path, choice_seeds=(3, 4))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"style_from": ("words",)}, "prompt, guidance, both"), ({"seeds": ()}, "No seed"), ({"best_of": (1,)}, "Best of 1"),
        ({"batch": 0}, "0 pictures"), ({"crossed": 101}, "101 prompts"), ({"judges": ()}, "No judge"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_sentence(tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        asked(tmp_path, **more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strengths": ("a",)}, "not numbers"), ({"strengths": ("dps=5",)}, "not compared"), ({"strengths": ("-1",)}, "above 0"),
        ({"strategies": ("unguided",), "prompt_only": False}, "two different"), ({"strategies": ("cleanimages",)}, "clean-image"),
        ({"crossed": 9}, "prompts of its own"),
    ],
)  # fmt: skip
def test_bad_fields_are_one_sentence(tmp_path, more, said):
    request = asked(tmp_path, **more)
    setting = request.settings()[0]
    with pytest.raises(UserError, match=said):
        _ = cells(request, setting), field_of(request, setting)
