"""What rows of an audit come to: rates and intervals by prompt, and the sentences that say them."""

import numpy as np
import pytest

from probes.auditing import columns, summary
from probes.auditing.rates import rate, wilson
from probes.auditing.sentences import _damage, _share


def rows(count, **cells):
    """`count` read rows; a callable makes the cell of row k."""
    said = {"error": "", "artifacts": 0.5, "domain_percentile": 50.0, "out_of_domain": False, "prompt": "", "style_target": "baroque"}
    said |= cells
    made = [{name: value(k) if callable(value) else value for name, value in said.items()} for k in range(count)]
    return columns.of_rows([{"image": f"{k}.png"} | row for k, row in enumerate(made)])


def test_pictures_without_a_prompt_are_no_cluster():
    table = rows(41, artifact_kind=lambda k: "blur" if k < 2 else "", prompt=lambda k: f"p{k}" if k < 3 else "")
    assert len(set(summary.clusters(table))) == 41
    found = summary._artifacts(table, {}, None)
    assert (found["rate"], found["prompts"], found["mean_over_prompts"]) == (2 / 41, 0, None)
    assert found["interval"] == pytest.approx(wilson(2 / 41, 41))
    said = next(_damage({"artifacts": found, "artifacts_head": True, "read": 41}))
    assert said.startswith("Artifacts: 2 of 41 images are damaged (5%, 95 % interval 1% to 16%): 2 blur")
    assert summary._of_group(table, True)["damaged_rate"] == 2 / 41


def test_a_mean_over_prompts_stands_beside_the_rate_where_prompts_are_real():
    table = rows(12, artifact_kind=lambda k: "blur" if k < 2 else "", prompt=lambda k: "few" if k < 2 else "many")
    found = summary._artifacts(table, {}, None)
    assert (found["rate"], found["prompts"], found["mean_over_prompts"]) == (2 / 12, 2, 0.5)
    said = next(_damage({"artifacts": found, "artifacts_head": True, "read": 12}))
    assert "2 of 12 images are damaged (17%, 95 % interval" in said
    assert "over 2 prompts; mean over prompts 50%)" in said


def wilson_of(successes, count):
    return successes / count, *wilson(successes / count, count)


def test_an_interval_does_not_jump_where_prompts_begin_to_vary():
    prompts = np.arange(198) % 7
    none, one = rate(np.zeros(198), prompts), rate(np.arange(198) == 0, prompts)
    assert none == (0.0, 0.0, pytest.approx(wilson(0, 198)[1]))
    assert none[2] < 0.02 < one[2] < 0.035
    assert rate(np.ones(198), prompts)[2] == 1.0
    assert rate(np.arange(198) < 9, np.zeros(198)) == pytest.approx(wilson_of(9, 198))  # one prompt as none
    many, some = np.arange(200) % 10, np.arange(200) // 10 % 2 == 0
    assert rate(some, many)[2] - rate(some, many)[1] < 0.01  # every prompt alike: its bootstrap knows that


def test_prompts_kept_or_lost_as_a_whole_widen_the_interval():
    for count in (2, 4, 7):
        together = np.arange(28 * count) // 28
        wide, narrow = rate(together % 2 == 0, together), rate(together % 2 == 0, np.arange(28 * count))
        assert wide[2] - wide[1] > 2 * (narrow[2] - narrow[1])
        assert wide[1] <= wilson(wide[0], count)[0]


def test_the_sentence_says_over_how_many_prompts():
    table = rows(14, kept=lambda k: k % 2 == 0, prompt=lambda k: f"p{k % 7}")
    assert _share(summary._kept(table)).endswith(" over 7 prompts)")
    assert "over" not in _share(summary._kept(rows(14, kept=True, prompt=lambda k: f"p{k}")))
    assert "over" not in _share(summary._kept(rows(14, kept=True)))


def test_intervals_hold_their_rate():
    rng, hits = np.random.default_rng(0), {4: 0, 20: 0}
    for count in hits:
        for _ in range(150):
            chances = np.repeat(rng.beta(1.5, 3.5, count), 8)  # a mean of .3, correlated within prompts
            _, low, high = rate(rng.random(len(chances)) < chances, np.arange(len(chances)) // 8)
            hits[count] += low <= 0.3 <= high
    assert min(hits.values()) > 0.88 * 150, hits
