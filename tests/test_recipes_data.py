"""Folders of images as museums have them: tables of three kinds, class folders, shards, missing columns, broken files, splits."""
import errno
import io
import random
import re
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import picture
from PIL import Image

from probes import atomic
from probes.errors import UserError
from probes.judges import STYLES
from recipes import captions, data, metadata, options
from recipes.measure_agreement import ordered

RNG = np.random.default_rng(0)


def images(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(RNG, (40, 30)).save(folder / name)


def table(folder, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / "metadata.csv", index=False)


def artists(count: int, each: int, style: str = "baroque") -> dict:
    names = [f"artist {k // each}" for k in range(count * each)]
    return {"file_name": [f"{style}-{k}.jpg" for k in range(count * each)], "style": [style] * count * each, "artist": names}


@pytest.mark.parametrize("write", [
    lambda frame, path: frame.to_csv(path.with_suffix(".csv"), index=False),
    lambda frame, path: frame.to_json(path.with_suffix(".jsonl"), orient="records", lines=True),
    lambda frame, path: pytest.importorskip("pyarrow") and frame.to_parquet(path.with_suffix(".parquet")),
], ids=["csv", "jsonl", "parquet"])
def test_three_kinds_of_table_in_subfolders_named_after_splits(tmp_path, write):
    for split, style in (("train", "Art Nouveau"), ("validation", "baroque"), ("test", "rococo")):
        images(tmp_path / split, "deep/a.png")
        write(pd.DataFrame({"file_name": ["deep/a.png"], "label": [style], "year": ["about 1650"]}), tmp_path / split / "metadata")
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert stored.shape == (3, 144, 144, 3)
    by_name = rows.set_index("file_name")
    assert by_name["split"].to_dict() == {"train/deep/a.png": "guide", "validation/deep/a.png": "judge", "test/deep/a.png": "test"}
    assert by_name.loc["train/deep/a.png", "style"] == "art-nouveau"
    assert rows["year"].tolist() == [1650] * 3
    assert (rows[["genre", "artist", "title"]] == "").all().all()


def test_what_a_table_leaves_out_and_words_that_are_not_known_are_told_once(tmp_path, capsys):
    images(tmp_path, *[f"{k}.jpg" for k in range(6)], "hall/forgotten.png")
    (tmp_path / "notes.txt").write_text("no image")
    styles = ["baroque", "Impressionist", "impressionist", "", "realist", "rococo"]
    genres = ["portrait", "Still Life", "abstract", "landscapes", "", ""]
    years = ["1650-55", "17th century", "", "1702", "?", "1888.0"]
    table(tmp_path, file_name=[f"{k}.jpg" for k in range(6)], style=styles, genre=genres, year=years)
    data.paintings(tmp_path, tmp_path / "cache")
    said = capsys.readouterr().out
    assert f"Images of {tmp_path} that are in no row of its metadata, left out: 1, the first is hall/forgotten.png." in said
    assert "1 of 6 images have no style:" in said
    assert "2 of 6 images count as undated: no year in 1000 to 2100 is read in '17th century'." in said
    assert "Styles that judges and heads do not know, learned by the CLIP and the denoiser alone: impressionist (2), realist (1)." in said
    assert "Genres that are not known and go into no caption: landscapes (1)." in said
    data.paintings(tmp_path, tmp_path / "cache")
    assert not capsys.readouterr().out
    images(tmp_path / "plain", "train/baroque/a.jpg", "test/rococo/b.jpg")
    data.paintings(tmp_path / "plain", tmp_path / "other")
    assert "known" not in capsys.readouterr().out
    many = pd.DataFrame({"style": [f"style-{k}" for k in range(15)], "genre": [""] * 15, "unread_year": [""] * 15})
    assert [sentence.endswith(" and 3 more.") for sentence in metadata.unknown(many)] == [True]


def test_columns_in_capitals_and_paths_as_windows_writes_them(tmp_path):
    """A column `Style` that went unseen would make styles of the halls."""
    images(tmp_path, "hall 1/a.JPG", "hall 1/b.jpg", "hall 2/c.jpg")
    names = [r"hall 1\a.JPG", " hall 1/b.jpg", "./hall 2/c.jpg"]
    table(tmp_path, **{"File_Name": names, " Style": ["Baroque ", "Ukiyo_e", "Art  Nouveau"]})
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert len(stored) == 3
    assert rows["file_name"].tolist() == ["hall 1/a.JPG", "hall 1/b.jpg", "hall 2/c.jpg"]
    assert rows["style"].tolist() == ["baroque", "ukiyo-e", "art-nouveau"]
    table(tmp_path, file_name=["hall 1/a.JPG"], style=["baroque"], Style=["rococo"])
    with pytest.raises(UserError, match="two columns named style"):
        metadata.read(tmp_path)


def test_class_folders_without_any_table(tmp_path):
    images(tmp_path, "train/baroque/a.jpg", "train/rococo/a.jpg", "test/baroque/b.jpg", "test/.hidden/c.jpg")
    rows = metadata.read(tmp_path)
    assert rows["style"].tolist() == ["baroque", "baroque", "rococo"]
    assert rows["split"].tolist()[0] == "test"
    images(tmp_path / "flat", "ukiyo-e/a.jpg", "ukiyo-e/b.jpg")
    assert set(metadata.read(tmp_path / "flat")["style"]) == {"ukiyo-e"}


def test_class_folders_beside_a_table_that_knows_no_style(tmp_path):
    images(tmp_path, "baroque/a.jpg", "rococo/a.jpg")
    table(tmp_path, file_name=["baroque/a.jpg", "rococo/a.jpg"], artist=["x", "y"])
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert rows["style"].tolist() == ["baroque", "rococo"]
    assert not np.array_equal(stored[0], stored[1]), "the same file name in two folders is two images"


def test_shards_know_their_images_by_path_or_by_bare_name(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("a.jpg", "inside/b.jpg"):
            content = io.BytesIO()
            picture(RNG).save(content, "JPEG")
            entry = tarfile.TarInfo(name)
            entry.size = content.tell()
            content.seek(0)
            tar.addfile(entry, content)
    table(tmp_path, file_name=["b.jpg", "a.jpg"], style=["baroque"] * 2)
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert rows["file_name"].tolist() == ["b.jpg", "a.jpg"]
    assert stored.any((1, 2, 3)).all()


@pytest.mark.parametrize(("columns", "told"), [
    ({"file": ["a.jpg"], "style": ["x"]}, "no column file_name .* its columns are file, style"),
    ({"file_name": ["a.jpg"], "artist": ["x"]}, "tells no styles: add a column style"),
    ({"file_name": ["a.jpg", "a.jpg"], "style": ["x", "y"]}, "1 file names stand twice .* the first is a.jpg"),
    ({"file_name": ["a.jpg"], "style": ["x"], "split": ["holdout"]}, "a split 'holdout': use guide, judge and test, or train"),
    ({"file_name": ["a.jpg"], "style": ["x"], "split": ["test"]}, "no images of split guide"),
    ({"file_name": [], "style": []}, "has no rows"),
])
def test_what_a_table_lacks_is_told_in_a_sentence(tmp_path, columns, told):
    table(tmp_path, **columns)
    with pytest.raises(UserError, match=told):
        metadata.read(tmp_path)


def test_a_folder_with_nothing_in_it_is_told(tmp_path):
    with pytest.raises(UserError, match=r"neither metadata\.csv, \.jsonl or \.parquet nor images"):
        metadata.read(tmp_path)


def test_broken_and_missing_files_are_named_counted_and_left_out(tmp_path, capsys):
    images(tmp_path, "0.jpg", "3.jpg")
    (tmp_path / "1.jpg").write_bytes(b"no image")
    (tmp_path / "2.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:200])
    table(tmp_path, file_name=[f"{k}.jpg" for k in (3, 1, 2, 9, 0)], style=["baroque"] * 5, year=[3, 1, 2, 9, 0])
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    said = capsys.readouterr().out
    assert "1 of 5 images that the metadata names are not there and are left out, the first is 9.jpg." in said
    assert "2 of 5 images cannot be read and are left out:" in said
    assert "  1.jpg: no image of a kind that Pillow reads" in said
    assert rows["file_name"].tolist() == ["3.jpg", "0.jpg"]
    for row, name in enumerate(rows["file_name"]):
        assert np.array_equal(stored[row], data._square(Image.open(tmp_path / name), 144))
    again, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert np.array_equal(stored, again)
    assert len(rows) == 2
    table(tmp_path, file_name=["0.jpg"], style=["baroque"])
    with pytest.raises(UserError, match="from another table"):
        data.paintings(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(("name", "change"), [
    ("16-bit.png", lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
    ("16-bit.tif", lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
    ("grey.png", lambda grey: grey), ("alpha.png", lambda grey: grey.convert("LA")), ("colours.png", lambda grey: grey.convert("P")),
    ("ink.tif", lambda grey: grey.convert("RGB").convert("CMYK"))])
def test_images_of_every_mode_are_stored_as_they_look(tmp_path, name, change):
    grey = Image.fromarray(RNG.integers(0, 256, (6, 6), dtype=np.uint8)).resize((144, 144), Image.Resampling.NEAREST)
    (tmp_path / "baroque").mkdir()
    change(grey).save(tmp_path / "baroque" / name)
    stored, _ = data.paintings(tmp_path, tmp_path / "cache")
    assert np.abs(stored[0].astype(int) - np.asarray(grey)[..., None]).max() <= 1


def test_what_is_transparent_is_white_and_floats_are_left_out(tmp_path, capsys):
    (tmp_path / "baroque").mkdir()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "baroque" / "clear.png")
    Image.fromarray(np.full((20, 20), .5, np.float32)).save(tmp_path / "baroque" / "float.tif")
    stored, rows = data.paintings(tmp_path, tmp_path / "cache")
    assert rows["file_name"].tolist() == ["baroque/clear.png"]
    assert (stored == 255).all()
    assert "baroque/float.tif: its pixels are floating-point numbers" in capsys.readouterr().out


def test_only_broken_files_end_it(tmp_path):
    table(tmp_path, file_name=["a.jpg", "b.jpg"], style=["baroque"] * 2)
    with pytest.raises(UserError, match=r"None of the 2 images .* the first, a\.jpg: not in the folder"):
        data.paintings(tmp_path, tmp_path / "cache")


def test_splits_that_are_not_there_are_made_whole_artists_at_a_time_whatever_the_order():
    frame = pd.concat([pd.DataFrame(artists(60, 5)), pd.DataFrame(artists(40, 3, "rococo")).assign(artist=lambda f: "r" + f["artist"])])
    frame = frame.reset_index(drop=True)
    made = frame.assign(split=metadata.divided(frame))
    assert metadata.shared_artists(made) == []
    for style in ("baroque", "rococo"):
        shares = made["split"][made["style"] == style].value_counts(normalize=True)
        assert shares.to_dict() == pytest.approx(metadata.SHARES, abs=.03)
    shuffled = frame.sample(frac=1, random_state=1)
    assert metadata.divided(shuffled).sort_index().equals(made["split"])


def test_only_the_missing_split_is_made():
    frame = pd.DataFrame({**artists(50, 2), "split": ["test"] * 20 + ["train"] * 80})
    made = metadata.divided(frame)
    assert (made[:20] == "test").all()
    assert made[20:].value_counts().to_dict() == pytest.approx({"guide": 80 * .6 / .87, "judge": 80 * .27 / .87}, abs=2)
    assert metadata.shared_artists(frame.assign(split=made)) == []


def test_artists_in_two_splits_are_told(tmp_path, capsys):
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table(tmp_path, file_name=["a.jpg", "b.jpg", "c.jpg"], style=["x"] * 3, artist=["monet"] * 3, split=["guide", "judge", "test"])
    data.paintings(tmp_path, tmp_path / "cache")
    assert "1 artists are in more than one split, the first is monet" in capsys.readouterr().out


def test_years_are_read_as_probes_read_them_and_spans_as_their_middle(tmp_path):
    values = ["1650", "1650.0", "1650-55", "1601 to 1650", "about 1650", "c. 980", "lost", None]
    table(tmp_path, file_name=[f"{k}.jpg" for k in range(len(values))], style=["baroque"] * len(values), year=values)
    rows = metadata.read(tmp_path)
    np.testing.assert_equal(rows["year"].to_numpy(), [1650, 1650, 1652.5, 1625.5, 1650, np.nan, np.nan, np.nan])
    rng = random.Random(0)
    told = {word for _ in range(200) for word in captions.caption(rows.iloc[2], rng).split() if word[0].isdigit()}
    assert told == {"17th", "1652"}


def test_a_random_crop_is_a_window_of_its_image_and_mirrored_half_of_the_time():
    """Every pixel holds its image, row and column, so that a crop tells where it comes from."""
    height = width = 12
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pictures = torch.stack([torch.stack([torch.full_like(x, k), y, x]) for k in range(400)]).float()
    crops = data.random_crop(pictures, 5, torch.Generator().manual_seed(0))
    assert crops.shape == (400, 3, 5, 5)
    assert torch.equal(crops[:, 0], torch.arange(400.)[:, None, None].expand(-1, 5, 5))
    assert (crops[:, 1].diff(dim=1) == 1).all()
    steps = crops[:, 2].diff(dim=2)
    assert (steps.abs() == 1).all()
    assert (steps == steps[:, :1, :1]).all()
    assert 160 < (steps[:, 0, 0] < 0).sum() < 240
    assert set(crops[:, 1, 0, 0].tolist()) == set(range(8))
    assert set(crops[:, 2].flatten(1).amin(1).tolist()) == set(range(8))


def test_images_kept_as_a_tensor_give_the_same_batches(tmp_path):
    stored = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    rows = np.array([4, 0, 4])
    assert torch.equal(data.batch(torch.from_numpy(stored), rows), data.batch(stored, rows))
    assert data.near(stored, torch.device("cpu")) is stored


def test_few_images_are_drawn_more_than_once_and_many_are_not():
    generator = torch.Generator().manual_seed(0)
    assert len(data.draw(torch.ones(3), 10, generator)) == 10
    assert len(set(data.draw(torch.ones(10), 10, generator).tolist())) == 10


def test_balance_by_hand():
    """Style counts 3 and 1, artist counts 2, 1 and (unknown, the median of 2, 1, 1) 1.5."""
    frame = pd.DataFrame({"style": ["a", "a", "a", "b"], "artist": ["x", "x", "", "y"]})
    expected = [3 ** -.5 / 2, 3 ** -.5 / 2, 3 ** -.5 / 2, 1.]
    assert data.balance(frame, .5, 1.) == pytest.approx(expected)


def test_agreement_reads_heads_that_learned_few_styles():
    """A sample of paintings has some of the judges' styles; the head fitted to it knows no others."""
    found = ordered(torch.tensor([[0.25, 0.75]]), ("cubism", "baroque"))
    assert found.shape == (1, len(STYLES))
    assert found[0, STYLES.index("baroque")] == 0.75
    assert found.sum() == 1


def test_everything_ends_as_the_recipe_that_failed(tmp_path):
    """A recipe says itself what is wrong; no traceback of the calling process follows."""
    (tmp_path / "metadata.csv").write_text("file_name,style\n")
    arguments = ["-m", "recipes.verdict", "--data", str(tmp_path), "--work", str(tmp_path)]
    code = f"from recipes import everything; everything.run(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_disk_without_room_is_told_before_anything_is_decoded(tmp_path, monkeypatch):
    images(tmp_path, "baroque/a.jpg")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(data.os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"has no room for 0 MB .*No space left on device\): free some, or choose another"):
        data.paintings(tmp_path, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_cache_is_named(tmp_path):
    images(tmp_path, "baroque/a.jpg")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "paintings.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"paintings\.npy is damaged .* delete it and start again"):
        data.paintings(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(("name", "content"), [
    ("metadata.csv", "file_name,style\né.jpg,x\n".encode("latin-1")), ("metadata.csv", b'file_name,style\na.jpg,"x\nb.jpg,y,z\n'),
    ("metadata.parquet", b"no table"), ("metadata.jsonl", b'{"file_name": "a.jpg"\n')])
def test_a_table_that_cannot_be_read_is_told_with_what_to_do(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as a table in UTF-8 .*mend it, or save it anew as metadata\.csv"):
        metadata.read(tmp_path)


def test_nothing_is_judged_by_one_style(tmp_path):
    from recipes import everything
    names = [f"{split}/{style}/{k}.jpg" for split in ("train", "validation", "test") for style in ("baroque", "my own") for k in range(2)]
    images(tmp_path / "one", *names)
    assert not everything.judged(tmp_path / "one", tmp_path / "work")
    images(tmp_path / "two", *names, "train/rococo/0.jpg")
    assert everything.judged(tmp_path / "two", tmp_path / "other")


@pytest.mark.parametrize(("error", "told"), [
    (UserError("Cannot write a: b; choose another folder."), r"^Cannot write a: b; choose another folder\.$"),
    (OSError(errno.ENOSPC, "No space left on device", "a/b"), "Cannot write a/b: No space left on device; free some space"),
    (FloatingPointError("101 steps without a finite gradient"), "101 steps without a finite gradient"),
])
def test_what_ends_a_recipe_is_one_sentence_and_exit_code_2(monkeypatch, capsys, error, told):
    def main():
        raise error
    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as ended:
        options.start(main)
    assert ended.value.code == 2
    assert re.search(told, capsys.readouterr().err)


@pytest.mark.parametrize("name", ["file/a.json", "folder"])  # cannot be begun; cannot be moved into its place
def test_results_that_cannot_be_written_name_the_file_and_no_option_of_another_command_line(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as ended:
        options.start(lambda: atomic.write_text(tmp_path / name, "{}"))
    assert ended.value.code == 2
    assert re.fullmatch(rf"Cannot write {re.escape(str(tmp_path / name))}: [^-]*; [^-]*choose another folder\.\n", capsys.readouterr().err)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"The device 'cuda' is not to be had here .* try --device cpu"):
            options.accelerator("cuda")
    with pytest.raises(UserError, match="The device 'tpu' is not to be had here"):
        options.device("tpu")
    assert options.device("cpu").type == "cpu"
