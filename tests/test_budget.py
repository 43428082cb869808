"""Equal budgets in closed form, and what a comparison is made of."""

import pytest

from guide import pipelines
from guide.comparing.asked import Arm, Asked, cells, field_of, strengths
from guide.comparing.budget import TOLERANCE, Cost, best_of, equal, parsed, rival
from guide.comparing.plan import _typical
from guide.strategies import presets
from probes.errors import UserError


def cost(fixed, per_step, calls):
    """Seconds of computing and of the clock are the same here."""
    names = ("seconds", "compute_seconds", "denoiser_calls")
    return Cost(dict(zip(names, (fixed, fixed, 0.0), strict=True)), dict(zip(names, (per_step, per_step, calls), strict=True)))


COSTS = {
    ("unguided", ""): cost(0.05, 0.05, 2.0),
    ("best-of", ""): cost(0.06, 0.05, 2.0),
    ("clean-image", ""): cost(0.05, 0.3, 2.0),
    ("dps", ""): cost(0.1, 0.41, 4.0),
    ("fk", ""): cost(0.1, 0.21, 8.0),
    ("mpgd", ""): cost(0.3, 0.06, 2.0),
    ("cfg", ""): cost(0.05, 0.05, 2.0),
}
ARMS = [Arm("unguided"), Arm("clean-image", 10.0), Arm("dps", 10.0), Arm("fk", 10.0)]


def asked(tmp_path, **more):
    return Asked(**{"out": tmp_path, "styles": ("baroque",), "strategies": ("clean-image",), "seeds": (0, 1, 2, 3)} | more)


@pytest.mark.parametrize("budget", ["seconds", "calls", "seconds:20", "calls:300", "seconds:4"])
@pytest.mark.parametrize("steps", [4, 25, 50])
def test_every_arm_spends_the_budget_to_half_a_step(budget, steps):
    arms, amount, said = equal(ARMS, COSTS, steps, budget)
    what, given = parsed(budget)
    least = max(COSTS[arm.kind].of(what, steps) for arm in ARMS)
    assert amount == given or least <= amount <= least * (1 if what == "compute_seconds" else 1 + TOLERANCE)
    assert Arm("unguided") in arms
    assert all(arm.candidates >= 2 for arm in arms if arm.strategy == "best-of")
    for arm in arms:
        if arm.strategy != "unguided":
            spent = COSTS[arm.kind].of(what, arm.steps or steps, arm.candidates)
            assert abs(spent - amount) <= arm.candidates * COSTS[arm.kind].per_step[what] / 2 + 0.031 * amount + 1e-9
            assert (arm.steps or steps) >= min(steps, 2)
            assert abs(spent / amount - 1) <= TOLERANCE or any(arm.label in sentence for sentence in said)
    assert any(arm.strategy == "best-of" for arm in arms) or "Best-of is left out" in said[0]


@pytest.mark.parametrize("steps", [4, 25, 28, 50])
@pytest.mark.parametrize("strategies", [("clean-image",), ("clean-image", "dps"), ("clean-image", "dps", "fk"), ("mpgd", "cfg")])
def test_denoiser_calls_are_equal_to_the_digit_where_they_can_be(steps, strategies):
    arms, amount, said = equal([Arm("unguided"), *(Arm(name, 10.0) for name in strategies)], COSTS, steps, "calls")
    spent = {arm.label: COSTS[arm.kind].of("denoiser_calls", arm.steps or steps, arm.candidates) for arm in arms[1:]}
    assert set(spent.values()) == {amount}
    assert len(spent) == len(strategies) + 1
    assert amount >= 4 * steps  # two plain pictures at least
    assert said == []


def test_best_of_one_is_no_baseline():
    arms, *_ = equal([Arm("unguided"), Arm("clean-image", 10.0)], COSTS, 25, "calls")
    assert [arm.label for arm in arms] == ["unguided", "clean-image 10, best of 2", "best of 2"]
    arms, _, said = equal([Arm("unguided"), Arm("clean-image", 10.0)], COSTS, 25, "calls:6")
    assert not any(arm.strategy == "best-of" for arm in arms)
    assert "Best-of is left out" in said[0]
    arms, _, said = equal([Arm("unguided"), Arm("clean-image", 10.0)], COSTS, 25, "calls:52")
    assert [arm.label for arm in arms] == ["unguided", "clean-image 10, 26 steps", "best of 2, 13 steps"]


def test_best_of_at_the_arms_seconds_is_always_in():
    def seconds(arm):
        return COSTS[arm.kind].of("compute_seconds", arm.steps or 25, arm.candidates)

    some = best_of(ARMS, COSTS, 25)
    assert [arm.candidates for arm in some] == [4, 6, 8]
    for arm in [*ARMS[1:], Arm("mpgd", 10.0)]:
        found = rival(arm, [*ARMS, *best_of([*ARMS, Arm("mpgd", 10.0)], COSTS, 25)], COSTS, 25)
        assert abs(seconds(found) / seconds(arm) - 1) < TOLERANCE
        assert found.candidates >= 2
    # 1.4 plain pictures: two of fewer steps.
    assert [arm.label for arm in best_of([Arm("mpgd", 10.0)], COSTS, 25)] == ["best of 2, 17 steps"]
    assert [arm.label for arm in best_of([Arm("cfg", 8.0)], COSTS, 25)] == ["best of 2"]
    assert rival(ARMS[0], [*ARMS, *some], COSTS, 25) is None
    assert rival(ARMS[2], [*ARMS, Arm("best-of", candidates=2)], COSTS, 25) is None  # a fifth of its seconds is no match
    assert [arm.candidates for arm in best_of(ARMS, COSTS, 25, (3, 3))] == [3]


def test_a_cost_is_the_line_through_two_measurements():
    def told(seconds, calls):
        return {"seconds": seconds, "compute_seconds": seconds, "denoiser_calls": calls}

    line = Cost.between((5, told(1.0, 10)), (10, told(1.5, 20)))
    assert (line.of("seconds", 25), line.of("denoiser_calls", 25, 2)) == (pytest.approx(3.0), 100)
    noisy = Cost.between((5, told(2.0, 10)), (10, told(1.5, 20)))
    assert noisy.of("seconds", 25) == pytest.approx(1.5)


def test_a_busy_machine_does_not_change_what_an_arm_costs_in_plain_pictures():
    calls = {"denoiser_calls": 50}
    slow = [1.0, 2.5, 1.2]  # other work of each lap
    plain = [(25, {"seconds": s, "compute_seconds": 0.5 * s} | calls) for s in slow]
    guided = [(25, {"seconds": 3 * s, "compute_seconds": 1.5 * s} | calls) for s in slow]
    assert _typical(guided, plain)[1]["compute_seconds"] / _typical(plain, plain)[1]["compute_seconds"] == pytest.approx(3)
    assert _typical(guided, plain, stretch=2.0)[1] == {"seconds": 3.0, "compute_seconds": 1.5} | calls


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
    usual = pipelines.find("embedded").strength
    assert {arm.strength for arm in arms if arm.strategy == "clean-image"} == {usual / 2, usual, 2 * usual}
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
    assert asked(tmp_path, judges=("verdict",)).choosing() == ()  # the referee chooses, or nobody does
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
