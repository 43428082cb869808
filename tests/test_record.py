"""A record holds a run so that it can be read back, by us and by others."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from guide import record
from guide.record import Record
from probes.errors import UserError


@dataclass(frozen=True)
class Request:
    style: str
    out: Path
    weights: tuple[float, ...]


def test_what_is_written_is_read(tmp_path):
    written = Record(Request("baroque", Path("outputs/a"), (0.7, 0.3)), command="guide generate --style 'baroque'", seeds=(0, 1))
    written.rows = [{"seed": np.int64(0), "loss": torch.tensor(1.5), "kept": True, "gain": float("nan")}]
    written.finish()
    written.write(tmp_path / "run" / "record.json")
    found = record.read(tmp_path / "run")
    assert found.request == {"style": "baroque", "out": "outputs/a", "weights": [0.7, 0.3]}
    assert found.rows == [{"seed": 0, "loss": 1.5, "kept": True, "gain": None}]
    assert (found.seeds, found.complete, found.command) == ([0, 1], True, written.command)
    assert found.versions["torch"] == torch.__version__.split("+")[0] or found.versions["torch"] == torch.__version__
    json.loads((tmp_path / "run" / "record.json").read_text(), parse_constant=pytest.fail)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]


def test_the_commit_is_of_this_project_only(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "guide" / "record.py"
    package.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # an environment inside somebody else's checkout
    monkeypatch.setattr(record, "__file__", str(package))
    assert record.commit() is None


def test_the_commit_is_found_and_dirt_is_seen(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "record.py").write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "guide" / "record.py"))
    assert record.commit()["dirty"] is False
    assert len(record.commit()["commit"]) == 40
    (tmp_path / "new.txt").write_text("")
    assert record.commit()["dirty"] is True


def test_the_command_reads_back_in_a_shell(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/guide", "generate", "--prompt", "it's a jug"])
    assert record.typed() == """guide generate --prompt 'it'"'"'s a jug'"""


@pytest.mark.parametrize("text", ["{broken", "[]", "{}", '{"request": {}, "schema": 99}'])
def test_a_bad_record_is_one_sentence(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json"):
        record.read(tmp_path)


def test_a_missing_record_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no record"):
        record.read(tmp_path)


def test_a_folder_of_another_kind_of_run_or_without_its_record_is_left_alone(tmp_path):
    record.Record({"seeds": [0]}, kind="compare").write(tmp_path / "record.json")
    with pytest.raises(UserError, match=r"a run of `guide compare`, not of `guide generate`"):
        record.earlier(tmp_path, {"seeds": [0]}, "generate")
    (tmp_path / "seed-0000-guided.png").touch()
    assert record.earlier(tmp_path, {"seeds": [0]}, "compare") is not None
    (tmp_path / "record.json").unlink()
    with pytest.raises(UserError, match=r"no record\.json"):
        record.earlier(tmp_path, {"seeds": [0]}, "compare")
