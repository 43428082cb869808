"""The benchmark of transfers: cells that a second call does not make again, and its comparison on figures that are known."""
import json

import pandas as pd
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")

from benchmarks import transfer, transfer_tables


def run(*arguments):
    app = Typer()
    app.command()(transfer.main)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.slow
def test_cells_are_kept_and_ours_is_no_farther_than_the_baseline(tmp_path):
    arguments = ("--engines", "baselines,pixels", "--contents", "cat", "--styles", "cubism", "--steps", 2, "--out", tmp_path)
    assert run(*arguments, "--minutes", 0).exit_code == 3
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "cat-cubism").glob("*.json")}
    assert len(cells) == 5
    assert cells["photograph"]["gain"] == pytest.approx(0, abs=1e-5)
    for baseline in ("colour-statistics", "moment-matching"):
        for metric in transfer_tables.MEASURED:
            assert cells[f"ours-within-{baseline}"][metric] <= cells[baseline][metric] + 1e-4
    assert "| ours | colour statistics | 1 |" in done.output
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cat-cubism").glob("*")}
    assert run(*arguments).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cat-cubism").glob("*")}
    assert (tmp_path / "sheet.png").is_file()


def test_ours_is_compared_with_its_own_baseline_alone():
    rows = []
    for k, name in enumerate("abcdef"):
        gains = {"colour statistics": 1., "ours within colour statistics": 1.5 + .1 * k, "moment matching": 9.}
        for method, gain in gains.items():
            far = .1 if method == "moment matching" else .2
            rows.append({"photograph": name, "style": "cubism", "method": method, "gain": gain, "damage": 0., "structure": far,
                         "ms-ssim": far + (.1 if name == "a" and method.startswith("ours") else 0)})
    lines = transfer_tables.at_equal_distance(pd.DataFrame(rows))
    assert len(lines) == 3
    assert "+0.75 [" in lines[2]
    assert "| 100% | 17% |" in lines[2]


def test_contents_are_photographs_of_one_size():
    found = transfer.contents(transfer.CONTENTS)
    assert len(found) == 20
    assert all(one.shape == (1, 3, transfer.SIDE, transfer.SIDE) for one in found.values())
    assert torch.stack(list(found.values())).flatten(1).unique(dim=0).shape[0] == 20
