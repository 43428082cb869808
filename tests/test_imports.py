"""Imports point one way, cli -> guide -> probes, and the command line starts light."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {"probes": {"guide", "cli", "diffusers", "recipes", "benchmarks", "tests"}, "guide": {"cli", "recipes", "benchmarks", "tests"}}
SOURCES = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(path.relative_to(ROOT).parts[0] if node.level else (node.module or "").split(".")[0])
    return found


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    assert not imported(path) & FORBIDDEN[path.relative_to(ROOT).parts[0]]


def test_the_command_line_loads_neither_torch_nor_diffusers():
    heavy = ("torch", "diffusers", "transformers", "open_clip", "pandas", "numpy")
    assert run(f"import cli, sys; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_probes_work_where_guide_is_not():
    code = "import sys; sys.modules['guide'] = None; sys.modules['diffusers'] = None; from probes import audit; print('ok')"
    assert run(code) == "ok"


def test_imports_do_no_work():
    """Importing every module of both packages leaves random state and number of threads alone (rich.style itself draws)."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]
    code = ("import importlib, random, rich.style, torch\n"
            "state = lambda: (random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads())\n"
            f"before = state()\nfor name in {names}: importlib.import_module(name)\nprint(before == state())")
    assert run(code) == "True"
