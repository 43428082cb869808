"""What the command line's texts mean, the objective that comes of them, and one run with all of it."""
import json

import pytest
import torch
from conftest import synthetic_photo
from PIL import Image
from typer.testing import CliRunner

import cli
from guide import goals
from guide.brief import Brief
from guide.goals import Goals, parse, parse_schedules
from guide.objectives import aimed
from guide.watching import told, watches
from probes.constraints import Constraint
from probes.errors import UserError
from probes.schedules import Schedule

BRIEF = Brief(prompt="lemons", styles=(("baroque", 1.),))


@pytest.fixture
def painting(tmp_path):
    path = tmp_path / "painting.png"
    synthetic_photo(3, (96, 96)).save(path)
    return path


def test_texts_become_goals(painting):
    found = parse(weight=["style=1,period=.5", "content=0"], keep=["content>=0.28"], limit=[" artifacts <= .2"],
                  schedule=["style@0.9-0.3,content@1-0.5", "period@1:0/.5:2"], toward=["warm light:2", "people: -1", "a ratio of 16:9 x"],
                  reference=[str(painting), f"{painting}:.5"], reference_by="gram", region=str(painting), content="spherical")
    assert found.weights == (("style", 1.), ("period", .5), ("content", 0.))
    assert found.constraints == (("content", ">=", .28), ("artifacts", "<=", .2))
    assert dict(found.schedules)["period"] == ((1., 0.), (.5, 2.))
    assert found.toward == (("warm light", 2.), ("people", -1.), ("a ratio of 16:9 x", 1.))
    assert found.references == ((str(painting), 1.), (str(painting), .5))
    assert list(found.described()["files"]) == [str(painting)]
    assert bool(found)
    assert not parse()


@pytest.mark.parametrize("high", [1., .9])
@pytest.mark.parametrize("low", [.3, 0.])
def test_a_window_is_the_schedules_own(high, low):
    assert Schedule(parse_schedules(f"style@{high}-{low}")[0][1]) == Schedule.window(high, low)


@pytest.mark.parametrize(("option", "text", "named"), [
    ("weight", "style:1", "style:1"), ("weight", "styl=1", "style"), ("weight", "style=-1", "--avoid"), ("weight", "style=much", "much"),
    ("weight", "style=1,style=2", "twice"), ("keep", "content>0.2", "content>0.2"), ("keep", "content", "content>=0.28"),
    ("keep", "contant>=.2", "content"), ("limit", "artifacts<=a", "artifacts<=a"), ("schedule", "style", "style@0.9-0.3"),
    ("schedule", "style@.3-.9", "downward"), ("schedule", "style@2-1", "within 1 and 0"), ("schedule", "style@.1:1/.9:0", "downward"),
    ("toward", ":2", "no words"), ("toward", "light:0", "weight of 0"), ("reference", "nowhere.jpg:.5", "nowhere.jpg"),
    ("region", "nowhere.png", "nowhere.png"), ("content", "globel", "global"), ("reference_by", "grams", "gram"),
    ("reference_by", "gram", "--reference PICTURE")])
def test_what_means_nothing_is_named(option, text, named):
    with pytest.raises(UserError) as refused:
        parse(**{option: text if option in ("region", "content", "reference_by") else [text]})
    assert named in str(refused.value)


def test_the_strength_is_a_number_or_auto():
    assert [goals.parse_strength(text) for text in (None, "auto", "Auto", "2.5")] == [None, "auto", "auto", 2.5]
    for text in ("much", "-1", "nan", "1e9"):
        with pytest.raises(UserError):
            goals.parse_strength(text)


def test_goals_become_terms(embedded_encoder, painting):
    objective = aimed(BRIEF, embedded_encoder, parse(
        weight=["style=2"], keep=["content>=0.2"], schedule=["style@1-.5"], toward=["warm light:2"], reference=[f"{painting}:3"]))
    assert objective.names == ["style", "reference", "toward warm light", "content>=0.2"]
    style, likeness, toward, kept = objective.terms
    assert (style.weight, style.counts(.7), style.counts(.2)) == (2., 2., 0.)
    assert likeness.weight == pytest.approx(3.)
    assert toward.weight == pytest.approx(2 * goals.WEIGHTS["toward"])
    assert isinstance(kept, Constraint)
    both = aimed(BRIEF, embedded_encoder, parse(keep=["content>=0.2"], weight=["content=1"]))
    assert both.names == ["style", "content", "content>=0.2"]
    plain = aimed(BRIEF, embedded_encoder)
    assert [term.weight for term in plain.terms] == [goals.WEIGHTS[name] for name in plain.names]


@pytest.mark.parametrize(("given", "named"), [
    ({"weight": ["period=1"]}, "--period"), ({"keep": ["scene>=0"]}, "--scene"), ({"schedule": ["reference@1-.5"]}, "--reference"),
    ({"limit": ["artifacts<=0.2"]}, "artifact"), ({"keep": ["content>=28"]}, "from -1 to 1")])
def test_a_goal_that_nothing_was_asked_of_is_refused(small_encoder, given, named):
    with pytest.raises(UserError, match=named):
        aimed(BRIEF, small_encoder, parse(**given))


def test_directional_content_changes_from_a_source(embedded_encoder):
    source = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    objective = aimed(BRIEF, embedded_encoder, Goals(content="directional"), source)
    assert objective.read(source)["content"].abs().max() < .05
    with pytest.raises(UserError, match="unguided"):
        aimed(BRIEF, embedded_encoder, Goals(content="directional"))


def test_what_is_watched_by_name(embedded_encoder):
    found = watches(["referee", "content"], "stop", BRIEF, embedded_encoder, Goals())
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert [watch.name for watch in found] == ["referee", "content"]
    assert all(watch.score(images).shape == (2,) and watch.lineages for watch in found)
    for name, brief, named in (("referie", BRIEF, "referee"), ("period", BRIEF, "--period"), ("referee", Brief("lemons"), "--style"),
                               ("referee", Brief(styles=(("pop-art", 1.),)), "does not know pop-art")):
        with pytest.raises(UserError, match=named):
            watches([name], "warn", brief, embedded_encoder, Goals())


def test_the_run_is_told_in_a_sentence():
    rows = [{"seeds": [1, 2], "goal": [2., 4.], "watch": {"referee": [1., None]}, "conflict": {"referee": [False, k == 1]},
             "steering_left": [1., .5]} for k in range(2)]
    (line,) = told([*rows, {"seeds": [1, 2], "goal": None}])
    assert "referee: +1.00 -> +1.00" in line
    assert "1 of 4" in line
    assert "75%" in line


def test_one_run_with_everything(tmp_path, painting):
    mask = tmp_path / "mask.png"
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 64, 40))
    half.save(mask)
    out = tmp_path / "run"
    command = ("generate", "--style", "baroque", "--prompt", "lemons", "--seeds", "0-1", "--steps", "2", "--strength", "3",
               "--keep", "content>=0.9", "--weight", "style=2", "--schedule", "style@1-0.2", "--toward", "warm light:2",
               "--reference", f"{painting}:.5", "--region", str(mask), "--content", "directional", "--watch", "referee",
               "--watch", "content", "--on-drift", "damp", "--device", "cpu", "--out", str(out))
    done = CliRunner().invoke(cli.app, list(command))
    assert done.exit_code == 0, done.output
    assert "content>=0.9 holds for unguided 0 of 2" in done.output
    assert "It is out of reach here" in " ".join(done.output.split())
    assert "Watched referee:" in done.output
    assert "Toward warm light: unguided" in done.output
    assert "Reference: unguided" in done.output
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["request"]["goals"]["constraints"] == [["content", ">=", .9]]
    assert {"encoder", "verdict", "watched referee"} == set(record["lineages"])
    assert len(record["request"]["goals"]["files"]) == 2
    rows = [json.loads(line) for line in (out / "trace.jsonl").read_text(encoding="utf-8").splitlines()]
    steered = [row for row in rows if row["variant"] == "guided"]
    assert all(set(row["watch"]) == {"referee", "content"} and "content>=0.9" in row["multipliers"] for row in steered)
    assert not any("watch" in row for row in rows if row["variant"] == "unguided")
    again = CliRunner().invoke(cli.app, [*command[:-2], "--on-drift", "stop", "--out", str(out)])
    assert again.exit_code == 2
    assert "another on drift (damp instead of stop)" in again.output


@pytest.mark.parametrize(("extra", "named"), [
    (("--watch", "verdict"), "--judge"), (("--strength", "auto", "--judge", "referee"), "--judge"),
    (("--strength", "auto", "--strategy", "best-of"), "whole runs"), (("--keep", "scene>=0"), "--scene")])
def test_what_cannot_be_together_is_refused_before_a_picture_is_made(tmp_path, extra, named):
    command = ("generate", "--style", "baroque", "--steps", "2", "--device", "cpu", "--out", str(tmp_path), *extra)
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 2
    assert named in done.output
    assert not list(tmp_path.glob("*.png"))
