"""`guide audit` as a person uses it: tables, baselines, odd files, interruption, several processes."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from guide import png

ROOT = Path(__file__).resolve().parents[1]
ODD = "a <u>\n'quoted\" =1+1.png"


def paint(path, seed, brighter=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(40, 200, (6, 6, 3)) + brighter
    Image.fromarray(pixels.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    for seed in range(4):
        paint(tmp_path / "new" / f"{seed}.png", seed, brighter=40)
        paint(tmp_path / "old" / f"{3 - seed}.png", 3 - seed)
    return tmp_path


def audit(*arguments):
    return CliRunner().invoke(cli.app, ["audit", *map(str, arguments)])


def test_a_table_with_odd_files_and_ratings(folder):
    (folder / "new" / "1.png").rename(folder / "new" / ODD)
    (folder / "new" / "2.png").write_bytes(b"")
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "style", "period", "prompt", "rating", "group"])
        rows.writerows([["new/0.png", "baroque", "1600-1725", "a jug", 3, "=x"], [f"new/{ODD}", "rococo", "1730", "a jug", 5, "y"],
                        ["new/2.png", "baroque", "", "", 1, "y"], ["new/absent.png", "baroque", "", "", 2, "y"],
                        ["new/3.png", "baroque", "1650", "a jug", 4, "y"]])  # fmt: skip
    done = audit("list.csv", "--out", "out")
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(folder / "out" / "audit.parquet")
    assert rows["style_target"].tolist() == ["baroque", "rococo", "", "", "baroque"]
    assert [bool(error) for error in rows["error"]] == [False, False, True, True, False]
    assert rows["rating"].tolist() == ["3", "5", "1", "2", "4"]
    with (folder / "out" / "audit.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["group"] == "'=x"
    said = json.loads((folder / "out" / "audit.json").read_text())
    assert said["ratings"]["rating"]["rated"] == 3
    assert "<u>" not in (folder / "out" / "audit.html").read_text(encoding="utf-8").split("<main>")[1].split("<dialog")[0]


def test_what_a_table_means_is_checked_and_said(folder):
    rows = ["File_Name , style,period", "new/../new/0.png,barock,", "new/1.png,zzzz,", "new/2.png,baroque,soon", " ,baroque,",
            "new/3.png,,"]  # fmt: skip
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    done = audit("list.csv", "--out", "out")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Of 1 image the intended style 'barock' is not known; did you mean baroque? Read as if none had been meant." in said
    assert "'zzzz' is not known. Read" in said
    assert "'soon' is no year and no span of years; write 1650 or 1600-1725. Read as if no years" in said
    assert "list.csv, line 5: the table names no file in this row" in said
    assert "1 of 5 images was not read; its row says why." in said
    assert "Reliability of style" in said
    assert ".." not in said.replace("...", "")
    rows = pd.read_parquet(folder / "out" / "audit.parquet")
    assert rows["image"][0] == str(Path("new", "0.png"))
    assert rows["style_target"].tolist() == ["", "", "baroque", "", ""]


def test_what_is_no_picture_has_a_row_or_is_counted(folder):
    (folder / "new" / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "new" / "b.pdf").write_bytes(b"%PDF-1.7")
    (folder / "new" / ".thumbnails").mkdir()
    for name in (".hidden.png", ".thumbnails/0.png", "notes.txt", "README", "data.txt"):
        (folder / "new" / name).write_text("x")
    done = audit("new", "--out", "out")
    said, rows = " ".join(done.output.split()), pd.read_parquet(folder / "out" / "audit.parquet")
    assert rows["error"].str.contains("an SVG|a PDF").sum() == 2
    assert "Left out, being hidden or no pictures: 2 hidden, 2 .txt, 1 without a suffix." in said
    for name in ("style", "period", "artifacts", "verdict"):
        assert f"Reliability of {name}: " in said


def test_a_folders_metadata_may_be_lines_of_json(folder):
    lines = [{"file_name": "0.png", "style": "baroque", "seed": 7, "rating": 2, "prompt": "a\u2028b"}, {"file_name": "1.png", "rating": 3}]
    (folder / "new" / "metadata.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    done = audit("new", "--out", "out")
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(folder / "out" / "audit.parquet")
    assert rows["style_target"][0] == "baroque"
    assert rows["seed"][0] == 7
    assert rows["rating"][:2].tolist() == [2, 3]
    assert ".jsonl" not in done.output
    for bad, told in (("{", "line 1 is not JSON"), ("[1]", "line 1 is no object")):
        (folder / "new" / "metadata.jsonl").write_text(bad)
        done = audit("new", "--out", "out")
        assert done.exit_code == 2
        assert told in " ".join(done.output.split())


def test_a_row_of_too_few_or_too_many_fields_costs_itself_alone(folder):
    rows = ["file_name,style,seed", "new/0.png,baroque,1", "new/1.png,baroque", "", "new/2.png,baroque,2,", "new/3.png,a,b,c"]
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    done = audit("list.csv", "--out", "out")
    assert done.exit_code == 0, done.output
    said, found = " ".join(done.output.split()), pd.read_csv(folder / "out" / "audit.csv", keep_default_na=False)
    assert "2 of 4 images were not read; their rows say why." in said
    for line, fields in ((3, 2), (6, 4)):
        assert f"Not read: list.csv, line {line}: line {line} has {fields} fields, the table 3 columns" in said
    assert found["image"].tolist() == [str(Path("new", "0.png")), "list.csv, line 3", str(Path("new", "2.png")), "list.csv, line 6"]
    assert found["seed"].tolist() == ["1", "", "2", ""]
    assert [bool(error) for error in found["error"]] == [False, True, False, True]


def test_a_line_that_is_no_json_costs_its_row_alone(folder):
    lines = ['{"file_name": "new/0.png", "seed": 3}', '{"file_name": "new/1.png", ', "[1]", '{"file_name": "new/2.png"}']
    for order, bad in ((lines, [2, 3]), (lines[1:], [1, 2])):
        (folder / "table.jsonl").write_text("\n".join(order))
        done = audit("table.jsonl", "--out", "out")
        assert done.exit_code == 0, done.output
        rows = pd.read_parquet(folder / "out" / "audit.parquet")
        errors = rows.loc[rows["error"] != ""]
        assert [index + 1 for index in errors.index] == bad
        assert errors["image"].str.contains("table.jsonl, line ").all()
        assert errors["error"].iloc[0].startswith(f"line {bad[0]} is not JSON")
        assert errors["error"].iloc[1] == f"line {bad[1]} is no object with names and values"


@pytest.mark.parametrize(("judge", "steered", "told"), [
    ("csd", "nothing", "--steered-by names no encoder that can be loaded, 'nothing'"),
    ("verdict", "verdict", "The judge 'verdict' steered these pictures itself"),
])
def test_what_steered_is_looked_at_before_who_judges(folder, judge, steered, told):
    done = audit("new", "--judge", judge, "--steered-by", steered, "--out", "out")
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert "weights" not in done.stderr


def test_only_unreadable_files_say_only_that(folder):
    (folder / "bad").mkdir()
    (folder / "bad" / "a.png").write_bytes(b"")
    done = audit("bad", "--out", "out")
    assert done.exit_code == 2
    assert "None of the 1 files could be read as a picture; " in " ".join(done.stderr.split())
    assert (folder / "out" / "audit.csv").is_file()
    assert "1 of 1 images was not read" in done.output
    assert "Artifacts" not in done.output
    assert "Reliability" not in done.output


@pytest.mark.parametrize("arguments", [("",), (" ",), ("new", "--baseline", ""), ("new", "--reference", ""), ("new", "--out", "")])
def test_an_empty_path_is_not_the_current_folder(folder, arguments):
    done = audit(*arguments)
    assert done.exit_code == 2
    assert "a path is empty" in done.stderr
    assert not (folder / "outputs").exists()


def test_a_baseline_without_a_counterpart_is_said_also_in_few_words(folder):
    (folder / "other").mkdir()
    paint(folder / "other" / "unlike.png", 9)
    done = audit("new", "--baseline", "other", "-q", "--out", "out")
    assert "nothing was compared" in done.stderr
    assert done.stdout.strip() == "out"
    assert pd.read_parquet(folder / "out" / "audit.parquet")["notes"].str.contains("the baseline has no picture").all()
    assert "None of the 1 pictures of the baseline" in json.loads((folder / "out" / "audit.json").read_text())["sentences"][-6:].__repr__()


def test_a_duplicate_is_named_as_its_own_row_is(folder):
    (folder / "new" / "9.png").write_bytes((folder / "new" / "0.png").read_bytes())
    audit("new", "--out", "out")
    rows = pd.read_parquet(folder / "out" / "audit.parquet")
    assert rows["duplicate_of"].tolist() == ["", "", "", "", rows["image"][0]]


def test_a_baseline_is_paired_by_name(folder):
    done = audit("new", "--style", "baroque", "--baseline", "old", "--out", "out")
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(folder / "out" / "audit.parquet")
    assert [Path(name).name for name in rows["baseline"]] == ["0.png", "1.png", "2.png", "3.png"]
    assert (rows["saturation_drift"] < 0).all()  # as bright a step on every channel leaves less of a colour
    assert rows["contrast_drift"].abs().max() < 1e-3
    assert rows["guide_gain"].notna().all()
    assert "4 counterparts" in " ".join(done.output.split())


def test_globs_and_quiet(folder):
    done = audit("new/[01].png", "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(Path("outputs") / "audit--01-.png")
    assert len(pd.read_parquet(folder / done.stdout.strip() / "audit.parquet")) == 2


def test_a_verdict_refuses_a_run_that_its_family_steered(folder):
    from probes import judge
    lineage = vars(judge.load("verdict").lineage)
    (folder / "new" / "record.json").write_text(json.dumps({"lineages": {"referee": lineage}}))
    done = audit("new", "--out", "out")
    assert done.exit_code == 2
    assert "share their weights" in " ".join(done.stderr.split())
    assert not (folder / "out").exists()


def test_what_was_read_before_an_interruption_is_said_to_be_kept(folder, monkeypatch):
    from probes import audit as audits
    from probes.auditing.reading import Reading
    whole = Reading.entries

    def interrupted(reading, group):
        if group and group[0].row["image"].endswith("2.png"):
            raise KeyboardInterrupt
        return whole(reading, group)

    monkeypatch.setattr(audits, "BLOCK", 2)
    monkeypatch.setattr(Reading, "entries", interrupted)
    done = audit("new", "--out", "out")
    assert done.exit_code == 130
    assert "goes on from there" in done.stderr
    assert len(list((folder / "out" / "parts").iterdir())) == 1


def test_what_a_picture_says_of_itself_counts(folder):
    png.save(Image.open(folder / "new" / "0.png"), folder / "new" / "0.png", {"subject": "lemons", "styles": [["baroque", 1]], "seed": 9})
    assert audit("new/0.png", "--out", "out").exit_code == 0
    row = pd.read_parquet(folder / "out" / "audit.parquet").iloc[0]
    assert (row["prompt"], row["style_target"], row["seed"]) == ("lemons", "baroque", 9)


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(folder):
    for seed in range(4, 150):
        paint(folder / "new" / f"{seed}.png", seed)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [str(ROOT / "cli.py"), "audit", "new", "--style", "baroque", "--device", "cpu", "-q", "--out"]
    two = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launchers = {"one": [sys.executable], "two": [sys.executable, "-m", "accelerate.commands.launch", *two]}
    for out, launcher in launchers.items():
        subprocess.run([*launcher, *arguments, out], cwd=folder, env=environment, check=True, capture_output=True, timeout=280)
    assert {path.name.split("-")[1] for path in (folder / "two" / "parts").iterdir()} == {"0", "1"}
    for kind in ("csv", "json", "html"):
        assert (folder / "one" / f"audit.{kind}").read_bytes() == (folder / "two" / f"audit.{kind}").read_bytes()


@pytest.mark.slow
def test_a_process_that_is_killed_outright_loses_nothing(folder):
    for seed in range(4, 420):
        paint(folder / "new" / f"{seed}.png", seed)
    (folder / "new" / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, str(ROOT / "cli.py"), "audit", "new", "--style", "baroque", "--device", "cpu", "-q", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([*command, "killed"], cwd=folder, env=environment)
    parts, until = folder / "killed" / "parts", time.monotonic() + 200
    while time.monotonic() < until and not list(parts.glob("part-*.parquet")):
        time.sleep(0.05)
    running.kill()
    running.wait()
    before = {path: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert 0 < len(before) < 4
    for out in ("killed", "whole"):
        subprocess.run([*command, out], cwd=folder, env=environment, check=True, capture_output=True, timeout=280)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    for kind in ("csv", "json", "html"):
        assert (folder / "killed" / f"audit.{kind}").read_bytes() == (folder / "whole" / f"audit.{kind}").read_bytes()
    assert len(pd.read_parquet(folder / "killed" / "audit.parquet")) == 421
