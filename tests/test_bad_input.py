"""Everything that can be asked wrongly on the command line: one clear sentence, exit code 2, no traceback, nothing left behind."""
import shutil
import socket

import pytest
from typer.testing import CliRunner

import cli
from probes import config

GENERATE = ("generate", "--style", "baroque")
WRONG = [
    (("generate",), "--style"),
    (("generate", "--style", "barok"), "baroque"),
    (("generate", "--style", "ukioe"), "ukiyo-e"),
    (("generate", "--style", "baroque:lots"), "baroque:.7"),
    ((*GENERATE, "--avoid", "rokoko"), "rococo"),
    ((*GENERATE, "--avoid", "baroque"), "avoided"),
    ((*GENERATE, "--period", "long ago"), "1600-1725"),
    ((*GENERATE, "--period", "1700-1600"), "forward"),
    ((*GENERATE, "--seeds", "7-0"), "0-7"),
    ((*GENERATE, "--seeds", "many"), "0-7"),
    ((*GENERATE, "--size", "100"), "multiple of 8"),
    ((*GENERATE, "--size", "16"), "64"),
    ((*GENERATE, "--size", "4096"), "2048"),
    ((*GENERATE, "--size", "128x"), "128x160"),
    ((*GENERATE, "--steps", "0"), "steps"),
    ((*GENERATE, "--guidance-scale", "-1"), "guidance scale"),
    ((*GENERATE, "--strength", "-1"), "strength"),
    ((*GENERATE, "--strength", "nan"), "strength"),
    ((*GENERATE, "--strength", "1e38"), "up to 10000"),
    ((*GENERATE, "--out", "o" * 300), "path"),
    ((*GENERATE, "--model", "m" * 300), "path"),
    ((*GENERATE, "--model", "~nobody-here/model"), "home"),
    ((*GENERATE, "--encoder", "~nobody-here/clip"), "home"),
    ((*GENERATE, "--device", "meta"), "--device cpu"),
    (("compare", "--styles", "baroque:.7,ukiyo-e:.3"), "without weights"),
    (("audit", "a" * 300), "path"),
    (("audit", "~nobody-here/pictures"), "home"),
    ((*GENERATE, "--batch", "0"), "pictures at a time"),
    ((*GENERATE, "--model", "embeded"), "embedded"),
    ((*GENERATE, "--strategy", "clean-imagge"), "clean-image"),
    ((*GENERATE, "--encoder", "ViT-B-33:openai"), "ViT-B-32"),
    ((*GENERATE, "--judge", "verdikt"), "verdict"),
    ((*GENERATE, "--device", "toaster"), "cpu"),
    ((*GENERATE, "--dtype", "float17"), "float32"),
    (("compare", "--styles", "barok"), "baroque"),
    (("compare", "--strategies", "unguided", "--no-prompt-only"), "two"),
    (("audit", "nowhere"), "nowhere"),
]


def guide(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def is_one_clear_sentence(done) -> bool:
    said = done.stderr.strip()
    return done.exit_code == 2 and "Traceback" not in done.output and said.startswith("Error: ") and said.endswith(".") and "\n" not in said


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, told, elsewhere):
    done = guide(*arguments)
    assert is_one_clear_sentence(done), done.output
    assert told in done.stderr
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written(elsewhere):
    (elsewhere / "taken").write_text("a file, not a folder")
    done = guide(*GENERATE, "--out", str(elsewhere / "taken" / "run"))
    assert is_one_clear_sentence(done), done.output
    assert "--out" in done.stderr


def test_a_broken_config_names_the_unknown_key(elsewhere, monkeypatch):
    shutil.copytree(config.configs(), elsewhere / "configs")
    style = elsewhere / "configs" / "styles" / "baroque.toml"
    style.write_text(style.read_text(encoding="utf-8").replace("adjective", "adjectiv"), encoding="utf-8")
    monkeypatch.setattr(config, "configs", lambda: elsewhere / "configs")
    config.catalogue.cache_clear()
    try:
        done = guide("styles")
    finally:
        config.catalogue.cache_clear()
    assert is_one_clear_sentence(done), done.output
    assert "'adjectiv'" in done.stderr
    assert "adjective" in done.stderr
    assert "baroque.toml" in done.stderr


def test_a_hub_model_without_a_network_says_which_files_and_how_to_get_them(elsewhere, monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = guide(*GENERATE, "--model", "nobody/has-this-model")
    assert is_one_clear_sentence(done), done.output
    assert "nobody/has-this-model" in done.stderr
    assert "hf download" in done.stderr
    assert "model_index.json" in done.stderr


def test_an_empty_folder_has_nothing_to_audit(elsewhere):
    (elsewhere / "pictures").mkdir()
    done = guide("audit", "pictures")
    assert is_one_clear_sentence(done), done.output
    assert "pictures" in done.stderr


def test_one_odd_picture_does_not_end_the_audit_of_its_folder(elsewhere):
    """Names that are no UTF-8, and chunks that claim a seed, a year or a weight beyond all bounds, or text that no file can hold."""
    import os

    from PIL import Image, PngImagePlugin

    from probes.audit import audit
    folder = elsewhere / "pictures"
    folder.mkdir()
    claims = ['{"seed": 1' + "0" * 30 + "}", '{"subject": "\\ud800", "variant": "\\udfff"}', '{"period": [1, 1' + "0" * 40
              + '], "styles": [["baroque", 1]]}',
              '{"styles": [["baroque", 1e308], ["rococo", 1e308]]}', '{"styles": 3, "seed": true}']
    for number, claim in enumerate(claims):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("guide", claim)
        Image.new("RGB", (64, 64), "teal").save(folder / f"{number}.png", pnginfo=chunks)
    (folder / "5.tif").write_bytes(b"")
    Image.new("F", (64, 64)).save(folder / "6.tif")
    Image.new("RGB", (64, 64), "teal").save(os.fsencode(folder) + b"/7-\xff.png")
    report = audit(folder)
    assert [bool(error) for error in report.rows["error"]] == [False] * 5 + [True, True, False]
    assert "8 or 16 bits" in report.rows["error"][6]
    report.to_csv(elsewhere / "report.csv")
    report.to_json(elsewhere / "report.json")
    assert "7-\N{REPLACEMENT CHARACTER}.png" in (elsewhere / "report.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("said", ['{"request": null}', '{"request": {}, "schema": "x"}', "[]", '{"request": {}, "kind": "nothing"}'])
def test_a_damaged_record_is_named(said, elsewhere):
    (elsewhere / "run").mkdir()
    (elsewhere / "run" / "record.json").write_text(said)
    (elsewhere / "run" / "seed-0-unguided.png").write_bytes(b"")
    done = guide(*GENERATE, "--out", "run", "--steps", "2", "--seeds", "0")
    assert is_one_clear_sentence(done)
    assert "record" in done.stderr


def test_a_folder_of_another_run_says_what_differs(elsewhere):
    assert guide(*GENERATE, "--out", "run", "--steps", "2", "--seeds", "0", "-q").exit_code == 0
    done = guide(*GENERATE, "--out", "run", "--steps", "3", "--seeds", "0")
    assert is_one_clear_sentence(done)
    assert "steps (2 instead of 3)" in done.stderr
