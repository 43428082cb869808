"""What rows of an audit come to: rates and intervals by prompt, and the sentences that say them."""

import numpy as np
import pytest

from probes.auditing import columns, keeping, pairing, summary
from probes.auditing.item import Item
from probes.auditing.rates import rate
from probes.auditing.report import Report
from probes.auditing.sentences import _baseline, _damage, _share, sentences
from probes.encoders import load
from probes.errors import UserError
from probes.judge import load as judge
from probes.reliability import wilson


def rows(count, **cells):
    """`count` read rows; a callable makes the cell of row k."""
    said = {"error": "", "artifacts": 0.5, "domain_percentile": 50.0, "out_of_domain": False, "prompt": "", "style_target": "baroque"}
    said |= cells
    made = [{name: value(k) if callable(value) else value for name, value in said.items()} for k in range(count)]
    return columns.of_rows([{"image": f"{k}.png"} | row for k, row in enumerate(made)])


def test_pictures_without_a_prompt_are_no_cluster():
    table = rows(41, artifact_kind=lambda k: "blur" if k < 2 else "", prompt=lambda k: f"p{k}" if k < 3 else "")
    assert len(set(keeping.clusters(table))) == 41
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
    assert _share(keeping.kept(table)).endswith(" over 7 prompts)")
    assert "over" not in _share(keeping.kept(rows(14, kept=True, prompt=lambda k: f"p{k}")))
    assert "over" not in _share(keeping.kept(rows(14, kept=True)))


def test_intervals_hold_their_rate():
    rng, hits = np.random.default_rng(0), {4: 0, 20: 0}
    for count in hits:
        for _ in range(150):
            chances = np.repeat(rng.beta(1.5, 3.5, count), 8)  # a mean of .3, correlated within prompts
            _, low, high = rate(rng.random(len(chances)) < chances, np.arange(len(chances)) // 8)
            hits[count] += low <= 0.3 <= high
    assert min(hits.values()) > 0.88 * 150, hits


def run_of(count):
    """A run of `count` pairs: every guided picture kept its style, of the unguided ones the first."""
    return rows(2 * count, variant=lambda k: ("unguided", "guided")[k % 2], seed=lambda k: k // 2, prompt="a jug",
                kept=lambda k: k % 2 == 1 or k == 0, style_top="baroque", verdict_style=lambda k: "baroque" if k % 2 or not k else "cubism",
                contrast=0.2, saturation=0.2, high_frequency=0.2)  # fmt: skip


def test_variants_and_their_pairs_are_told_apart():
    table = run_of(4)
    pairing.pair_variants(table)
    assert table["baseline_kept"].dropna().tolist() == [True, False, False, False]
    found = summary.summarise(table, load("embedded"), judge("verdict"), {}, steered=False)
    said = list(sentences(found))
    first = next(one for one in said if one.startswith("baroque"))
    assert "in unguided 1 of 4 (25%" in first
    assert "; guided 4 of 4 (100%" in first
    assert "5 of 8" not in first
    pairs = found["baseline"]["kept"]["guided"]
    assert (pairs["kept"], pairs["baseline_kept"], pairs["gained"], pairs["lost"], pairs["change"]) == (4, 1, 3, 0, 0.75)
    assert pairs["interval"][0] < 0.75 <= pairs["interval"][1] <= 1
    assert any("by pairs: guided 4 of 4, unguided 1 of 4; 3 gained it, 0 lost it: +75 points, 95 % interval" in one for one in said)
    assert "guided 4 of 4, baseline 1 of 4" in " ".join(_baseline(found["baseline"], 4))


def test_a_change_has_an_interval_that_holds_it():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        before = rng.random(40) < 0.3
        after = np.where(rng.random(40) < 0.5, before, rng.random(40) < 0.7)  # kept by .5, the change .2
        low, high = keeping._paired(rows(40, kept=lambda k, a=after: a[k], baseline_kept=lambda k, b=before: b[k]))["interval"]
        hits += low <= 0.2 <= high
    assert 0.9 * 200 < hits < 200
    same = keeping._paired(rows(40, kept=lambda k: k % 2 == 0, baseline_kept=lambda k: k % 2 == 0))
    assert (same["gained"], same["lost"], same["change"]) == (0, 0, 0.0)
    assert same["interval"] == pytest.approx([0, 0], abs=0.01)


def test_exact_copies_are_no_evidence():
    table = rows(40, kept=lambda k: k % 4 == 0, baseline_kept=False, artifact_kind="blur")
    table["sha256"] = [bytes([k % 4] * 32) for k in range(40)]
    found, single = keeping.kept(table), keeping.kept(table.head(4))
    assert (found["judged"], found["kept"], found["copies"]) == (4, 1, 36)
    assert found["kept_interval"] == single["kept_interval"]
    assert _share(found).endswith("; 36 exact copies not counted again)")
    assert keeping.paired(table)[""]["pairs"] == 4
    assert summary._artifacts(table, {}, None)["damaged"] == 4
    table["variant"] = ["guided" if k < 20 else "unguided" for k in range(40)]  # guidance that changes nothing makes no copy
    assert keeping.kept(table)["judged"] == 8


def test_a_baseline_is_not_what_is_audited(tmp_path):
    some = [Item(f"{k}", str(tmp_path / f"{k}.png")) for k in range(3)]
    around = [Item("x", f"{tmp_path}/../{tmp_path.name}/{k}.png") for k in range(3)]
    for before in (some, [*some, Item("3", str(tmp_path / "3.png"))], around):
        with pytest.raises(UserError, match="compared with itself"):
            pairing.refuse_itself(before, some)
    pairing.refuse_itself(some[:2], some)
    pairing.refuse_itself([], some)


def summed(table, **options):
    return summary.summarise(table, load("embedded"), judge("verdict"), {"period": "mean error 48 years on 1081 paintings"}, steered=False,
                             **options)  # fmt: skip


@pytest.mark.parametrize(("grey", "said"), [(19, True), (3, False)])
def test_a_set_without_colour_is_said_first(grey, said):
    found = summed(rows(20, kept=lambda k: k == 0, verdict_style="cubism", style_top="baroque", year_error=5.0,
                        notes=lambda k: "turned\nwithout colour" if k < grey else ""))  # fmt: skip
    first, *_ = lines = found["sentences"]
    assert first.startswith("19 of 20 have no colour: the readings of style, the verdict's too, do not hold for them") == said
    assert any("of real ones (in colour, unlike most of these)." in line for line in lines) == said
    assert any("Period: off by 5 years on average" in line and "mean error 48 years" in line for line in lines)


def test_a_set_unlike_paintings_is_said_before_its_readings():
    lines = summed(rows(20, kept=True, verdict_style="baroque", style_top="baroque", domain_percentile=97.0), alarms={})["sentences"]
    assert lines[0].startswith("100% of 20 pictures lie beyond 95 % of real paintings: the reliability of the readings")
    assert "of real ones (unlike these)." in lines[1]


def test_numbers_add_up():
    table = rows(45, artifact_kind=lambda k: "blur" if k in (0, 1, 44) else "", out_of_domain=lambda k: k > 42, style_top="baroque",
                 artifacts=lambda k: None if k in (40, 41) else 0.5, style_target=lambda k: "baroque" if k < 40 else "")  # fmt: skip
    lines = summed(table, alarms={})["sentences"]
    at = next(k for k, line in enumerate(lines) if line.startswith("Artifacts: 2 of 41 images are damaged (5%"))
    assert lines[at + 1] == ("Of the 45 images that were read 4 are left out of that rate: 2 too unlike paintings, "
                             "2 not read for artifacts.")  # fmt: skip
    assert lines[at + 2].startswith("1 image sets off the artifact probe and is not counted as damaged")
    assert lines[0] == "Of 45 images that were read 5 have no intended style, and are not among those below."


def test_best_and_worst_are_ranked_within_their_style():
    table = rows(60, style_target=lambda k: ("baroque", "cubism")[k % 2], verdict_log_odds=lambda k: k + 1000 * (k % 2))
    table.loc[60] = table.loc[0]
    table.loc[60, ["image", "style_target", "verdict_log_odds"]] = ["alone.png", "rococo", 5000.0]
    found = summary.ends(table)
    assert found["best"][:4] == ["59.png", "58.png", "57.png", "56.png"]
    assert found["worst"][:2] == ["0.png", "1.png"]
    assert found["best_styles"][:2] == ["cubism", "baroque"]
    assert "alone.png" not in found["best"] + found["worst"]
    lines = str(Report(table, {"ends": found}).table(limit=40).renderables[-1])
    assert "Best within their styles: 59.png (cubism), 58.png (baroque)" in lines
