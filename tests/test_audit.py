"""Audits: any pictures, a row each in order, the probes' own scores, and a verdict that refuses its family."""

import csv
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from guide import png, sheet
from guide.brief import Brief
from probes import audit as audits
from probes import encoders, judge
from probes.artifacts import ArtifactProbe
from probes.audit import audit
from probes.auditing import damage
from probes.auditing.intention import Intention
from probes.auditing.report import COLUMNS
from probes.errors import UserError
from probes.heads.patch import Network, Patch
from probes.image import load
from probes.origin import OriginProbe
from probes.style import StyleProbe

BAROQUE = Brief(prompt="lemons and a jug", styles=(("baroque", 1.0),), period=(1600, 1725))


def pictures(count, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)).mul(255).round() / 255


@pytest.fixture
def folder(tmp_path):
    """Three sizes, in an order that sorts 2 before 10, one of them with parameters."""
    for name, side in (("1.png", 64), ("2.png", 96), ("10.png", 64)):
        png.save(pictures(1, side, seed=side)[0], tmp_path / name, {})
    return tmp_path


def test_rows_come_in_order_with_every_column(folder):
    report = audit(folder, intent=BAROQUE)
    assert tuple(report.rows.columns) == COLUMNS
    assert [Path(name).name for name in report.rows["image"]] == ["1.png", "2.png", "10.png"]
    for column in ("style_probability", "year", "year_error", "content", "figures", "made_by_model", "verdict_severity", "kept"):
        assert report.rows[column].notna().all(), column
    assert report.rows["width"].tolist() == [64, 96, 64]
    assert report.rows["style_target"].eq("baroque").all()
    assert report.rows["style_probability"].between(0, 1).all()
    assert report.rows["year_low"].le(report.rows["year_high"]).all()
    assert report.rows["reason"].str.contains("meant 1600-1725").all()
    baroque = report.summary["styles"]["baroque"]
    assert (baroque["judged"], baroque["copies"]) == (2, 1)  # 10.png is 1.png, byte for byte
    assert any("real ones" in sentence for sentence in report.summary["sentences"])


def test_no_number_of_a_table_takes_a_picture_for_a_models_without_its_doubt(folder, embedded_encoder):
    (folder / "3.png").write_bytes(b"no picture")
    report = audit(folder)
    report.to_csv(folder / "audit.csv")
    with (folder / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    doubt = OriginProbe(embedded_encoder).head.reliability
    assert "of 3,244 real paintings 16 % read so" in doubt
    assert [row["made_by_model_reliability"] for row in rows] == [doubt if row["made_by_model"] else "" for row in rows]
    assert [bool(row["made_by_model"]) for row in rows] == [True, True, False, True]


def test_pictures_that_left_their_run_say_what_steered_them(tmp_path):
    for k, strategy in enumerate(("clean-image", "unguided")):
        png.save(pictures(1)[0], tmp_path / f"{k}.png", {"encoder": "embedded", "strategy": strategy, "model": "embedded"})
    report = audit(tmp_path)
    assert report.summary["encoder"]["steered"]
    assert report.rows["strategy"].tolist() == ["clean-image", "unguided"]
    assert not audit(tmp_path / "1.png").summary["encoder"]["steered"]


def test_a_score_is_the_one_that_steers(folder):
    encoder = encoders.load("embedded")
    with torch.no_grad():
        scores = [float(StyleProbe(encoder).aim(BAROQUE)(load(folder / name))) for name in ("1.png", "2.png", "10.png")]
    report = audit(folder, intent=BAROQUE)
    # A file is shrunk in 8 bits, as open_clip's own transform shrinks it; the loss, in floats.
    assert report.rows["style_log_odds"].tolist() == pytest.approx(scores, abs=1e-2)
    assert torch.tensor(scores).sigmoid().tolist() == pytest.approx(report.rows["style_probability"].tolist(), abs=1e-3)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_readings_do_not_depend_on_the_batch(folder, batch):
    alone = audit([folder / "2.png"], intent=BAROQUE).rows.iloc[0]
    row = audit(folder, intent=BAROQUE, batch=batch).rows.iloc[1]
    for name in ("style_log_odds", "year", "content", "verdict_log_odds", "verdict_severity"):
        assert row[name] == pytest.approx(alone[name], abs=2e-3)


def test_files_and_tensors_read_the_same(folder):
    images = torch.cat([load(folder / "1.png"), load(folder / "10.png")])
    files = audit([folder / "1.png", folder / "10.png"], intent=BAROQUE).rows
    tensors = audit(images, intent=[BAROQUE, BAROQUE]).rows
    assert tensors["style_log_odds"].tolist() == pytest.approx(files["style_log_odds"].tolist(), abs=1e-2)
    assert tensors["image"].tolist() == ["image 0", "image 1"]


def test_what_cannot_be_read_has_a_row_with_its_reason(folder):
    (folder / "3.png").write_bytes(b"")
    (folder / "4.jpg").write_text("hello")
    whole = (folder / "1.png").read_bytes()
    (folder / "5.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (3, 200)).save(folder / "6.png")
    sheet.save(folder / "sheet.png", "title", [])
    report = audit([*sorted(folder.iterdir()), folder / "absent.png"], intent=BAROQUE)
    errors = {Path(row["image"]).name: row["error"] for _, row in report.rows.iterrows()}
    assert {name for name, error in errors.items() if error} == {"3.png", "4.jpg", "5.png", "6.png", "sheet.png", "absent.png"}
    assert "contact sheet" in errors["sheet.png"]
    assert "too few" in errors["6.png"]
    assert report.summary["read"] == 3
    assert any("6 of 9" in sentence for sentence in report.summary["sentences"])


def test_without_an_intention_the_parameters_of_a_png_count(tmp_path):
    said = {"subject": "lemons", "styles": [["baroque", 0.7], ["ukiyo-e", 0.3]], "period": [1600, 1650], "seed": 5, "variant": "guided"}
    png.save(pictures(1)[0], tmp_path / "a.png", said)
    png.save(pictures(1)[0], tmp_path / "b.png", {"styles": 7, "period": "soon", "subject": "a jug"})
    png.save(pictures(1)[0], tmp_path / "c.png", {"styles": [["no such style", 1]], "period": [1700, 1600]})
    first, second, third = (row for _, row in audit(tmp_path).rows.iterrows())
    assert (first["style_target"], first["seed"], first["variant"]) == ("baroque:0.7,ukiyo-e:0.3", 5, "guided")
    assert first["content"] == first["content"]
    assert second["style_target"] == third["style_target"] == ""
    assert audit(tmp_path, intent=BAROQUE).rows["style_target"].eq("baroque").all()
    assert Intention.of(BAROQUE).period == (1600, 1725)


def test_nothing_asked_is_read_all_the_same():
    row = audit(pictures(1)).rows.iloc[0]
    assert row["style_top"]
    assert row["verdict_style"]
    assert row["kept"] is not True
    assert row["reason"].removeprefix("out of domain, so that its readings do not hold: ").startswith("reads as")  # the picture is noise


def test_a_style_that_the_verdict_does_not_know_is_said():
    labels = judge.load("verdict").labels
    report = audit(pictures(1), intent=Brief(styles=(("thangka", 1.0),)))
    assert "thangka" not in labels
    assert report.rows["kept"].isna().all()
    assert report.rows["verdict_log_odds"].isna().all()
    assert "does not know" in report.rows["reason"].iloc[0]
    assert any("does not know this style" in sentence for sentence in report.summary["sentences"])


def test_a_verdict_refuses_what_its_family_steered(folder):
    verdict = judge.load("verdict")
    with pytest.raises(UserError, match="'verdict' cannot give a verdict"):
        audit(folder, steered_by=[verdict.lineage])
    mixed = audit(folder, intent=[BAROQUE, Brief(styles=(("thangka", 1.0),)), BAROQUE]).summary["reliability"]["style"]
    assert "of some pictures: not validated: the head does not know thangka" in mixed
    report = audit(folder, intent=BAROQUE, steered_by=["embedded"])
    assert any("encoder that steered" in sentence for sentence in report.summary["sentences"])
    assert audit(folder, judge=None).rows["verdict_style"].eq("").all()


def test_intentions_have_to_match_the_images(folder):
    with pytest.raises(UserError, match="3 images and 2 intentions"):
        audit(folder, intent=[BAROQUE, BAROQUE])


def test_the_module_itself_can_be_called():
    assert audits(pictures(1), judge=None).rows["style_top"].iloc[0]


def test_the_audit_needs_nothing_of_guide():
    blocked = (
        "import sys; sys.modules['guide'] = None; sys.modules['diffusers'] = None; from probes import audit; print(audit.audit.__name__)"
    )
    root = Path(__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", blocked], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "audit"


def test_damage_has_a_score_a_kind_a_place_and_a_map(tmp_path, monkeypatch):
    encoder = encoders.load("embedded")
    pixels = pictures(2, side=64)
    png.save(pixels[0], tmp_path / "a.png", {})
    png.save(pixels[1].repeat(1, 2, 1), tmp_path / "b.png", {})
    probe = ArtifactProbe(encoder, Patch(Network(2), ("smear", "seam"), alarm=-1.0, reliability="checked on 4 works"))
    monkeypatch.setattr(damage, "load", lambda _: probe)
    report = audit(tmp_path, gallery=True)
    assert report.rows["artifacts"].between(0, 1).all()
    assert report.rows["artifact_kind"].isin(["smear", "seam"]).all()
    assert report.rows["reason"].str.contains("artifacts").all()
    assert report.rows["artifacts"][1] == pytest.approx(float(probe.look(load(tmp_path / "b.png"))["severity"][0]), abs=1e-5)
    shapes = [Image.open(BytesIO(damaged)).size for _, damaged in report.pictures([0, 1])]
    assert shapes == [(8, 8), (8, 16)]
    report.save(tmp_path / "out")
    assert "damage maps" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert report.summary["unasked_reliability"]["artifacts"] == "checked on 4 works"
