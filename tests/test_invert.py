"""`guide invert`: pictures climbed from noise, and the smallest change that flips a reading, recomputed from its files."""
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import app
from guide.brief import Brief
from guide.invert import aims
from guide.invert.flip import flip, margins
from guide.seeds import generators
from guide.transfer import canvas
from probes import image
from probes.audit import audit
from probes.errors import UserError
from probes.heads.linear import Linear
from probes.style import StyleProbe
from probes.views import Views

skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A cup of coffee, 96 pixels high."""
    return image.resize(image.from_pil(Image.fromarray(skimage.coffee())), (96, 144)).clamp(0, 1)


def run(*arguments):
    return CliRunner().invoke(app, ["invert", *map(str, arguments)])


class Flat:
    """A linear encoder: its embedding is the mean of each colour, so that the nearest change is known in closed form."""

    device, dim = torch.device("cpu"), 3

    def __call__(self, images):
        return images.mean((2, 3))


def test_the_smallest_change_of_a_linear_reading_is_the_one_in_closed_form():
    picture = torch.full((1, 3, 16, 16), .5)
    head = Linear(torch.tensor([[20., 0., 0.], [-20., 0., 0.]]), torch.tensor([-11., 11.]), ("red", "pale"))
    found = flip(Flat(), head, picture, steps=150)
    # It reads as red where the mean of the red values is above 11 / 20: the nearest such picture moves each of the 256 by the same amount.
    nearest = (11 / 20 - float(found.before[:, 0].mean())) * 16
    assert (found.was, found.became) == ("pale", "red")
    assert found.margin > 0
    assert nearest <= found.norm < 1.3 * nearest + .05
    assert found.norm == pytest.approx(float((found.after - found.before).norm()), rel=1e-5)


@pytest.mark.parametrize("wanted", [None, 1])
def test_margins_are_positive_where_the_reading_is_flipped(wanted):
    logits = torch.tensor([[3., 1., 0.], [1., 3., 0.], [0., 1., 3.]])
    assert (margins(logits, 0, wanted) > 0).tolist() == ([False, True, True] if wanted is None else [False, True, False])


def test_a_flip_can_be_read_and_measured_again_from_its_files(embedded_encoder, photo, tmp_path):
    image.to_pil(photo).save(tmp_path / "coffee.png")
    done = run(tmp_path / "coffee.png", "--style", "post-impressionism", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "out" / "report.json").read_text())["rows"][0]
    before, after = (image.load(tmp_path / "out" / row[which]) for which in ("before", "after"))
    assert float((after.double() - before.double()).norm()) == pytest.approx(row["l2_norm"], rel=1e-4)
    head = StyleProbe(embedded_encoder).head
    with torch.no_grad():
        assert head.labels[int(head.logits(embedded_encoder.describe(before)).argmax())] == row["was"] != "post-impressionism"
        assert head.labels[int(head.logits(embedded_encoder.describe(after)).argmax())] == row["became"] == "post-impressionism"
    assert row["grey_levels"] < 4
    assert "than which one to a given label is never smaller" in " ".join(done.output.split())


def test_the_norms_are_those_of_the_files_in_whole_numbers_and_an_audit_of_them_reads_the_flip(photo, tmp_path):
    image.to_pil(photo).save(tmp_path / "coffee.png")
    done = run(tmp_path / "coffee.png", "--steps", "40", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "out" / "report.json").read_text())["rows"][0]
    files = [tmp_path / "out" / row[which] for which in ("before", "after")]
    before, after = (np.asarray(Image.open(file)).astype(np.int64) for file in files)
    apart = after - before
    assert row["l2_norm"] == pytest.approx(math.sqrt((apart * apart).sum()) / 255, rel=1e-6)
    assert not apart[:, :24].any()
    assert not apart[:, 120:].any()
    assert row["grey_levels"] == pytest.approx(math.sqrt((apart[:, 24:120] ** 2).mean()), rel=1e-6)
    assert "only the middle 96 x 96 of 144 x 96 pixels are read" in " ".join(done.output.split())
    assert "than which one to a given label is never smaller" not in done.output
    assert row["largest_grey_levels"] == abs(apart).max() >= 1
    read = audit(files).rows["style_top"].tolist()
    assert read == [row["was"], row["became"]]
    assert read[0] != read[1]


@pytest.mark.parametrize("arguments", [
    {"brief": Brief(styles=(("baroque", 1.),))}, {"brief": Brief(period=(1650, 1650))}, {"brief": Brief(prompt="a ship at sea")},
    {"probe": "scene", "label": "portrait"}, {"probe": "period"}, {"neuron": "layer2:7"}, {"neuron": "conv3:0"},
])  # fmt: skip
def test_every_kind_of_reading_can_be_climbed(embedded_encoder, arguments):
    given = {"brief": Brief(), "probe": "", "label": "", "neuron": ""} | arguments
    wish = aims.wish(embedded_encoder, stems=(), **given)
    begun = canvas.noise(generators([0]), 96, 96)
    optimizer, view = torch.optim.Adam([begun.coefficients], lr=.1), generators([1])
    before = float(wish.read(begun().detach())[0])
    for _ in range(6):
        loss = wish.objective(begun(), view).loss.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    direction = getattr(wish.objective, "terms", None)
    better = float(wish.read(begun().detach())[0]) - before
    assert better * (1 if direction is None or direction[0].measure.higher_is_better else -1) > 0


def test_views_of_an_inversion_come_to_the_borders_nearly_as_often_as_to_the_middle():
    picture = torch.full((1, 3, 48, 48), .5).requires_grad_()
    counted = {}
    for views in (aims.VIEWS, Views(aims.VIEWS.count, aims.VIEWS.smallest, aims.VIEWS.noise)):
        seen = views(picture.expand(32, -1, -1, -1), generators(range(32)), 24)
        assert seen.shape == (32 * 8, 3, 24, 24)
        (gradient,) = torch.autograd.grad(seen.sum(), picture)
        rows = gradient[0].sum((0, 2))
        counted[type(views)] = float((rows[1:5].mean() + rows[-5:-1].mean()) / 2 / rows[20:28].mean())
    assert counted[aims.Mirrored] > .6
    assert counted[Views] < .4


def test_pictures_from_noise_come_with_record_and_sheet(tmp_path):
    done = run("--style", "ukiyo-e", "--seeds", "0-1", "--size", "64", "--steps", "4", "--film", "gif", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"seed-0000-inverted.png", "seed-0001-inverted.png", "seed-0000-inverted.gif", "seed-0001-inverted.gif", "sheet.png",
                     "record.json", "report.csv", "report.json", "trace.jsonl"}
    assert json.loads((tmp_path / "out" / "record.json").read_text())["kind"] == "invert"
    assert "log-odds" in done.output


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "nothing is asked for"), (("--style", "baroque", "--period", "1650"), "given together"), (("--neuron", "layer9:1"), "no stage"),
    (("--neuron", "layer1:99999"), "channels 0 to"), (("--neuron", "17"), "names no channel"), (("--probe", "scene"), "--label"),
    (("--probe", "beauty", "--label", "x"), "no probe"), (("--style", "baroque", "--size", "8"), "8 pixels"),
])  # fmt: skip
def test_what_cannot_be_inverted_is_said(tmp_path, arguments, said):
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


@pytest.mark.parametrize("option", [("--film", "gif"), ("--seeds", "0-1"), ("--seeds", "3")])
def test_what_belongs_to_noise_is_refused_of_a_flip(tmp_path, option):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    done = run(tmp_path / "red.png", *option, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert f"{option[0]} belongs to pictures from noise" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_film_of_pictures_climbed_before_is_said_to_be_missing(tmp_path):
    arguments = ("--style", "ukiyo-e", "--seeds", "0-1", "--size", "40", "--steps", "1", "--out", tmp_path / "out")
    assert run(*arguments).exit_code == 0
    done = run(*arguments, "--film", "gif")
    assert "2 pictures painted before get none" in " ".join(done.output.split())


def test_a_picture_of_one_pixel_is_refused_and_leaves_no_folder(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    done = run(tmp_path / "dot.png", "--style", "baroque", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "1 x 1 pixels, too few to be read" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_reading_of_years_does_not_flip(tmp_path, photo):
    image.to_pil(photo).save(tmp_path / "coffee.png")
    done = run(tmp_path / "coffee.png", "--probe", "period", "--out", tmp_path / "out")
    assert done.exit_code == 2
    with pytest.raises(UserError):
        flip(Flat(), Linear(torch.eye(3), torch.zeros(3), ("a", "b", "c")), torch.full((1, 3, 8, 8), .5), "d")
