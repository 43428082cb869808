"""`--strength auto`: it finds where the judge's gain is largest, stops where it no longer rises, and says what it tried."""
import json
import math

import pytest
import torch
from typer.testing import CliRunner

import cli
from guide.strategies import CleanImage
from guide.tuning import restored, tune, tuning_seeds
from guide.watch import Watch


def tuned(gain, first=1., turned=1, **more):
    """On pictures that are the strength itself, by a judge whose score is a known function of it."""
    asked = []

    def make(strategy):
        asked.append(strategy.strength)
        return torch.full((4, 1), strategy.strength)

    watch = Watch(lambda pictures: turned * gain(pictures[:, 0]) + torch.tensor([0., 1., 2., 3.]), higher_is_better=turned > 0)
    return tune(make, CleanImage(strength=9.), watch, lambda pictures: -pictures[:, 0], (1, 2, 3, 4), first, **more), asked


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("top", [1.3, 5., 20.])
def test_it_finds_the_top_of_a_judges_gain(top, turned):
    found, asked = tuned(lambda s: 1 - (torch.log(s.clamp_min(1e-3) / top)).square(), turned=turned)
    assert abs(math.log2(found.strength / top)) < .45
    assert found.strength in asked
    assert len(asked) == len(set(asked)) <= 2 + math.log2(top) + 7
    assert max(asked) <= 4 * top, "it stops where the gain no longer rises"
    row = next(row for row in found.tried if row["strength"] == found.strength)
    assert row["guide_gain"] == pytest.approx(found.strength)
    assert row["standard_error"] == pytest.approx(0., abs=1e-6)
    assert found.judge == "referee"
    assert f"Strength {found.strength:g}" in str(found)


def test_a_judge_that_only_falls_leaves_the_pictures_unguided():
    found, asked = tuned(lambda s: -s)
    assert found.strength == 0.
    assert min(asked[1:]) < .1


def test_a_gain_that_never_stops_has_an_end():
    found, asked = tuned(lambda s: s)
    assert 64 <= found.strength <= 200
    assert len(asked) < 16


def test_its_seeds_are_none_of_the_runs():
    assert not set(tuning_seeds((0, 1, 2))) & {0, 1, 2}
    assert tuning_seeds((0,)) == tuning_seeds((0, 5))
    assert len(set(tuning_seeds((7, 8)))) == 4


def test_a_record_brings_it_back():
    found, _ = tuned(lambda s: 1 - (s - 2).square())
    assert restored(json.loads(json.dumps(vars(found)))) == found


def test_on_the_command_line_it_stands_in_the_record_and_goes_on(tmp_path):
    command = ("generate", "--style", "baroque", "--prompt", "lemons", "--seeds", "0", "--steps", "1", "--strength", "auto",
               "--device", "cpu", "--out", str(tmp_path))
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "was chosen by the gain of the referee" in " ".join(done.output.split())
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    tuning = record["tuning"]
    assert tuning["judge"] == "referee"
    assert {"strength", "gain", "guide_gain", "standard_error"} == set(tuning["tried"][0])
    assert tuning["strength"] == max(tuning["tried"], key=lambda row: row["gain"])["strength"]
    assert record["lineages"]["watched referee"]["weights"]
    (tmp_path / "seed-0000-guided.png").unlink()
    again = CliRunner().invoke(cli.app, command)
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["tuning"] == tuning
