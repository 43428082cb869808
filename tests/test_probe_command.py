"""`guide probe` as it is typed: reading, fitting, checking and explaining, and what it says of mistakes."""
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import synthetic_photo
from PIL import Image
from typer.testing import CliRunner

import cli
from probes import fitting
from probes.heads import card
from probes.labelled import Labelled
from probes.overview import words


def probe(*arguments: object):
    return CliRunner().invoke(cli.app, ["probe", *map(str, arguments)])


def clouds(count: int = 90, spread: float = .35, seed: int = 0) -> Labelled:
    """Three labels around three axes, by 15 artists of two labels each, who all push a way of their own."""
    rng = np.random.default_rng(seed)
    truth, artist = np.arange(count) % 3, rng.integers(0, 15, count)
    own = spread * rng.normal(size=(15, 12))
    features = 2 * np.eye(12)[truth] + own[artist] + spread * rng.normal(size=(count, 12))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.array(["baroque", "cubism", "rococo"])[truth]
    return Labelled(labels, labels, np.array([f"artist {k}" for k in artist]), features=features.astype(np.float32), label="style",
                    group="artist")


@pytest.fixture
def table(tmp_path):
    data = clouds()
    years = 1500 + 100 * (data.features[:, 0] > .5)
    np.savez(tmp_path / "data.npz", features=data.features, style=data.labels, artist=data.groups, year=years)
    return tmp_path / "data.npz"


@pytest.fixture
def small(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_CACHE", str(tmp_path / "cache"))
    return clip_folder("resnet", side=64)


@pytest.fixture
def paintings(tmp_path):
    """Twelve pictures of two labels by six artists, and a broken one."""
    folder, rows = tmp_path / "paintings", []
    folder.mkdir()
    for number in range(12):
        synthetic_photo(number, (64, 64 + number)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "style": ("dark", "light")[number % 2], "artist": f"artist {number // 2}"})
    (folder / "broken.png").write_bytes(b"no picture")
    pd.DataFrame([*rows, {"file_name": "broken.png", "style": "dark", "artist": "nobody"}]).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_no_group_is_on_two_sides_and_nested_choice_reads_every_row():
    data = clouds()
    found = fitting.unseen(data, ["nearest-mean", "gda"], folds=3)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
    metrics = found.metrics("artist", "clouds")
    assert metrics["accuracy"]["value"] > .8
    assert metrics["balanced_accuracy"]["low"] <= metrics["balanced_accuracy"]["value"] <= metrics["balanced_accuracy"]["high"]
    assert found.confusion().sum() == len(data)
    assert len(found.chosen) == 3
    # Labels that belong to artists and to nothing else cannot be read where artists are kept apart.
    lone = Labelled(data.names, np.array([f"l{name[-1]}" for name in data.groups]), data.groups, features=data.features, group="artist")
    assert fitting.unseen(lone, ["nearest-mean"]).right.mean() < .5


def test_metrics_of_known_readings():
    probabilities = np.array([[.9, .1], [.8, .2], [.4, .6], [.7, .3]])
    found = fitting.Unseen(probabilities, np.array([0, 0, 1, 1]), np.array(list("abcd")), ("x", "y"), ())
    metrics = found.metrics("artist", "four pictures")
    assert metrics["accuracy"]["value"] == .75
    assert metrics["recall"] == {"x": 1., "y": .5}
    assert metrics["kappa"] == pytest.approx(.5)
    assert found.confusion().tolist() == [[2, 0], [1, 1]]


def test_fit_and_eval_of_features(table, tmp_path, monkeypatch):
    done = probe("fit", "--data", table, "--label", "style", "--head", "nearest-mean,gda", "--out", tmp_path / "made")
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "made.json").read_text())
    assert card["label"] == "style"
    assert "unseen artists" in card["reliability"]
    assert set(card["candidates"]) == {"nearest-mean", "gda"}
    done = probe("eval", "--data", table, "--label", "style", "--head", "nearest-mean,gda", "--out", tmp_path / "checked")
    assert done.exit_code == 0, done.output
    assert "best of 2, nested" in done.output
    names = {path.name for path in (tmp_path / "checked").iterdir()}
    assert names == {"metrics.json", "metrics.csv", "readings.csv", "confusion.png", "reliability.png"}
    before = (tmp_path / "checked" / "metrics.json").read_bytes()
    again = probe("eval", "--data", table, "--label", "style", "--head", "gda", "--out", tmp_path / "checked")
    assert again.exit_code == 2
    assert "another check" in again.output
    assert (tmp_path / "checked" / "metrics.json").read_bytes() == before
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert probe("eval", "--data", table, "--label", "style", "--head", "nearest-mean").exit_code == 0
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"eval-style", "eval-style-2"}


def test_a_fixed_head_is_checked_on_groups_that_it_has_not_seen(table, tmp_path):
    done = probe("fit", "--data", table, "--label", "style", "--head", "nearest-mean", "--out", tmp_path / "made")
    assert done.exit_code == 0, done.output
    done = probe("eval", "--data", table, "--label", "style", "--head-file", tmp_path / "made", "--out", tmp_path / "fixed")
    assert done.exit_code == 2
    assert "every artist" in done.output
    data = clouds(seed=1)
    others = np.array([name if name < "artist 12" else f"other {name}" for name in data.groups])
    np.savez(tmp_path / "more.npz", features=data.features, style=data.labels, artist=others)
    done = probe("eval", "--data", tmp_path / "more.npz", "--label", "style", "--head-file", tmp_path / "made", "--out", tmp_path / "fixed")
    assert done.exit_code == 0, done.output
    assert "fitted to their artist" in done.output


def test_years_are_fitted_by_a_head_of_years(table, tmp_path):
    done = probe("fit", "--data", table, "--label", "year", "--head", "kernel-ridge", "--out", tmp_path / "years")
    assert done.exit_code == 0, done.output
    assert "mean error" in json.loads((tmp_path / "years.json").read_text())["reliability"]


def test_a_head_fitted_to_pictures_is_read_and_belongs_to_its_encoder(small, paintings, tmp_path):
    done = probe("fit", "--data", paintings, "--label", "style", "--encoder", small, "--head", "nearest-mean", "--out", tmp_path / "made",
                 "--folds", 3)
    assert done.exit_code == 0, done.output
    assert "broken.png" in done.output
    done = probe("read", paintings / "1.png", paintings / "broken.png", "--encoder", small, "--head-file", tmp_path / "made", "--json")
    assert done.exit_code == 0, done.output
    first, second = map(json.loads, done.stdout.splitlines())
    style = first["probes"]["style"]
    assert sum(style["style_probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert set(style["style_probabilities"]) == {"dark", "light"}
    assert "unseen artists" in style["reliability"]
    assert first["probes"]["period"]["reliability"] == "not validated"
    assert "broken.png" in second["error"]
    listed = probe("list", "--encoder", small, "--head-file", tmp_path / "made")
    assert listed.exit_code == 0, listed.output
    assert "not validated" in listed.output
    wrong = probe("read", paintings / "1.png", "--head-file", tmp_path / "made")
    assert wrong.exit_code == 2
    assert "--encoder" in wrong.output


@pytest.mark.parametrize(("name", "labels"), [("style", ("baroque", "ukiyo-e")), ("period", ("1650", "1880")),
                                              ("scene", ("portrait", "landscape"))])
def test_the_heads_that_ship_are_checked_by_what_they_read(paintings, tmp_path, monkeypatch, name, labels):
    monkeypatch.setenv("GUIDE_CACHE", str(tmp_path / "cache"))
    found = pd.read_csv(paintings / "metadata.csv")
    found["label"] = [labels[number % 2] for number in range(len(found))]
    found.to_csv(paintings / "metadata.csv", index=False)
    done = probe("eval", "--data", paintings, "--label", "label", "--head-file", card.FOLDER / f"{name}.json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "names no works" in done.output
    rows = pd.read_csv(tmp_path / "out" / "readings.csv")
    assert len(rows) == 12
    read = probe("read", paintings / "3.png", "--json")
    said, row = json.loads(read.stdout)["probes"][name], rows[rows["name"] == "3.png"].iloc[0]
    if name == "period":
        assert row["read_as"] == pytest.approx(said["year"], abs=.1)
    else:
        assert row["probability"] == pytest.approx(max(said[f"{name}_probabilities"].values()), abs=1e-3)


def test_a_span_of_years_ends_where_the_heads_years_do():
    row = {"year": 1850., "year_low": 1673.4, "year_high": 1957.5, "year_first": 1450., "year_last": 1940., "reliability": "-"}
    assert words(row) == "1850 (1673-1940 or later)"
    assert words(row | {"year_low": 1432.5, "year_high": 1500.}) == "1850 (1450 or earlier-1500)"
    assert words({"year": 1850., "year_low": 1673., "year_high": 1957.}) == "1850 (1673-1957)"


def test_what_read_prints_stays_within_the_years_that_the_card_names(paintings):
    done = probe("read", paintings)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in probe("read", paintings, "--json").stdout.splitlines()]
    beyond = [row["probes"]["period"]["year_high"] > 1940 for row in rows if "probes" in row]
    assert done.output.count("-1940 or later)") == sum(beyond)
    for first, last in re.findall(r"\((\d{4})(?: or earlier)?-(\d{4})(?: or later)?\)", done.output):
        assert 1450 <= int(first) <= int(last) <= 1940


def test_a_head_of_another_width_names_the_widths_there_are(small, paintings, table, tmp_path):
    assert probe("fit", "--data", table, "--label", "style", "--head", "nearest-mean", "--out", tmp_path / "made").exit_code == 0
    done = probe("read", paintings / "1.png", "--head-file", tmp_path / "made")
    assert done.exit_code == 2
    assert "reads 12 values" in done.output
    assert "gives 256, 3264 with its layers" in " ".join(done.output.split())


def test_explain_writes_a_picture_and_a_page(small, paintings, tmp_path):
    done = probe("explain", paintings / "1.png", "--probe", "origin", "--encoder", small, "--data", paintings, "--data-label", "style",
                 "--out", tmp_path / "why")
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in (tmp_path / "why").iterdir()} == {".png", ".html"}
    assert "chance" in done.output
    assert "Nearest labelled pictures" in done.output


def test_years_are_drawn_and_rows_of_features_are_called_so(table, tmp_path):
    done = probe("eval", "--data", table, "--label", "year", "--head", "ordinal", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "out" / "years.png").size[0] > 300
    assert "90 rows of features, year" in " ".join(done.output.split())
    rows = pd.read_csv(tmp_path / "out" / "readings.csv")
    assert set(rows["year"]) == {1500, 1600}, "the true years, beside those that were read"
    assert rows["read_as"].between(1450, 1650).all()


@pytest.mark.parametrize("label", ["name", "group", "read_as", "probability"])
def test_a_label_called_as_a_column_of_the_readings_takes_nothing_from_them(label, tmp_path):
    data = clouds()
    np.savez(tmp_path / "data.npz", features=data.features, artist=data.groups, **{label: data.labels})
    done = probe("eval", "--data", tmp_path / "data.npz", "--label", label, "--head", "gda", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "out" / "readings.csv")
    assert list(rows) == ["name", "group", f"true_{label}", "read_as", "probability"]
    assert set(rows[f"true_{label}"]) == set(data.labels) >= set(rows["read_as"])
    assert rows["probability"].between(0, 1).all()


def test_a_head_of_noise_says_that_it_reads_by_chance_and_no_groups_are_told_in_words(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", f=rng.normal(size=(72, 8)), label=np.arange(72) % 3)
    done = probe("fit", "--data", tmp_path / "noise.npz", "--head", "nearest-mean", "--out", tmp_path / "made")
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "made.json").read_text())["reliability"]
    assert said.endswith("no better than chance (0.33)")
    assert "on 72 rows of features of noise, artists not kept apart, ECE" in said
    assert "(95 % over rows of features 0." in said
    done = probe("eval", "--data", tmp_path / "noise.npz", "--head", "nearest-mean", "--out", tmp_path / "out")
    assert "nearest-mean reads label no better than chance" in " ".join(done.output.split())


def test_labels_of_python_objects_are_refused_in_words(tmp_path):
    np.savez(tmp_path / "objects.npz", f=np.eye(4), label=np.array(["a", "b", None, 1], dtype=object))
    done = probe("fit", "--data", tmp_path / "objects.npz")
    assert done.exit_code == 2
    assert "Python objects under 'label'" in " ".join(done.output.split())
    assert "allow_pickle" not in done.output


def test_a_broken_picture_is_named_once(paintings):
    done = probe("read", paintings / "broken.png")
    assert done.exit_code == 2
    assert " ".join(done.output.split()).count("broken.png") == 1


def test_no_name_breaks_a_line_of_the_terminal_or_moves_its_cursor(tmp_path):
    synthetic_photo(1, (64, 64)).save(tmp_path / "a\nb\x1b[2J.png")
    (tmp_path / "c\nd.png").write_bytes(b"no picture")
    said = probe("read", tmp_path).stdout
    assert "a\ufffdb\ufffd[2J.png" in said
    assert "c\ufffdd.png" in said
    assert "\x1b[2J" not in said
    assert json.loads(probe("read", tmp_path, "--json").stdout.splitlines()[0])["image"].endswith("a\nb\x1b[2J.png")


@pytest.mark.parametrize("label", ["figures", "indoor"])
def test_what_read_prints_of_a_scene_can_be_explained(paintings, tmp_path, label):
    done = probe("explain", paintings / "1.png", "--probe", "scene", "--label", label, "--out", tmp_path / "why")
    assert done.exit_code == 0, done.output
    said = json.loads(probe("read", paintings / "1.png", "--json").stdout)["probes"]["scene"][label]
    found = re.search(rf"reads as {label} with probability (\d\.\d\d)", " ".join(done.output.split()))
    assert float(found[1]) == pytest.approx(said, abs=.02)


def test_damage_has_one_map_and_no_method(paintings):
    done = probe("explain", paintings / "1.png", "--probe", "artifacts", "--method", "gradient")
    assert done.exit_code == 2
    assert "no method gradient" in " ".join(done.output.split())


@pytest.mark.parametrize(("arguments", "said"), [
    (["fit", "--data", "nowhere"], "no folder or table"),
    (["fit", "--data", "DATA", "--label", "style", "--head", "gdaa"], "no head 'gdaa'"),
    (["fit", "--data", "DATA", "--label", "stile"], "no column 'stile'"),
    (["fit", "--data", "DATA", "--label", "style", "--head", "ordinal"], "are no years"),
    (["fit", "--data", "DATA", "--label", "style", "--least", "99"], "lower --least"),
    (["fit", "--data", "DATA", "--label", "style", "--words"], "no encoder"),
    (["fit", "--data", "DATA", "--label", "style", "--where", "style=rococo"], "one label"),
    (["read", "gone.png"], "no folder or image"),
    (["explain", "gone.png", "--probe", "mood"], "no probe 'mood'"),
])  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_two(table, arguments, said, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = ["--encoder", str(small)] if arguments[0] != "fit" else []
    done = probe(*(table if argument == "DATA" else argument for argument in arguments), *more)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output
