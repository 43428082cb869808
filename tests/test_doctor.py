"""`guide doctor`: the known answers are given, and a broken installation is told."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from guide import doctor
from probes.heads import card


@pytest.fixture(scope="module")
def given() -> dict:
    return doctor.answers()


@pytest.fixture
def known(given, tmp_path, monkeypatch):
    """Known answers, written from the present weights; the models are not run again for each test."""
    path = tmp_path / "known_answers.json"
    monkeypatch.setattr(doctor, "answers", lambda: given)
    monkeypatch.setattr(doctor, "ANSWERS", path)
    doctor.write(path)
    return path


def test_the_weights_that_gave_the_answers_give_them_again(known):
    checks = list(doctor.examine())
    assert [check for check in checks if check.ok is False] == []
    assert {"versions", "embedded weights", "tokens", *doctor.TOLERANCES} <= {check.name for check in checks if check.ok}


@pytest.mark.parametrize("name", ["tokens", *doctor.TOLERANCES])
def test_another_answer_is_told(known, name):
    told = json.loads(known.read_text(encoding="utf-8"))
    told[name] = {} if name == "tokens" else [value + 2 * doctor.TOLERANCES[name] for value in told[name]]
    known.write_text(json.dumps(told), encoding="utf-8")
    assert [check.name for check in doctor.examine() if check.ok is False] == [name]


def test_a_head_of_another_encoder_is_named_with_a_remedy_also_one_that_no_known_answer_reads(known, tmp_path, monkeypatch):
    heads = tmp_path / "heads"
    shutil.copytree(card.FOLDER, heads)
    said = json.loads((heads / "domain.json").read_text(encoding="utf-8"))
    (heads / "domain.json").write_text(json.dumps(said | {"encoder": "0" * 64}), encoding="utf-8")
    monkeypatch.setattr(card, "FOLDER", heads)
    failed = [check for check in doctor.examine() if check.ok is False]
    assert [check.name for check in failed] == ["heads"]
    assert failed[0].found.startswith("fitted to other weights than the embedded encoder's: domain;")
    assert "recipes.assemble" in failed[0].found


@pytest.mark.parametrize("name", ["style", "domain"])
def test_known_answers_that_cannot_be_had_are_a_sentence_and_leave_the_file(name, tmp_path):
    """As a module, in a copy whose heads are of another encoder."""
    root = Path(doctor.__file__).parents[1]
    for part in ("guide", "probes", "configs"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    head = tmp_path / "probes" / "embedded" / "heads" / f"{name}.json"
    head.write_text(json.dumps(json.loads(head.read_text(encoding="utf-8")) | {"encoder": "0" * 64}), encoding="utf-8")
    kept = (tmp_path / "probes" / "embedded" / "known_answers.json").read_bytes()
    done = subprocess.run([sys.executable, "-m", "guide.doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f": {name}; reinstall" in done.stderr
    assert (tmp_path / "probes" / "embedded" / "known_answers.json").read_bytes() == kept


def test_changed_and_missing_files_are_named(known):
    told = json.loads(known.read_text(encoding="utf-8"))
    changed = next(name for name in told["sha256"] if name.endswith(".safetensors"))
    told["sha256"] |= {changed: "0" * 64, "guide/embedded/lost.safetensors": "0" * 64}
    known.write_text(json.dumps(told), encoding="utf-8")
    failed = [check.found for check in doctor.examine() if check.ok is False]
    assert any(changed in found and "differ" in found for found in failed)
    assert any("lost.safetensors" in found and "missing" in found for found in failed)


def test_a_broken_installation_is_exit_code_two(known):
    known.write_text(json.dumps({**json.loads(known.read_text(encoding="utf-8")), "year": [0., 0.]}), encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 2
    assert "FAIL  year" in done.output
    assert "Traceback" not in done.output


def test_the_answers_that_ship_are_given_here():
    assert [check for check in doctor.examine() if check.ok is False] == []


@pytest.mark.parametrize(("needed", "memory", "graphics", "told"), [
    (0, 16, 0, "not measured"), (8, 16, 24, "runs on this graphics card"), (8, 32, 0, "fits this machine's memory"),
    (24, 16, 8, "not here"), (0, 16, 24, "24 GB"),
])
def test_what_fits(needed, memory, graphics, told):
    assert told in doctor.fits(needed, memory, graphics)
