"""The device that `auto` stands for: told in probes/devices.py, and nowhere else."""
import re
from pathlib import Path

import pytest
import torch

from guide.planning import plan
from probes import devices
from probes.auditing import processes
from probes.errors import UserError

ROOT = Path(__file__).parents[1]
DECIDES = re.compile(r"""["']auto["'].*is_available|is_available\(\) else ["']cpu""")


@pytest.fixture
def metal(monkeypatch):
    """A machine with Apple's Metal and no CUDA, as torch tells it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_no_other_file_decides_what_auto_is():
    files = [path for room in ("guide", "probes", "recipes") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    found = [str(path.relative_to(ROOT)) for path in files if DECIDES.search(path.read_text())]
    assert found == ["probes/devices.py"]


def test_metal_is_found_by_what_reads_and_compares(metal):
    assert devices.select("auto") == "mps"
    assert processes.joined("auto").device == "mps"
    assert [devices.select(name) for name in ("cpu", "cuda:1")] == ["cpu", "cuda:1"]
    assert processes.joined("cpu").device == "cpu"


def test_a_plan_says_that_metal_is_not_measured(metal):
    found = plan.plan("embedded", seeds=1, budget=0.5)
    assert found.device == "cpu"
    assert any("Metal is not measured" in note for note in found.notes)
    with pytest.raises(UserError, match="mps is not here"):
        plan.plan("embedded", device="mps")
