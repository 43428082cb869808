"""Comparisons: truth planted in the rows is found; a killed run goes on to the same numbers."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from guide import compare, record, run
from guide.brief import Brief
from guide.comparison import Comparison
from probes.errors import UserError
from probes.image import load


def rows(guide=1.0, verdict=0.5, prompts=10, seeds=4, styles=("baroque",), noise=0.3):
    """Readings where the guided pictures gain what is asked for, give or take a share that each prompt has in common."""
    draws = np.random.default_rng(1)
    found = []
    for style in styles:
        for prompt in range(prompts):
            shared = noise * draws.normal(size=2)
            for seed in range(seeds):
                base = draws.normal(size=2)
                for variant, gains in (("unguided", (0, 0)), ("clean-image", (guide, verdict) + shared + noise * draws.normal(size=2))):
                    odds = base + gains
                    found.append(
                        {
                            "style_target": style,
                            "prompt": f"{prompt}",
                            "seed": seed,
                            "variant": variant,
                            "style_log_odds": odds[0],
                            "verdict_log_odds": odds[1],
                            "style_probability": 0.5,
                            "verdict_style_probability": 0.5,
                            "kept": odds[1] > 0,
                            "year_error": nan,
                            "content": nan,
                            "verdict_severity": 0.1,
                            "seconds": 1.0 + (variant != "unguided"),
                            "denoiser": 25.0,
                            "ms_ssim": 0.9,
                            "verdict_feature_distance": 0.1,
                        }
                    )
    frame = pd.DataFrame(found)
    return frame.assign(kept=frame["kept"].astype("boolean")).sample(frac=1, random_state=0)  # pairing must not rest on the order


def compared(frame, recall=None):
    return Comparison.of(frame, {}, ("unguided", "clean-image"), recall or {"baroque": 0.6})


def test_planted_gains_are_found():
    baseline, guided = compared(rows()).effects
    gain, verdict = guided.differences["guide_gain"], guided.differences["verdict_gain"]
    assert gain.low < 1 < gain.high
    assert verdict.low < 0.5 < verdict.high
    assert gain.low > 0.5
    table = rows().pivot(index=["prompt", "seed"], columns="variant", values="style_log_odds")
    assert gain.mean == pytest.approx((table["clean-image"] - table["unguided"]).mean())
    assert guided.transfer.low < 0.5 < guided.transfer.high
    assert guided.differences["kept_difference"].mean == pytest.approx(guided.means["kept"] - baseline.means["kept"])
    assert (gain.pairs, gain.clusters, guided.recall) == (40, 10, 0.6)
    assert (baseline.means["seconds"], guided.means["seconds"]) == (1, 2)
    assert isnan(guided.differences["year_error_difference"].mean)
    assert baseline.differences == {}


def test_transfer_is_undefined_where_the_guide_gained_nothing():
    guided = compared(rows(guide=0.0)).effects[1]
    assert not guided.differences["guide_gain"].excludes_zero
    assert isnan(guided.transfer.mean)
    assert "contains 0" in guided.transfer.method


def test_all_styles_stand_in_a_row_of_their_own():
    comparison = compared(rows(styles=("baroque", "ukiyo-e"), prompts=3), {"baroque": 0.6, "ukiyo-e": 0.8})
    assert [(e.style, e.strategy) for e in comparison.effects][-2:] == [("all", "unguided"), ("all", "clean-image")]
    assert comparison.effects[-1].differences["guide_gain"].clusters == 6
    assert comparison.effects[-1].recall == pytest.approx(0.7)


def test_a_style_that_the_verdict_does_not_know_has_no_verdict():
    frame = rows().assign(verdict_log_odds=nan, kept=pd.NA)
    frame["kept"] = frame["kept"].astype("boolean")
    guided = compared(frame, {"cubism": 0.5}).effects[1]
    assert guided.recall is None
    assert isnan(guided.differences["verdict_gain"].mean)
    assert isnan(guided.transfer.mean)


def test_one_prompt_says_how_it_was_clustered():
    comparison = compared(rows(prompts=1, seeds=8))
    assert any("one prompt only" in note for note in comparison.notes)


def test_the_table_names_gains_recall_and_what_is_missing(tmp_path):
    comparison = compared(rows())
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(comparison.table())
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for part in ("guide", "verdict", "transfer", "recall on real", "60%", "MS-SSIM", "features", "LPIPS", "denoiser", "bootstrap-t"):
        assert part in text


def request(folder, **changes):
    given = {"brief": Brief(), "out": folder, "seeds": (0, 4, 1), "steps": 2, "device": "cpu", "batch": 2, "command": "guide compare"}
    return run.Request(**given | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One comparison of the embedded model, run through."""
    asked = request(tmp_path_factory.mktemp("whole"))
    return asked, compare.compare(asked, ["baroque"], ["unguided", "clean-image"])


def test_a_comparison_writes_what_it_found(finished):
    asked, comparison = finished
    frame = comparison.report.rows
    assert len(frame) == 6
    assert frame["error"].eq("").all()
    assert frame["style_log_odds"].notna().all()
    guided = frame[frame["variant"] == "clean-image"]
    assert (guided["ms_ssim"] < 0.9999).all()
    assert frame.loc[frame["variant"] == "unguided", "ms_ssim"].tolist() == pytest.approx([1] * 3)
    assert (guided["seconds"] > 0).all()
    assert guided["denoiser"].eq(2).all()
    for name in ("record.json", "results.csv", "results.json", "sheet.png", "trace.jsonl"):
        assert (asked.out / name).stat().st_size > 0
    read = record.read(asked.out)
    assert (read.complete, read.kind, len(read.rows)) == (True, "compare", 6)
    assert not list(asked.out.rglob("*.part"))


def test_a_killed_comparison_goes_on_to_the_same_numbers(finished, tmp_path, monkeypatch):
    _, whole = finished
    asked = request(tmp_path)
    made = []

    def dying(*args, **kwargs):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return run.sample(*args, **kwargs)

    monkeypatch.setattr(compare, "sample", dying)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(asked, ["baroque"], ["unguided", "clean-image"])
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("seed-*.png")}
    assert len(left) == 4
    monkeypatch.setattr(compare, "sample", run.sample)
    continued = compare.compare(asked, ["baroque"], ["unguided", "clean-image"])
    assert all(path.stat().st_mtime_ns == then for path, then in left.items())
    keep = whole.report.rows.columns.difference(["seconds"])
    pd.testing.assert_frame_equal(continued.report.rows[keep], whole.report.rows[keep])
    with pytest.raises(UserError, match="another"):
        compare.compare(request(tmp_path, steps=5), ["baroque"], ["unguided", "clean-image"])


def test_a_picture_is_what_generate_makes_of_that_seed(finished, tmp_path):
    asked, _ = finished
    result = run.generate(request(tmp_path, brief=Brief(styles=(("baroque", 1.0),))))
    for seed in asked.seeds:
        one, other = load(run.picture(asked.out / "baroque", seed, "clean-image")), load(run.picture(result.folder, seed, "guided"))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("styles", "strategies", "said"),
    [
        (["barok"], ["unguided", "clean-image"], "baroque"),
        ([], ["unguided", "clean-image"], "No style"),
        (["baroque"], ["unguided"], "two different"),
        (["baroque"], ["unguided", "cleanimages"], "clean-image"),
    ],
)
def test_bad_requests_are_one_sentence(tmp_path, styles, strategies, said):
    with pytest.raises(UserError, match=said):
        compare.compare(request(tmp_path), styles, strategies)
