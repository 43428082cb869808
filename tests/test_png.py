"""PNGs carry their parameters, readable by Pillow, and an XMP packet that parses whatever the prompt holds."""

import json
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from guide import png
from probes.errors import UserError

NASTY = "lemons & <jug> \"q\" 's' ]]> 浮世絵 \x00\x07 \ud800 =1+1\nSteps: 3, Seed: 9"
EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@pytest.mark.parametrize("prompt", ["a still life with lemons", NASTY, ""])
def test_what_is_written_is_read(tmp_path, prompt):
    written = {"prompt": prompt, "seed": 3, "steps": 25, "styles": [["baroque", 0.7], ["ukiyo-e", 0.3]], "size": "32x24"}
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    png.save(image, tmp_path / "sub" / "image.png", written)
    assert png.parameters(tmp_path / "sub" / "image.png") == written
    with Image.open(tmp_path / "sub" / "image.png") as read:
        assert read.size == (32, 24)
        line = read.text["parameters"]
        packet = read.text["XML:com.adobe.xmp"]
    assert line.splitlines()[-1] == 'Steps: 25, Seed: 3, Size: 32x24, Styles: "baroque:0.7, ukiyo-e:0.3"'
    root = ElementTree.fromstring(packet)
    assert [element.text for element in root.iter(EXT)] == [png.SOURCE_TYPE]
    assert png.SOURCE_TYPE.endswith("trainedAlgorithmicMedia")
    said = next(root.iter(f"{RDF}li")).text or ""
    assert said == prompt.replace("\x00", "").replace("\x07", "").replace("\ud800", "")


def test_only_the_finished_file_is_there(tmp_path):
    png.save(Image.new("RGB", (8, 8)), tmp_path / "image.png", {"prompt": "x"})
    with pytest.raises(TypeError):
        png.save(Image.new("RGB", (8, 8)), tmp_path / "other.png", {"prompt": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_pixels_survive(tmp_path):
    image = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(1)) / 255
    png.save(image, tmp_path / "image.png", {})
    from probes.image import load

    assert torch.equal((load(tmp_path / "image.png")[0] * 255).round(), (image * 255).round())


def test_files_without_parameters_have_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    info = png.PngImagePlugin.PngInfo()
    info.add_text("guide", "{not json")
    Image.new("RGB", (8, 8)).save(tmp_path / "bad.png", pnginfo=info)
    for name in ("plain.png", "plain.jpg", "broken.png", "bad.png", "absent.png"):
        assert png.parameters(tmp_path / name) is None


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*choose another folder"):
        png.save(Image.new("RGB", (8, 8)), tmp_path / "taken" / "image.png", {})


def test_parameters_are_json_that_other_programs_read(tmp_path):
    png.save(Image.new("RGB", (8, 8)), tmp_path / "image.png", {"prompt": NASTY})
    with Image.open(tmp_path / "image.png") as read:
        assert json.loads(read.text["guide"])["prompt"] == NASTY
