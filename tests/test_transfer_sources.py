"""Which file is which when a folder is gone on with: inputs keep their names, and a file that has changed is refused."""
import json
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import app
from guide.transfer.sources import Sources

SHORT = ("--style", "cubism", "--steps", "1", "--size", "40", "--out")


def run(*arguments):
    return CliRunner().invoke(app, ["transfer", *map(str, arguments)])


@pytest.fixture
def photos(tmp_path):
    """Two photographs of the same name in two folders, plain in colour."""
    for folder, colour in (("d1", (200, 60, 40)), ("d2", (40, 60, 200))):
        (tmp_path / folder).mkdir()
        Image.linear_gradient("L").resize((40, 40)).convert("RGB").save(tmp_path / folder / "a.png")
        with Image.open(tmp_path / folder / "a.png") as picture:
            Image.blend(picture, Image.new("RGB", (40, 40), colour), .5).save(tmp_path / folder / "a.png")
    return tmp_path


def agree(out):
    """Every picture was painted from the photograph that the report shows above it."""
    read = json.loads((out / "record.json").read_text())["rows"]
    shown = {row["input"]: row["image"] for row in read if row["variant"] == "input"}
    for row in read:
        if row["variant"] == "transferred":
            with Image.open(out / row["image"]) as picture:
                said = json.loads(picture.text["guide"])["input_sha256"]
            assert said == sha256(Path(shown[row["input"]]).read_bytes()).hexdigest()
    return shown


@pytest.mark.parametrize("older", [False, True])
def test_an_input_added_in_front_of_another_takes_no_name_and_no_picture_from_it(photos, older):
    out = photos / "out"
    assert run(photos / "d1" / "a.png", *SHORT, out).exit_code == 0
    if older:  # as of before files were recorded
        record = json.loads((out / "record.json").read_text())
        assert record.pop("files")
        (out / "record.json").write_text(json.dumps(record))
    done = run(photos / "d2" / "a.png", photos / "d1" / "a.png", *SHORT, out)
    assert done.exit_code == 0, done.output
    assert agree(out) == {"a": str(photos / "d1" / "a.png"), "a-2": str(photos / "d2" / "a.png")}


def test_a_folder_may_gain_a_file_that_comes_before_one_of_its_own_and_its_photographs_may_move(photos):
    out, folder = photos / "out", photos / "d1"
    with Image.open(folder / "a.png") as picture:
        picture.save(folder / "a.webp", lossless=True)
    (folder / "a.png").unlink()
    assert run(folder, *SHORT, out).exit_code == 0
    with Image.open(photos / "d2" / "a.png") as picture:
        picture.save(folder / "a.bmp")
    assert run(folder, *SHORT, out).exit_code == 0
    assert agree(out) == {"a": str(folder / "a.webp"), "a-2": str(folder / "a.bmp")}
    folder.rename(photos / "moved")
    before = (out / "seed-0000-a.png").stat().st_mtime_ns
    assert run(photos / "moved", *SHORT, out).exit_code == 0
    assert set(agree(out)) == {"a", "a-2"}
    assert (out / "seed-0000-a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("which", ["photo", "reference", "region"])
@pytest.mark.parametrize("older", [False, True])
def test_a_file_that_changed_between_two_calls_is_refused(photos, which, older):
    files = {"photo": photos / "d1" / "a.png", "reference": photos / "d2" / "a.png", "region": photos / "mask.png"}
    Image.new("L", (40, 40), 255).save(files["region"])
    arguments = (files["photo"], "--reference", files["reference"], "--region", files["region"], "--steps", "1", "--out", photos / "out")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert run(*arguments).exit_code == 0
    if older:
        record = json.loads((photos / "out" / "record.json").read_text())
        del record["files"]
        (photos / "out" / "record.json").write_text(json.dumps(record))
    with Image.open(files[which]) as picture:
        changed = picture.copy()
    changed.putpixel((1, 1), 3 if which == "region" else (1, 2, 3))
    changed.save(files[which])
    done = run(*arguments)
    if older and which != "photo":  # nothing says what the file was; a picture says what it was painted from
        assert done.exit_code == 0, done.output
    else:
        assert done.exit_code == 2, done.output
        said = "".join(done.output.split())
        assert f"{which.replace('photo', 'photograph')}{files[which]}haschanged" in said
        assert "--out" in said


@pytest.mark.parametrize("inside", ["", "results"])
@pytest.mark.parametrize("command", ["transfer", "invert"])
def test_a_run_does_not_take_what_it_wrote_into_its_own_folder_of_photographs(photos, command, inside):
    short = {"transfer": (*SHORT[:-1], "--film", "gif"), "invert": ("--steps", "1")}[command]
    arguments = [command, str(photos / "d1"), *short, "--out", str(photos / "d1" / inside)]
    mine = {"seed-0000-mine"} if inside else set()  # one's own picture of such a name, which a new run's folder may not hold
    for name in mine:
        (photos / "d1" / f"{name}.png").write_bytes((photos / "d1" / "a.png").read_bytes())
    for _ in range(2):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        read = json.loads((photos / "d1" / inside / "record.json").read_text())["rows"]
        assert {row["input"] for row in read} == {"a"} | mine


@pytest.mark.parametrize("command", ["transfer", "invert"])
def test_one_of_several_that_cannot_be_read_is_skipped_and_named(photos, command):
    (photos / "d1" / "broken.jpg").write_bytes((photos / "d1" / "a.png").read_bytes()[:60])
    Image.new("RGB", (60, 2)).save(photos / "d1" / "sliver.png")
    short = {"transfer": SHORT, "invert": ("--steps", "1", "--out")}[command]

    def call(*inputs):
        return CliRunner().invoke(app, [command, *map(str, (*inputs, *short, photos / "out"))])
    assert call(photos / "d1" / "broken.jpg").exit_code == 2
    nothing = call(photos / "d1" / "broken.jpg", photos / "d1" / "missing" / ".." / "broken.jpg")
    assert nothing.exit_code == 2
    done = call(photos / "d1")
    assert done.exit_code == 0, done.output
    record, report = (json.loads((photos / "out" / name).read_text()) for name in ("record.json", "report.json"))
    assert {row["input"] for row in record["rows"]} == {"a"}
    skipped = report["skipped"] if command == "invert" else report["summary"]["skipped"]
    for told in (record["notes"], skipped, ["".join(done.output.split())]):
        assert all(any(name in line for line in told) for name in ("broken.jpg", "sliver.png", "Skipped"))
    with Image.open(photos / "d2" / "a.png") as picture:
        picture.convert("RGB").save(photos / "d1" / "broken.jpg")  # one that is mended afterwards is no longer skipped
    done = call(photos / "d1")
    assert done.exit_code == 0, done.output
    assert {row["input"] for row in json.loads((photos / "out" / "record.json").read_text())["rows"]} >= {"a", "broken"}


def test_files_of_the_same_content_have_a_name_each_and_numbers_do_not_meet(tmp_path):
    for path in ("x/a.png", "y/a.png", "z/a-2.png"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"same")
    inputs = [str(tmp_path / path) for path in ("x/a.png", "y/a.png", "z/a-2.png")]
    assert list(Sources.of(tmp_path, inputs).inputs.items()) == list(zip(("a", "a-2", "a-2-2"), inputs, strict=True))
