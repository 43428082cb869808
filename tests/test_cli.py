"""The command line as it is typed."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from probes.config import styles

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("generate", "compare", "audit", "styles", "models", "strategies", "cite", "doctor", "version")


def guide(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def test_help_names_every_command():
    shown = guide("--help")
    assert shown.exit_code == 0
    assert [command for command in COMMANDS if command not in shown.output] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_says_what_it_is_for(command):
    shown = guide(command, "--help")
    assert shown.exit_code == 0
    described = [line.split(maxsplit=2) for line in shown.output.splitlines() if line.strip().startswith("--")]
    assert all(len(parts) > 2 or parts[0] == "--help" for parts in described)


def test_generate_has_the_options_it_promises():
    shown = guide("generate", "--help").output
    wanted = ("prompt", "style", "avoid", "period", "seeds", "model", "strategy", "strength", "steps", "size", "guidance-scale", "device",
              "dtype", "out", "name-style", "no-name-style", "quiet")
    assert [name for name in wanted if f"--{name}" not in shown] == []


@pytest.mark.skipif(sys.platform == "win32", reason="processor time of child processes is not counted there")
def test_help_answers_at_once():
    """In processor time, the best of five, since other work on the machine is no fault of ours."""
    def seconds() -> float:
        import resource
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "cli", "--help"], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert min(seconds() for _ in range(5)) < .3


def test_styles_lists_every_style():
    shown = guide("styles")
    assert shown.exit_code == 0, shown.output
    assert [key for key in styles() if key not in shown.output] == []


@pytest.mark.parametrize(("command", "kind"), [("models", "models"), ("strategies", "strategies")])
def test_lists_name_every_file_of_the_catalogue(command, kind):
    shown = guide(command)
    assert shown.exit_code == 0, shown.output
    keys = [path.stem for path in (ROOT / "configs" / kind).glob("*.toml")]
    assert keys
    assert [key for key in keys if key not in shown.output] == []


def test_a_users_mistake_is_one_sentence_on_stderr_and_exit_code_two(tmp_path):
    command = [sys.executable, "-m", "cli", "generate", "--style", "barok"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().count("\n") == 0
    assert "baroque" in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_an_interruption_says_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch):
    (tmp_path / "seed-0000-unguided.png").touch()
    monkeypatch.setattr(sys, "argv", ["guide", "generate", "--style", "baroque"])
    said = r"1 finished picture is kept .*guide generate --style baroque --out"
    with pytest.raises(KeyboardInterrupt, match=said), cli._continuable(tmp_path):
        raise KeyboardInterrupt
