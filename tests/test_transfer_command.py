"""`guide transfer` as a person uses it: photographs in, pictures, record, trace and sheet out; and what is refused."""
import json

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import app
from guide.transfer import outcome
from guide.transfer.outcome import Result
from probes import encoders
from probes.auditing import flags
from probes.auditing.report import Report

skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs in the public domain, small, a mask and a file that is none."""
    path = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(skimage, name)()).resize((96, 80)).save(path / f"{name}.png")
    mask = Image.new("L", (96, 80))
    mask.paste(255, (24, 20, 72, 60))
    mask.save(path / "mask.png")
    Image.new("RGB", (1, 1)).save(path / "dot.png")
    (path / "text.jpg").write_text("no picture")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["transfer", *map(str, arguments)])


def test_pictures_record_trace_sheet_and_film_come_out_and_a_second_run_makes_nothing_anew(folder, tmp_path):
    out = tmp_path / "run"
    arguments = (folder / "astronaut.png", folder / "coffee.png", "--style", "ukiyo-e", "--steps", "3", "--film", "gif", "--out", out)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert {file.name for file in out.iterdir()} == {
        "record.json", "report.csv", "report.json", "sheet.png", "trace.jsonl", *(
            f"seed-0000-{name}.{kind}" for name in ("astronaut", "coffee") for kind in ("png", "gif"))}
    record = json.loads((out / "record.json").read_text())
    assert record["kind"] == "transfer"
    assert record["complete"]
    assert {row["variant"] for row in record["rows"]} == {"input", "transferred"}
    assert all(row["distance_structure"] > 0 for row in record["rows"] if row["variant"] == "transferred")
    with Image.open(out / "seed-0000-astronaut.png") as picture:
        assert picture.size == (96, 80)
        assert json.loads(picture.text["guide"])["input"] == "astronaut.png"
    with Image.open(out / "seed-0000-astronaut.gif") as film:
        assert film.n_frames > 3
    assert len((out / "trace.jsonl").read_text().splitlines()) == 6
    for row in record["rows"]:
        hacked = row["variant"] == "transferred" and row["style_gain"] > 0 > row["verdict_gain"]
        assert row["flags"] == (flags.HACKED if hacked else "")
    assert "The verdict sees ukiyo-e in " in done.output
    cited = CliRunner().invoke(app, ["cite", str(out)]).output
    assert "1703.06868" in cited
    assert "2112.10752" not in cited  # no diffusion took part
    before = (out / "seed-0000-coffee.png").stat().st_mtime_ns
    assert run(*arguments).exit_code == 0
    assert (out / "seed-0000-coffee.png").stat().st_mtime_ns == before
    other = run(*arguments[:-1], out, "--strength", "0.5")
    assert other.exit_code == 2
    assert "strength" in other.output
    fewer = run(arguments[1], *arguments[2:])
    assert fewer.exit_code == 2  # its report would have no row of the astronaut
    assert "holds a run of other pictures" in fewer.output


def test_a_repeated_run_says_again_how_far_its_pictures_were_mixed_with_their_photographs(folder, tmp_path):
    arguments = (folder / "coffee.png", "--style", "cubism", "--keep", "structure<=0.005", "--steps", "2", "--size", "48", "--out",
                 tmp_path)
    said = []
    for _ in range(2):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
        said.append([line for line in json.loads((tmp_path / "record.json").read_text())["notes"] if "mixed with" in line])
    assert len(said[0]) == 1
    assert said[0] == said[1]


def test_pictures_of_earlier_seeds_stay_in_the_report(folder, tmp_path):
    arguments = (folder / "coffee.png", "--style", "cubism", "--steps", "1", "--size", "48", "--out", tmp_path, "--seeds")
    assert run(*arguments, "0-1").exit_code == 0
    done = run(*arguments, "2")
    assert done.exit_code == 0, done.output
    assert "earlier pictures stay in its report: seeds 0, 1" in " ".join(done.output.split())
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["seeds"] == record["request"]["seeds"] == [0, 1, 2]
    assert [row["seed"] for row in record["rows"] if row["variant"] == "transferred"] == [0, 1, 2]


def told(guide: list[float], verdict: list[float], kept: list, **distances) -> Result:
    """A report of two photographs and their pictures, with such log-odds before and after."""
    rows = pd.DataFrame({"input": ["a", "b", "a", "b"], "variant": ["input"] * 2 + ["transferred"] * 2, "kept": pd.array(kept, "boolean"),
                         "style_log_odds": guide, "verdict_log_odds": verdict, "flags": ["", "", flags.HACKED, ""],
                         **{f"distance_{name}": [None, None, *values] for name, values in distances.items()}})
    for gain, column in (("style_gain", "style_log_odds"), ("verdict_gain", "verdict_log_odds")):
        rows[gain] = [None, None, *(rows[column][2:].to_numpy() - rows[column][:2].to_numpy())]
    summary = {"styles": {"ukiyo-e": {"verdict_recall_on_real_paintings": .8}}, "reliability": {}}
    return Result(None, None, Report(rows, summary), (("structure", .2),), between={"structure": .65, "content": .48})


def test_the_terminal_says_in_how_many_pictures_the_verdict_sees_the_style():
    said = told([-6., -5., 12., 9.], [-4., -4.2, -5., -.8], [False, False, False, True], structure=[.2, .1]).lines()
    assert said[0] == ("The verdict sees ukiyo-e in 1 of 2 pictures (in 0 of 2 photographs before, log-odds -4.1 -> -2.9); it recognises "
                       "80% of real paintings of it.")
    assert said[1:] == ["Mean gain in log-odds: guide +16.00, verdict +1.20.",
                        f"Signs of reward hacking: 1 with {flags.HACKED}."]
    unknown = told([-6., -5., 12., 9.], [float("nan")] * 4, [None] * 4, structure=[.2, .1]).lines()
    assert unknown[0] == "The verdict does not know the style that was asked for."


def test_of_a_period_and_of_words_the_terminal_says_what_is_read_before_and_after(folder, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(outcome.sheet, "save", lambda path, title, *rest, **options: titles.append(title))
    done = run(folder / "astronaut.png", folder / "coffee.png", "--period", "1650-1700", "--seeds", "0-1", "--steps", "1", "--size", "48",
               "--out", tmp_path)
    assert done.exit_code == 0, done.output
    rows = pd.DataFrame(json.loads((tmp_path / "record.json").read_text())["rows"])
    mean = rows.groupby("variant")[["year", "verdict_year"]].mean().round().astype(int)
    said = ", ".join(f"{name} {mean[column]['input']} -> {mean[column]['transferred']}"
                     for name, column in (("guide", "year"), ("verdict", "verdict_year")))
    assert f"Mean year, 1650 to 1700 asked for: {said}." in " ".join(done.output.split())
    assert titles == ["Transfer: 17th century"]
    assert "Mean cosine" not in done.output
    done = run(folder / "coffee.png", "--prompt", "a ship at sea", "--steps", "1", "--size", "48", "--out", tmp_path / "words")
    before, after = (row["content"] for row in json.loads((tmp_path / "words" / "record.json").read_text())["rows"])
    assert f"Mean cosine to the words, which the guide alone reads: {before:.2f} -> {after:.2f}." in " ".join(done.output.split())
    assert "Mean year" not in done.output


def test_what_is_as_far_as_one_painting_from_another_is_said_beside_a_bound_that_holds():
    arguments = [-6., -5., 12., 9.], [-4., -4.2, -5., -.8], [False, False, False, True]
    far = told(*arguments, structure=[.2, .1], content=[.8, .7]).lines()
    assert far[0] == ("As far from the photograph as one painting from another: content 0.75 (between paintings 0.48); the bound "
                      'on structure does not hold that, --keep "structure<=0.2,content<=0.24" does.')
    one = told(*arguments, structure=[.2, .1], content=[.8, .1]).lines()
    assert one[0].startswith("As far from the photograph as one painting from another: content 0.80 in 1 of 2 pictures (between")
    assert not any("As far" in line for line in told(*arguments, structure=[.2, .1], content=[.3, .2]).lines())


def test_outside_of_the_mask_every_pixel_stays(folder, tmp_path):
    done = run(folder / "astronaut.png", "--reference", folder / "coffee.png", "--region", folder / "mask.png", "--steps", "3", "--out",
               tmp_path)
    assert done.exit_code == 0, done.output
    with Image.open(folder / "astronaut.png") as before, Image.open(tmp_path / "seed-0000-astronaut.png") as after:
        for box in ((0, 0, 96, 20), (0, 60, 96, 80), (0, 0, 24, 80), (72, 0, 96, 80)):
            assert before.convert("RGB").crop(box).tobytes() == after.crop(box).tobytes()
        assert before.convert("RGB").tobytes() != after.tobytes()


def test_a_region_painted_on_a_transparent_layer_of_another_size_is_where_it_is_painted(folder, tmp_path):
    layer = Image.new("RGBA", (48, 40), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (24, 0, 48, 40))
    layer.save(tmp_path / "layer.png")
    done = run(folder / "astronaut.png", "--style", "cubism", "--region", tmp_path / "layer.png", "--steps", "2", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "the region" not in " ".join(done.output.split())
    with Image.open(folder / "astronaut.png") as before, Image.open(tmp_path / "out" / "seed-0000-astronaut.png") as after:
        assert before.convert("RGB").crop((0, 0, 46, 80)).tobytes() == after.crop((0, 0, 46, 80)).tobytes()
        assert before.convert("RGB").crop((50, 0, 96, 80)).tobytes() != after.crop((50, 0, 96, 80)).tobytes()


def test_a_region_of_another_shape_than_the_photograph_is_refused(folder, tmp_path):
    for size, code in (((80, 96), 2), ((99, 80), 2), ((97, 80), 0)):
        Image.new("L", size, 255).save(tmp_path / "mask.png")
        done = run(folder / "coffee.png", "--style", "cubism", "--region", tmp_path / "mask.png", "--steps", "1", "--size", "48", "--out",
                   tmp_path / "out")
        assert done.exit_code == code, done.output
        assert ("anothershapethan" in "".join(done.output.split())) == (code == 2)
        assert (tmp_path / "out").exists() == (code == 0)


def test_of_several_photographs_those_that_the_region_does_not_fit_are_skipped_and_named(folder, tmp_path):
    Image.new("L", (80, 96), 255).save(tmp_path / "mask.png")
    with Image.open(folder / "coffee.png") as picture:
        picture.rotate(90, expand=True).save(tmp_path / "upright.png")
    done = run(folder / "coffee.png", tmp_path / "upright.png", "--style", "cubism", "--region", tmp_path / "mask.png", "--steps", "1",
               "--size", "48", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    read = json.loads((tmp_path / "out" / "record.json").read_text())
    assert {row["input"] for row in read["rows"]} == {"upright"}
    assert any(line.startswith("Skipped") and "another shape" in line and "coffee.png" in line for line in read["notes"])


def test_transparent_places_are_said_to_be_painted_as_white(folder, tmp_path):
    said = "transparent places were laid over white"
    for alpha, note in ((255, False), (254, True)):
        with Image.open(folder / "coffee.png") as picture:
            layer = picture.convert("RGBA")
        layer.putpixel((3, 3), (0, 0, 0, alpha))
        layer.save(tmp_path / f"{alpha}.png")
        done = run(tmp_path / f"{alpha}.png", "--style", "cubism", "--steps", "1", "--size", "48", "--out", tmp_path / f"{alpha}")
        assert done.exit_code == 0, done.output
        assert (said in " ".join(done.output.split())) == note
        assert any(said in line for line in json.loads((tmp_path / f"{alpha}" / "record.json").read_text())["notes"]) == note


def test_of_an_animation_the_first_frame_is_said_to_be_painted(folder, tmp_path):
    with Image.open(folder / "coffee.png") as picture:
        frames = [picture.convert("RGB"), picture.convert("RGB").rotate(180)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    done = run(tmp_path / "moving.gif", "--style", "cubism", "--steps", "1", "--size", "48", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "the first of 2 frames is painted" in " ".join(done.output.split())


def test_strength_zero_is_the_photograph(folder, tmp_path):
    assert run(folder / "coffee.png", "--style", "baroque", "--strength", "0", "--out", tmp_path).exit_code == 0
    with Image.open(folder / "coffee.png") as before, Image.open(tmp_path / "seed-0000-coffee.png") as after:
        assert before.convert("RGB").tobytes() == after.tobytes()


@pytest.mark.parametrize(("arguments", "said"), [
    (("missing.png", "--style", "baroque"), "no folder or image"),
    (("text.jpg", "--style", "baroque"), "not an image"),
    (("coffee.png",), "Nothing is asked for"),
    (("coffee.png", "--style", "barok"), "baroque"),
    (("coffee.png", "--style", "baroque", "--keep", "beauty<=1"), "distance"),
    (("coffee.png", "--style", "baroque", "--reference", "none.png"), "no reference picture"),
    (("coffee.png", "--reference", "coffee.png:nan"), "weight 'nan'"),
    (("coffee.png", "--style", "baroque", "--engine", "oil"), "pixels and diffusion"),
    (("coffee.png", "--style", "baroque", "--strength", "3"), "strength"),
    (("coffee.png", "--style", "baroque", "--size", "20"), "size|side"),
    (("coffee.png", "--style", "baroque", "--keep", "lpips<=.3"), "LPIPS"),
    (("coffee.png", "--style", "baroque", "--region", "text.jpg"), "not an image"),
    (("coffee.png", "--style", "baroque", "--invert"), "belongs to diffusion"),
    (("coffee.png", "--style", "baroque", "--dtype", "int8"), "--dtype belongs to diffusion"),
    (("coffee.png", "--style", "baroque", "--limit", "artifacts<=x"), "artifacts<=0.1"),
    (("coffee.png", "--style", "baroque", "--keep", "structure<=0"), "Only the photograph itself keeps structure <= 0"),
    (("coffee.png", "--style", "baroque", "--keep", "content=.5", "--keep", "ms-ssim<=0.0"), "itself keeps ms-ssim <= 0"),
    (("coffee.png", "--reference", "dot.png"), "too few to read brushwork"),
    (("coffee.png", "--style", "baroque", "--statistics", "gram"), "Gram matrices"),
])
def test_what_cannot_be_done_is_said_in_a_sentence(folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert any(word in " ".join(done.output.split()) for word in said.split("|")), done.output
    assert not (tmp_path / "out").exists()  # no empty folder is left


def test_a_picture_painted_before_gets_no_film_and_that_is_said(folder, tmp_path):
    arguments = ("--style", "cubism", "--steps", "1", "--size", "40", "--out", tmp_path, "--film", "gif")
    assert run(folder / "coffee.png", *arguments[:-2]).exit_code == 0
    done = run(folder / "coffee.png", folder / "astronaut.png", *arguments)
    said = "1 picture painted before gets none"
    assert said in " ".join(done.output.split())
    assert any(said in note for note in json.loads((tmp_path / "record.json").read_text())["notes"])
    assert {file.name for file in tmp_path.glob("*.gif")} == {"seed-0000-astronaut.gif"}
    (tmp_path / "seed-0000-coffee.png").unlink()
    assert said not in " ".join(run(folder / "coffee.png", folder / "astronaut.png", *arguments).output.split())


@pytest.mark.parametrize("command", ["transfer", "invert"])
def test_a_film_without_its_writer_is_refused_before_any_weights_are_read(folder, tmp_path, monkeypatch, command):
    def read(*arguments):
        raise AssertionError("weights were read first")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(encoders, "load", read)
    inputs = [str(folder / "coffee.png")] if command == "transfer" else []
    done = CliRunner().invoke(app, [command, *inputs, "--style", "baroque", "--film", "mp4", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert " ".join(done.output.split()) == ("Error: An MP4 is written by ffmpeg, which is not on the path; install it (apt install "
                                             "ffmpeg, brew install ffmpeg), or take --film gif.")
    assert not (tmp_path / "out").exists()


def test_a_transformer_takes_references_by_its_early_tokens(folder, tmp_path, clip_folder):
    done = run(folder / "astronaut.png", "--reference", folder / "coffee.png", "--encoder", clip_folder("vit"), "--steps", "3",
               "--keep", "self-similarity<=0.3", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "trace.jsonl").read_text().splitlines()]
    assert all(row["brushwork"] > 0 and row["skipped"] == 0 for row in rows)
