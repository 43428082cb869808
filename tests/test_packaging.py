"""What an installed wheel holds, and that it works from any folder."""
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built in its own process by the build backend that is installed, without network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install -e '.[test]' brings it")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel unpacked as an installer does it."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def elsewhere(installed: Path, folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code in another folder with the unpacked wheel before everything else."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_wheel_holds_exactly_the_packages_the_command_line_and_the_configs(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "guide", "probes", "configs", "cli.py"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout, so that there is no list of files to compare with")
    files = {name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()}
    wanted = {f"probes/_{name}" if name.startswith("configs/") else name for name in files}
    assert names == wanted
    assert {Path(name).parts[0] for name in names} == {"guide", "probes", "cli.py"}


def test_wheel_is_private_and_has_one_command(wheel):
    archive = zipfile.ZipFile(wheel)
    folder = next(name for name in archive.namelist() if name.endswith("METADATA")).rsplit("/", 1)[0]
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "Classifier: Private :: Do Not Upload" in metadata
    assert archive.read(f"{folder}/entry_points.txt").decode().split() == ["[console_scripts]", "guide", "=", "cli:app"]
    assert f"{folder}/licenses/LICENSE" in archive.namelist()


def test_an_installed_wheel_finds_its_configs_from_any_folder(installed, tmp_path):
    code = "import probes.config as c; print(c.__file__); print(len(c.styles()))"
    done = elsewhere(installed, tmp_path, code)
    assert done.returncode == 0, done.stderr
    where, count = done.stdout.split("\n")[:2]
    assert Path(where).is_relative_to(installed)
    assert int(count) == len(list((ROOT / "configs" / "styles").glob("*.toml")))


def test_an_installed_wheel_finds_its_weights_from_any_folder(installed, tmp_path):
    code = ("from probes import encoders; e = encoders.load('embedded')\n"
            "print(encoders.__file__); print(tuple(e.text(['baroque']).shape) == (1, e.dim))")
    done = elsewhere(installed, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split("\n")[0]).is_relative_to(installed)
    assert done.stdout.split("\n")[1] == "True"


def test_an_editable_install_imports_the_checkout_itself(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install -e '.[test]' brings it")
    code = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    archive = zipfile.ZipFile(tmp_path / done.stdout.split()[-1])
    paths = [name for name in archive.namelist() if name.endswith(".pth")]
    assert [archive.read(name).decode().strip() for name in paths] == [str(ROOT)]
    assert not [name for name in archive.namelist() if name.endswith(".py")]


def test_every_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["project"]["dependencies"]
    for dependency in listed:
        line = next(line for line in text.splitlines() if line.strip().startswith(f'"{dependency}"'))
        assert line.split("#", 1)[1].strip()
    assert not [dependency for dependency in listed if "==" in dependency]
