"""Labelled data as people have it, and what is said where it lacks something."""
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probes import labelled, years
from probes.errors import UserError


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (*path.stem.encode()[:2], 0, 0)[:3]).save(path)  # another picture for another name


def test_subfolders_are_labels_and_loose_pictures_are_noted(tmp_path):
    for name in ("a/1.png", "a/deep/2.png", "b/3.png", "loose.png"):
        picture(tmp_path / name)
    found = labelled.read(tmp_path)
    assert found.names.tolist() == ["a/1.png", "a/deep/2.png", "b/3.png"]
    assert found.labels.tolist() == ["a", "a", "b"]
    assert len(set(found.groups)) == 3
    assert any("in no subfolder: 1" in note for note in found.notes)
    assert any("--group" in note for note in found.notes)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_names_files_labels_and_artists(tmp_path, name):
    rows = [{"file_name": "1.png", "style": "baroque", "artist": "x", "split": "test"},
            {"file_name": "2.png", "style": "rococo", "artist": "", "split": "test"},
            {"file_name": "2.png", "style": "", "artist": "y", "split": "test"},
            {"file_name": "gone.png", "style": "rococo", "artist": "y", "split": "test"},
            {"file_name": "1.png", "style": "cubism", "artist": "z", "split": "guide"}]
    picture(tmp_path / "1.png")
    picture(tmp_path / "2.png")
    if name.endswith("csv"):
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    found = labelled.read(tmp_path, "style", where=["split=test"])
    assert found.labels.tolist() == ["baroque", "rococo"]
    assert found.group == "artist"
    assert found.groups.tolist() == ["x", "row 1"]
    notes = " ".join(found.notes)
    assert "without artist" in notes
    assert "without style: 1" in notes
    assert "gone.png" in notes
    with pytest.raises(UserError, match=r"no column 'styl'.*style"):
        labelled.read(tmp_path, "styl")
    with pytest.raises(UserError, match=r"no column 'splitt'.*split"):
        labelled.read(tmp_path, "style", where=["splitt=test"])
    with pytest.raises(UserError, match="column=value"):
        labelled.read(tmp_path, "style", where=["split"])


def test_a_picture_counts_once_and_not_at_all_under_two_labels(tmp_path):
    for name in ("1.png", "2.png", "3.png", "4.png"):
        picture(tmp_path / name)
    (tmp_path / "copy.png").write_bytes((tmp_path / "2.png").read_bytes())
    rows = [("1.png", "baroque"), ("1.png", "ukiyo-e"), ("2.png", "baroque"), ("2.png", "baroque"), ("copy.png", "baroque"),
            ("3.png", "ukiyo-e"), ("4.png", "baroque")]
    pd.DataFrame(rows, columns=["file_name", "label"]).to_csv(tmp_path / "metadata.csv", index=False)
    found = labelled.read(tmp_path)
    assert found.names.tolist() == ["2.png", "3.png", "4.png"]
    assert "left out, 1 pictures that stand under several labels: 1.png (baroque, ukiyo-e)" in found.notes
    assert "counted once, rows of a picture that is there already: 2" in found.notes
    pd.DataFrame(rows[:2], columns=["file_name", "label"]).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match=r"every picture .* 1.png \(baroque, ukiyo-e\)"):
        labelled.read(tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_malformed_row_is_left_out_and_named(tmp_path, name):
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    lines = {"metadata.csv": ["file_name,label", "0.png,a", "1.png", "2.png,b", "2.png,b,c"],
             "metadata.jsonl": ['{"file_name": "0.png", "label": "a"}', "{", '{"file_name": "2.png", "label": "b"}', "[]"]}[name]
    (tmp_path / name).write_text("\n".join(lines))
    found = labelled.read(tmp_path)
    assert found.names.tolist() == ["0.png", "2.png"]
    note = next(note for note in found.notes if "malformed" in note)
    odd = (3, 5) if name.endswith("csv") else (2, 4)
    assert [line for line in (2, 3, 4, 5) if f"line {line} " in note] == list(odd)


def test_features_without_labels_are_named(tmp_path):
    np.savez(tmp_path / "features.npz", features=np.eye(4, dtype=np.float32))
    with pytest.raises(UserError, match="no column 'style' for the label"):
        labelled.read(tmp_path / "features.npz", "style")


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_tables_of_features_are_normalised_and_nan_is_left_out(tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    features = np.array([[3, 4], [0, 2], [np.nan, 1], [0, 0]], np.float32)
    labels = np.array(["a", "b", "a", "b"])
    path = tmp_path / f"features.{kind}"
    if kind == "npz":
        np.savez(path, vectors=features, label=labels)
    else:
        pd.DataFrame({"vectors": list(features), "label": labels}).to_parquet(path)
    found = labelled.read(path)
    np.testing.assert_allclose(found.features, [[.6, .8], [0, 1]])
    assert "row 2, row 3" in found.notes[-1]


def test_a_row_of_another_width_is_named(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    pd.DataFrame({"f": [np.ones(3), np.ones(3), np.ones(2)], "label": list("aba")}).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(UserError, match="row 2 has 2 values, most have 3"):
        labelled.read(tmp_path / "f.parquet")


def test_what_cannot_be_fitted_is_told_in_a_sentence(tmp_path):
    np.savez(tmp_path / "nan.npz", f=np.full((2, 3), np.nan), label=np.array(["a", "b"]))
    np.savez(tmp_path / "none.npz", f=np.ones((2, 3)), label=np.array(["", "nan"]))
    np.savez(tmp_path / "one.npz", f=np.ones((2, 3)), label=np.array(["a", "a"]))
    np.savez(tmp_path / "short.npz", f=np.ones((2, 3)), label=np.array(["a"]))
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "x.txt").write_text("no")
    (tmp_path / "numbers.csv").write_text("f0,f1,label\n.1,.2,a\n.3,.4,b\n")
    for name, said in (("nan.npz", "all features"), ("none.npz", "nothing is labelled"), ("short.npz", "each row needs one"),
                       ("text.npz", "cannot be read"), ("numbers.csv", "features are read from .parquet and .npz"),
                       ("x.txt", "no table of labels"), ("gone", "no folder or table")):
        with pytest.raises(UserError, match=said):
            labelled.read(tmp_path / name)
    with pytest.raises(UserError, match="all 2 rows have one label, a"):
        labelled.read(tmp_path / "one.npz").several()
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(UserError, match="nothing labels"):
        labelled.read(tmp_path / "flat")


@pytest.mark.parametrize(("text", "expected"), [
    ("1650", 1650), ("1650.0", 1650), ("about 1650", 1650), ("c.1650", 1650), ("1450-55", 1452.5), ("1650-5", 1652.5),
    ("1499\u20131501", 1500), ("1650/51", 1650.5), ("1801-05-12", 1801), ("between 1600 and 1610", 1605),
    ("-300", None), ("300", None), ("99999", None),
    ("1300 BC", None), ("300 b.c.", None), ("2200", None), ("nan", None), ("inf", None), ("XV century", None), ("12.05.1801", 1801),
])  # fmt: skip
def test_years_as_people_write_them(text, expected):
    np.testing.assert_equal(years.year(text), np.nan if expected is None else expected)


def test_labels_become_years_and_rare_ones_are_left_out():
    labels = np.array(["1650", "1601 to 1650", "before 1300", "XV century", "99999"])
    data = labelled.Labelled(labels, labels, labels, features=np.ones((5, 1), np.float32))
    np.testing.assert_allclose(data.years(), [1650, 1625.5, 1300, np.nan, np.nan])
    dated = data.dated()
    assert dated.labels.tolist() == ["1650", "1601 to 1650", "before 1300"]
    assert dated.notes == ("left out, no year from 1000 to 2100: XV century (XV century), 99999 (99999)",)
    with pytest.raises(UserError, match=r"XV century, 99999|99999, XV century"):
        data.take(np.array([3, 4])).dated()
    more = labelled.Labelled(*[np.array(list("aabbc"))] * 3, features=np.ones((5, 1), np.float32)).several(2)
    assert more.labels.tolist() == list("aabb")
    assert more.notes == ("left out, fewer than 2 examples: c",)
