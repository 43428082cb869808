"""Audits in parts: decoding ahead, shares of several processes, going on after a kill; no digit depends on any of it."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

from guide import png
from guide.brief import Brief
from probes import audit as audits
from probes.audit import audit

BAROQUE = Brief(prompt="lemons and a jug", styles=(("baroque", 1.0),), period=(1600, 1725))


def pictures(count, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)).mul(255).round() / 255


def test_workers_are_never_far_ahead_of_the_networks():
    begun = []
    with ThreadPoolExecutor(2) as pool:
        for done, result in enumerate(audits._ahead(pool, lambda task: begun.append(task) or task, range(50), 5)):
            assert result == done
            assert len(begun) <= done + 5
    assert len(begun) == 50


def test_blocks_dealt_to_processes_give_the_digits_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(audits, "BLOCK", 3)
    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(pictures(8, side=48)):
        png.save(image, tmp_path / "pictures" / f"{k}.png", {"seed": k})
    (tmp_path / "pictures" / "8.png").write_bytes(b"")
    options = {"intent": BAROQUE, "batch": 2}
    alone = audit(tmp_path / "pictures", **options)
    for k in (1, 0):
        own = audit(tmp_path / "pictures", folder=tmp_path / "work", shard=(k, 2), **options)
        assert len(own.rows) == (6 if k == 0 else 3)
    merged = audit(tmp_path / "pictures", folder=tmp_path / "work", **options)
    pd.testing.assert_frame_equal(merged.rows, alone.rows, check_exact=True)
    assert merged.summary == alone.summary


def test_a_killed_audit_goes_on_and_counts_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(audits, "BLOCK", 2)
    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(pictures(6, side=48)):
        png.save(image, tmp_path / "pictures" / f"{k}.png", {})
    options = {"folder": tmp_path / "work", "batch": 2}

    def kill(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "pictures", on_progress=kill, **options)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "parts").iterdir()}
    assert kept
    (tmp_path / "work" / "parts" / "part-torn.parquet").write_bytes(b"PAR1 and then nothing")
    report = audit(tmp_path / "pictures", **options)
    pd.testing.assert_frame_equal(report.rows, audit(tmp_path / "pictures", batch=2).rows, check_exact=True)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    before = len(list((tmp_path / "work" / "parts").iterdir()))
    png.save(pictures(1, side=48, seed=9)[0], tmp_path / "pictures" / "3.png", {})  # another picture of the same name is read anew
    again = audit(tmp_path / "pictures", **options).rows
    assert len(list((tmp_path / "work" / "parts").iterdir())) == before + 1
    assert (again["year"] != report.rows["year"]).tolist() == [False, False, False, True, False, False]
