"""Distances of photographs that are not square: every part of them is seen, also where the encoder itself would cut the ends off."""
import pytest
import torch
from PIL import Image

from guide.transfer import content
from guide.transfer.windows import Windows
from probes import encoders, image

skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")
DISTANCES = ("structure", "self-similarity", "content", "ms-ssim")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A cup of coffee, 64 x 96."""
    return image.resize(image.from_pil(Image.fromarray(skimage.coffee())), (64, 96), "bilinear").clamp(0, 1)


@pytest.fixture(scope="module", params=["embedded", "vit"])
def encoder(request, embedded_encoder, clip_folder):
    """One that reads maps of pictures of any shape, and a transformer, which reads squares alone."""
    return embedded_encoder if request.param == "embedded" else encoders.load(clip_folder("vit"))


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("upright", [False, True])
def test_damage_at_either_end_is_seen(encoder, photo, name, upright):
    damaged = [photo.clone() for _ in range(2)]
    damaged[0][..., :12], damaged[1][..., -12:] = 1 - photo[..., :12], 1 - photo[..., -12:]
    if upright:
        photo, damaged = photo.mT, [one.mT for one in damaged]
    measure = content.distances(encoder, photo, (name,))[name]
    far = [float(measure(one)) for one in damaged]
    assert float(measure(photo)) == pytest.approx(0, abs=1e-5)
    assert min(far) > 1e-3
    assert measure(torch.cat([photo, *damaged])).tolist() == pytest.approx([0, *far], rel=1e-3, abs=1e-5)
    for place in (3, 5):  # where the windows reach beyond both ends
        still, *found = measure(torch.cat([photo, *damaged]), place).tolist()
        assert still == pytest.approx(0, abs=1e-5)
        assert all(one > .4 * held for one, held in zip(found, far, strict=True))


def test_content_is_the_mean_over_squares_and_of_a_square_what_it_was(embedded_encoder, photo):
    other = photo.flip(-1)
    measure = content.distances(embedded_encoder, photo, ("content",))["content"]
    cosines = [float(embedded_encoder(other[..., cut]) @ embedded_encoder(photo[..., cut])[0]) for cut in (slice(64), slice(32, 96))]
    assert float(measure(other)) == pytest.approx(1 - sum(cosines) / 2, abs=1e-5)
    square, turned = photo[..., :64], other[..., :64]
    measure = content.distances(embedded_encoder, square, ("content",))["content"]
    for place in (0, 3):
        assert torch.equal(measure(turned, place), 1 - embedded_encoder(turned) @ embedded_encoder(square)[0])


@pytest.mark.parametrize(("size", "count", "starts"), [
    ((40, 40), 1, [0]), ((40, 41), 2, [0, 1]), ((40, 80), 2, [0, 40]), ((40, 100), 3, [0, 30, 60]), ((100, 40), 3, [0, 30, 60]),
])  # fmt: skip
def test_windows_are_as_few_as_reach_from_end_to_end(embedded_encoder, size, count, starts):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    picture = ((rows + columns) / 200).expand(2, 3, *size)
    windows = Windows.of(embedded_encoder, picture)
    cut = windows(picture)
    assert windows.count == count
    assert cut.shape == (2 * count, 3, 40, 40)
    torch.testing.assert_close(cut[:, 0, 0, 0] * 200, torch.tensor(starts * 2, dtype=torch.float32))
    assert windows(picture[..., ::2, ::2]).shape == (2 * count, 3, 20, 20)
    maps = torch.arange(2. * count * 2 * 3 * 3).view(2 * count, 2, 3, 3)
    assert torch.equal(windows.joined(maps)[1, 1], torch.cat([maps[count + k, 1] for k in range(count)]))


@pytest.mark.parametrize("size", [(40, 64), (112, 40)])
def test_over_all_shifts_every_place_counts_alike(embedded_encoder, size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    windows, shifts = Windows.of(embedded_encoder, picture), 64
    seen = sum(windows(picture, (shift + .5) / shifts).sum() for shift in range(shifts)) / shifts
    (counted,) = torch.autograd.grad(seen, picture)
    counted = counted[..., 1:-1, 1:-1]  # the mirror does not repeat the outermost line
    torch.testing.assert_close(counted, torch.full_like(counted, windows.count * 40 / max(size)), rtol=.06, atol=0)


def test_an_encoder_that_squeezes_or_pads_reads_the_whole_at_once(embedded_encoder, photo, monkeypatch):
    for mode in ("squash", "longest"):
        monkeypatch.setattr(embedded_encoder, "resize_mode", mode)
        assert Windows.of(embedded_encoder, photo).count == 1
