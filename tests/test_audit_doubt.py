"""Alarms of the artifact probe that do not count: pictures, and sets, unlike the paintings that it is known on."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

from probes import audit
from probes.auditing import columns, damage, doubt, reasons, summary
from probes.auditing.intention import Intention
from probes.auditing.sentences import sentences
from probes.encoders import load
from probes.folding import folded
from probes.heads import fused, patch


def rows(percentiles, alarmed, styles=("",)):
    cells = [{"image": f"{k}.png", "error": "", "artifacts": 0.5, "domain_percentile": float(percentile),
              "out_of_domain": percentile >= 99, "artifact_kind": "blur" if k in alarmed else "", "style_target": styles[k % len(styles)]}
             for k, percentile in enumerate(percentiles)]  # fmt: skip
    return columns.of_rows(cells)


def test_a_picture_out_of_domain_does_not_count():
    found = summary._artifacts(rows([10, 50, 99, 100], {0, 2}), {}, None)
    assert (found["read"], found["damaged"], found["doubtful"], found["rate"]) == (2, 1, 1, 0.5)
    said = list(sentences_of(found, 4))
    assert said[0].startswith("Artifacts: 1 of 2 images is damaged (50%, 95 % interval 9% to 91%): 1 blur.")
    assert said[1] == "Of the 4 images that were read 2 are left out of that rate: 2 too unlike paintings."
    assert said[2].startswith("1 image sets off the artifact probe and is not counted")


def sentences_of(artifacts, read):
    from probes.auditing.sentences import _damage
    return _damage({"artifacts": artifacts, "artifacts_head": True, "read": read})


@pytest.mark.parametrize(("percentiles", "is_foreign"), [
    ([96] * 8, True),
    ([96] * 7, False),  # too few to judge the set by
    ([96, *[50] * 19], False),  # as many as real paintings have
    ([*[96] * 3, *[50] * 22], False),  # no more than chance of damaged ones
    ([*[96] * 9, *[50] * 8], True),  # photographs
])  # fmt: skip
def test_a_set_is_judged_by_how_many_lie_far(percentiles, is_foreign):
    assert bool(doubt.foreign(rows(percentiles, ()))) == is_foreign


def test_of_a_set_unlike_paintings_no_alarm_counts_and_the_rows_say_so():
    table = rows([96] * 5 + [99] + [40] * 6, {0, 5, 7})
    doubt.mark(table)
    assert table["reason"].eq(doubt.UNCOUNTED).tolist() == [k in (0, 7) for k in range(12)]  # the sixth's says so already
    found = summary._artifacts(table, {}, doubt.foreign(table))
    assert (found["rate"], found["damaged"], found["doubtful"]) == (None, 0, 3)
    said = list(sentences_of(found, 12))
    assert len(said) == 1
    assert said[0].startswith("Damage is not counted: 50% of these pictures lie beyond 95 % of real paintings")
    assert "sets off at 3 of 12" in said[0]


def test_beside_the_rate_stands_how_often_real_paintings_of_the_styles_alarm():
    found = summary._artifacts(rows([50] * 4, {1}, ("cubism", "baroque")), {"cubism": 0.2, "baroque": 0.0}, None)
    assert found["expected"] == pytest.approx(0.1)
    assert "of undamaged paintings of these styles 10% look so too" in next(iter(sentences_of(found, 4)))
    assert summary._artifacts(rows([50], ()), {"cubism": 0.2}, None)["expected"] is None


def test_the_reason_says_that_an_alarm_does_not_count():
    row = {"style_probability": 0.5, "style_top": "baroque", "year": 1700.0}
    row |= {"artifacts": 0.9, "artifact_kind": "blur", "artifact_where": "left"}
    assert reasons.reason(row, Intention()).endswith("artifacts 0.90 (blur) on the left")
    assert "too unlike the paintings" in reasons.reason(row | {"out_of_domain": True}, Intention())


def test_coloured_squares_are_no_damaged_paintings(tmp_path):
    squares = F.interpolate(torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0)), scale_factor=8).mul(255).byte()
    for k, one in enumerate(squares):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(tmp_path / f"{k}.png")
    report = audit(tmp_path)
    assert report.summary["artifacts"]["rate"] is None
    assert any(sentence.startswith("Damage is not counted: ") for sentence in report.summary["sentences"])
    assert not any(sentence.startswith("Artifacts: ") for sentence in sentences(report.summary))
    assert all(group["damaged_rate"] is None for group in report.summary["styles"].values())


@torch.no_grad()
def test_what_reads_faster_reads_the_same(monkeypatch):
    encoder, pictures = load("embedded"), torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    eyes = folded(encoder)
    assert eyes is not encoder
    assert eyes.fingerprint == encoder.fingerprint
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in eyes.clip.visual.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.clip.visual.modules())
    torch.testing.assert_close(eyes.describe(pictures), encoder.describe(pictures), atol=1e-4, rtol=1e-4)
    probe = damage.load(encoder)
    quick = probe.look(pictures)
    monkeypatch.setattr(patch, "gelu", lambda layer, x: F.gelu(layer(x)))
    plain = probe.look(pictures)
    for name in ("severity", "map", "kind_probabilities"):
        torch.testing.assert_close(quick[name], plain[name], atol=1e-5, rtol=1e-4)


def test_a_gradient_takes_the_plain_way():
    layer = torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    out = fused.gelu(layer, x)
    out.sum().backward()
    assert x.grad.abs().sum() > 0
    torch.testing.assert_close(out.detach(), fused.gelu(layer, x.detach()), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_damage_is_read_in_groups_of_one_shape_in_order():
    probe, generator = damage.load(load("embedded")), torch.Generator().manual_seed(0)
    shapes = [(64, 64), (64, 80), (64, 64), None, (64, 64), (64, 64), (64, 64), (64, 64)]
    pictures = [None if shape is None else (0.5 + 0.01 * k * torch.randn(1, 3, *shape, generator=generator)).clamp(0, 1)
                for k, shape in enumerate(shapes)]  # fmt: skip
    found = damage.read(probe, pictures)
    assert found[3] == ({}, b"")
    for picture, (told, _) in zip(pictures, found, strict=True):
        if picture is not None:
            assert told["artifacts"] == pytest.approx(float(probe.look(picture)["severity"][0]), abs=1e-5)
    assert np.unique([told["artifacts"] for told, _ in found if told]).size > 3


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """White twice, once as transparency throughout; black; grey; and a picture in full colours and in 32 of them."""
    folder = tmp_path_factory.mktemp("odd")
    Image.new("RGB", (96, 96), "white").save(folder / "white.png")
    Image.new("RGBA", (96, 96), (200, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (96, 96), "black").save(folder / "black.png")
    Image.new("RGB", (64, 96), (130, 130, 130)).save(folder / "grey.png")
    smooth = F.interpolate(torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1)), size=(96, 96), mode="bicubic").clamp(0, 1)
    picture = Image.fromarray(smooth[0].mul(255).byte().permute(1, 2, 0).numpy())
    picture.convert("P").save(folder / "palette.gif")
    return audit(folder)


def test_blank_pictures_say_that_their_readings_do_not_hold(odd):
    rows = odd.rows[odd.rows["image"].str.endswith(".png")]
    assert rows["reason"].str.startswith("blank, so that its readings do not hold: reads as ").all()
    assert rows["notes"].str.contains("blank, of one colour").all()
    console = Console(width=200, file=io.StringIO())
    console.print(odd.table())
    assert console.file.getvalue().count("no: blank") == 4


def test_blank_pictures_repeat_those_of_their_colour_alone(odd):
    found = dict(zip(odd.rows["image"].map(lambda name: Path(name).stem), odd.rows["duplicate_of"], strict=True))
    assert Path(found["white"]).stem == "clear"
    assert found["clear"] == found["black"] == found["grey"] == found["palette"] == ""


def test_a_palette_is_no_damage(odd):
    row = odd.rows[odd.rows["image"].str.endswith(".gif")].iloc[0]
    assert row["artifact_kind"]
    assert "but palette colours, whose dots read as " in row["reason"]
    assert odd.summary["artifacts"]["read"] == 0
    assert not doubt.counts(odd.rows).any()


def test_the_reason_says_that_a_picture_is_out_of_domain():
    row = {"style_probability": 0.5, "style_top": "baroque", "year": 1700.0, "out_of_domain": True, "notes": []}
    assert reasons.reason(row, Intention()).startswith("out of domain, so that its readings do not hold: reads as baroque 0.50")
    assert reasons.reason(row | {"out_of_domain": False}, Intention()).startswith("reads as baroque")


def test_what_does_not_count_may_be_of_palette_colours(odd):
    assert any("not counted as damaged: of palette colours, no paintings like those" in sentence for sentence in odd.summary["sentences"])
