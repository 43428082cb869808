"""Images: files of every kind become the one convention, and what is none is told in a sentence."""
import numpy as np
import pytest
import torch
from PIL import Image

from probes import image
from probes.errors import UserError


def gradient(mode="RGB"):
    pixels = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif"])
def test_a_file_is_read_as_rgb_in_the_unit_range(tmp_path, name):
    gradient().save(tmp_path / name)
    images = image.load(tmp_path / name)
    assert images.shape == (1, 3, 20, 30)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, image.from_pil(gradient()), atol=.1, rtol=0)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    images = image.from_pil(gradient(mode))
    assert images.shape == (1, 3, 20, 30)
    assert image.check(images) is images


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (image.from_pil(clear) == 1).all()


def test_sixteen_bit_greys_keep_their_range(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "grey.png")
    torch.testing.assert_close(image.load(tmp_path / "grey.png"), torch.full((1, 3, 4, 4), .5), atol=1e-3, rtol=0)


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient().save(tmp_path / "turned.jpg", exif=exif)
    assert image.load(tmp_path / "turned.jpg").shape == (1, 3, 30, 20)


def test_a_picture_survives_the_way_to_pillow_and_back():
    images = image.from_pil(gradient())
    assert torch.equal(image.from_pil(image.to_pil(images)), images)
    assert torch.equal(image.from_pil(image.to_pil(images[0])), images)
    with pytest.raises(UserError, match="batch of 2"):
        image.to_pil(images.repeat(2, 1, 1, 1))


def test_missing_corrupt_and_truncated_files_are_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no image"):
        image.load(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match="not an image"):
        image.load(tmp_path / "text.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read"):
        image.load(tmp_path / "half.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match="not an image"):
        image.load(tmp_path / "empty.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        image.load(tmp_path)


def test_find_reads_folders_patterns_and_files_in_natural_order(tmp_path):
    for name in ("10.png", "2.png", "deeper/1.jpg", ".hidden.png", ".thumbnails/3.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        gradient().save(tmp_path / name) if name.endswith(("png", "jpg")) else (tmp_path / name).touch()
    assert [path.name for path in image.find(tmp_path)] == ["2.png", "10.png", "1.jpg"]
    assert [path.name for path in image.find(f"{tmp_path}/*.png")] == ["2.png", "10.png"]
    assert image.find(tmp_path / "2.png") == [tmp_path / "2.png"]
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "absent", f"{tmp_path}/*.gif"):
        with pytest.raises(UserError, match=r"no images|matches no image"):
            image.find(nothing)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(10, 12), (50, 70), (20, 9)])
def test_resizing_is_pillows(mode, size):
    ours = image.resize(image.from_pil(gradient()), size, mode)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    theirs = image.from_pil(gradient().resize(size[::-1], filters[mode]))
    assert (ours - theirs).abs().max() < 2.5 / 255


def test_clamp_cuts_the_value_and_not_the_gradient():
    values = torch.tensor([-.5, .5, 1.5], requires_grad=True)
    out = image.clamp(values)
    assert out.tolist() == [0, .5, 1]
    out.sum().backward()
    assert values.grad.tolist() == [1, 1, 1]
