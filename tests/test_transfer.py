"""The parts of a transfer: canvas, colours, brushwork, distances, and the loop that descends them."""
from pathlib import Path

import pytest
import torch
from PIL import Image

from guide.brief import Brief
from guide.loops.pixels import STILL, Aim, Pace, paint, sizes, variation, zoomed
from guide.transfer import brushwork, colour, content, film, pixels, statistics
from guide.transfer.canvas import Canvas, noise
from guide.transfer.pixels import composed, held
from guide.transfer.request import Request
from guide.transfer.target import of_references, of_styles
from probes import image
from probes.constraints import Constraint
from probes.errors import UserError
from probes.judges import STYLES

skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """An astronaut, public domain, 96 pixels."""
    return image.resize(image.from_pil(Image.fromarray(skimage.astronaut())), 96, "bilinear").clamp(0, 1)


@pytest.fixture(scope="module")
def other() -> torch.Tensor:
    """Coffee, as a reference."""
    return image.resize(image.from_pil(Image.fromarray(skimage.coffee())), (80, 120), "bilinear").clamp(0, 1)


def test_a_canvas_begins_as_its_base_bit_for_bit(photo):
    assert torch.equal(Canvas(photo)().detach(), photo)


def test_a_canvas_is_carried_over_to_a_larger_base(photo):
    canvas = Canvas(photo)
    with torch.no_grad():
        canvas.coefficients[:, :, :3, :3] += .05 * torch.randn(1, 3, 3, 3, 2, generator=torch.Generator().manual_seed(0))
    large = canvas.on(image.resize(photo, 192, "bilinear").clamp(0, 1))
    added = large().detach() - large.base
    small = canvas().detach() - photo
    assert (image.resize(added, 96, "bilinear") - small).abs().mean() < .1 * small.abs().mean()


def test_noise_depends_on_the_seed_of_its_picture_alone():
    def one(seeds):
        return noise([torch.Generator().manual_seed(seed) for seed in seeds], 64, 64)().detach()
    both = one([1, 2])
    assert torch.equal(both[1:], one([2]))
    assert .02 < both.std() < .3


def test_the_map_of_palettes_gives_the_other_palette(photo, other):
    target = colour.palette(other)
    middle = colour.Palette(torch.full((3,), .5), .1 * target.covariance)  # narrow, so that nothing is cut at black and white
    found = colour.palette(colour.mapped(photo, colour.palette(photo), middle))
    torch.testing.assert_close(found.mean, middle.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.covariance, middle.covariance, atol=2e-3, rtol=.05)


def test_recoloured_has_the_brightness_of_one_and_the_hue_of_the_other(photo):
    bright = photo.flip(-1)
    found, weights = colour.recoloured(bright, photo), torch.tensor(colour.LUMA).view(1, 3, 1, 1)
    torch.testing.assert_close((found * weights).sum(1), (bright * weights).sum(1), atol=1e-5, rtol=0)
    assert found.min() > -1e-5
    assert found.max() < 1 + 1e-5
    chroma, wanted = (one - (one * weights).sum(1, keepdim=True) for one in (found, photo))
    coloured = (wanted.norm(dim=1) > .1) & (chroma.norm(dim=1) > .02)
    assert (torch.cosine_similarity(chroma, wanted, dim=1)[coloured] > .99).all()


@pytest.mark.parametrize("masked", [False, True])
def test_preserved_colours_keep_the_mean_brightness_of_what_is_repainted(photo, masked):
    lighter = (photo + .15).clamp(0, 1)
    mask = torch.zeros(1, 1, *photo.shape[-2:])
    mask[..., 8:60, 8:60] = 1
    found = composed(lighter, photo=photo, mask=mask if masked else None, preserve=True)
    weights = torch.tensor(colour.LUMA).view(1, 3, 1, 1)
    bright = [float(((one * weights).sum(1, keepdim=True) * (mask if masked else 1)).sum() / (mask.sum() if masked else mask.numel()))
              for one in (photo, lighter, found)]
    assert bright[1] - bright[0] > .08
    assert bright[2] == pytest.approx(bright[0], abs=.01)
    torch.testing.assert_close(composed(photo, photo=photo, mask=None, preserve=True), photo, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("size", [(224, 176), (195, 187), (206, 151)])  # sides that the strides divide, and others
def test_tiles_sum_up_to_the_whole_forward_and_backward(embedded_encoder, monkeypatch, gram, size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.linspace(0, 1, size[1]).expand(1, 1, *size)
    wanted, results = ["conv3", "layer2", "layer3"], []
    for tile in (1024, 96):
        monkeypatch.setattr(statistics, "TILE", tile)
        seen = picture.clone().requires_grad_()
        found = statistics.measured(embedded_encoder, seen, wanted, mask, gram)
        total = sum(value.sum() for kind in ("mean", "deviation", "gram") for value in getattr(found, kind).values())
        results.append((total.detach(), *torch.autograd.grad(total, seen)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=2e-3, atol=1e-5)


def test_a_palette_that_drives_values_to_black_or_white_comes_last(embedded_encoder, photo, monkeypatch):
    """Whatever the probe reads in them: the weight of what is lost is raised until it alone decides."""
    monkeypatch.setattr(pixels, "CLIPPED", 1e6)
    own = colour.palette(photo)
    garish = colour.Palette(own.mean + .3, 16 * own.covariance)
    request = Request(Brief(styles=(("cubism", 1.),)), Path("unused"), ("",), keep=())
    engine = pixels.Pixels(request, embedded_encoder, (), photo)
    calm, loud = (brushwork.Painting({}, {}, palette) for palette in (own, garish))
    assert engine._by_reading(photo)("cubism", [loud, calm]) == [calm, loud]
    assert pixels.clipped(pixels.started(photo, garish, 1., None, {})) > pixels.clipped(photo) + .1


def test_variation_is_alike_in_every_direction_and_counts_an_edge_of_all_colours_once():
    """Steps of a ramp of slope 1 down, across and between, as long as they are in closed form; a flat picture has next to none."""
    along = torch.linspace(0, .5, 33)
    down, across = along.view(1, 1, -1, 1).expand(1, 3, 33, 33), along.view(1, 1, 1, -1).expand(1, 3, 33, 33)
    step = .5 / 32
    for picture, length in ((down, step), (across, step), ((down + across) / 2, step / 2 ** .5), (torch.full_like(down, .3), 0.)):
        assert float(variation(picture)) == pytest.approx((length ** 2 + STILL ** 2) ** .5, rel=1e-4)
    grey = down.clone()
    grey[:, 1:] = .5
    assert float(variation(grey)) == pytest.approx((step ** 2 / 3 + STILL ** 2) ** .5, rel=1e-4)


def test_an_mp4_hands_every_frame_to_ffmpeg_in_even_sides_and_says_what_ffmpeg_says(tmp_path, monkeypatch):
    """A stand-in for ffmpeg that keeps what it is given: raw frames on its input, the file's name last."""
    tool = tmp_path / "ffmpeg"
    tool.write_text('#!/bin/sh\necho "$@" > "${0%/*}/asked"\nfor last; do :; done\n/bin/cat > "$last"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    film.check("mp4")
    frames = film.Frames("mp4", 80)
    photo = torch.rand(1, 3, 41, 63)
    for step in range(80):
        frames.see(step, lambda: photo)
    written = frames.write(tmp_path / "picture.png", photo, photo)
    assert written == tmp_path / "picture.mp4"
    assert written.stat().st_size == (1 + 40 + film.HOLD) * 62 * 40 * 3
    assert "-s 62x40" in (tmp_path / "asked").read_text()
    tool.write_text("#!/bin/sh\necho 'no encoder' >&2\nexit 1\n")
    with pytest.raises(UserError, match="no encoder; take --film gif"):
        frames.write(tmp_path / "other.png", photo, photo)
    assert not (tmp_path / "other.mp4").exists()


def test_a_mask_weighs_the_places_of_brushwork(embedded_encoder, photo, other):
    both = torch.cat([photo, image.resize(other, 96, "bilinear").clamp(0, 1)], -1)
    mask = torch.cat([torch.ones(1, 1, 96, 96), torch.zeros(1, 1, 96, 96)], -1)
    left = statistics.measured(embedded_encoder, both, ["conv3"], mask)
    alone = statistics.measured(embedded_encoder, photo, ["conv3"])
    assert (left.mean["conv3"] - alone.mean["conv3"]).abs().max() < .1 * alone.deviation["conv3"].max()


@pytest.mark.parametrize("name", [name for name in content.NAMES if name not in ("lpips", "artifacts")])
def test_distances_are_zero_for_the_photograph_and_grow_with_damage(embedded_encoder, photo, name):
    measure = content.distances(embedded_encoder, photo, (name,))[name]
    grain = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    near, far = ((photo + strength * grain).clamp(0, 1).requires_grad_() for strength in (.05, .3))
    assert float(measure(photo)) == pytest.approx(0, abs=1e-5)
    assert 0 < float(measure(near).detach()) < float(measure(far).detach())
    (gradient,) = torch.autograd.grad(measure(near).sum(), near)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["structure", "self-similarity"])
def test_distances_are_zero_for_the_photograph_wherever_the_grid_lies(embedded_encoder, photo, name):
    """A pattern that hides between the encoder's strides at one place shows at another."""
    measure = content.distances(embedded_encoder, photo, (name,))[name]
    assert max(float(measure(photo, place)) for place in range(content.PLACES)) < 1e-5
    assert torch.equal(content.moved(photo, 0), photo)
    assert len({(3 * place % content.PLACES, place) for place in range(content.PLACES)}) == content.PLACES
    far = photo.flip(-1)
    found = [float(measure(far, place)) for place in range(content.PLACES)]
    assert len({round(one, 6) for one in found}) > 1
    assert max(found) < 1.3 * min(found)


@pytest.mark.parametrize("style", STYLES)
def test_paintings_stand_for_every_style_that_was_learned(embedded_encoder, photo, style):
    found = brushwork.paintings(embedded_encoder, style)
    assert len(found) > 1
    near = brushwork.nearest(found, colour.palette(photo))
    assert set(map(id, near)) == set(map(id, found))
    first, second, again = (of_styles(embedded_encoder, ((style, 1.),), photo, rank).palette.mean for rank in (0, 1, len(found)))
    assert torch.equal(first, near[0].palette.mean)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_descent_nears_the_brushwork_and_keeps_what_is_to_be_kept(embedded_encoder, photo):
    target = of_styles(embedded_encoder, (("impressionism", 1.),), photo)
    start = colour.mapped(photo, colour.palette(photo), target.palette)
    measure = content.distances(embedded_encoder, photo, ("structure",))["structure"]
    reached = []
    for bound in (.05, .4):  # the palette alone moves structure by .16
        aim = Aim(embedded_encoder, target, constraints={"structure": Constraint(measure, bound, "at most")})
        painted, trace = paint(photo, start, aim, torch.Generator().manual_seed(0), Pace(25))
        reached.append(float(measure(painted)))
    assert trace[-1]["brushwork"] < trace[0]["brushwork"]
    assert reached[0] < .1 < reached[1] < .45
    assert [row["step"] for row in trace] == list(range(25))


def test_descent_goes_from_coarse_to_fine_under_a_constraint(embedded_encoder, photo):
    large = image.resize(photo, (144, 192)).clamp(0, 1)
    kept = content.distances(embedded_encoder, large, ("structure", "self-similarity", "content", "ms-ssim"))
    aim = Aim(embedded_encoder, of_styles(embedded_encoder, (("cubism", 1.),), large),
              constraints={name: Constraint(one, .3, "at most") for name, one in kept.items()})
    painted, trace = paint(large, large, aim, torch.Generator().manual_seed(0), Pace(6, coarsest=32))
    assert painted.shape == large.shape
    assert list(dict.fromkeys(row["size"] for row in trace)) == ["48x36", "96x72", "192x144"]


def test_references_of_the_photograph_itself_leave_nothing_to_do(embedded_encoder, photo):
    target = of_references(embedded_encoder, [photo], [1.], photo, False, ["itself"])
    found = statistics.measured(embedded_encoder, photo, list(statistics.STAGES))
    wanted, spread = target.at(96)
    assert float(statistics.distance(found, wanted, spread, statistics.STAGES)) < 1e-6


def test_distances_of_larger_pictures_are_measured_at_320_pixels_of_the_whole_picture(embedded_encoder):
    photo = torch.rand(1, 3, 640, 640, generator=torch.Generator().manual_seed(0))
    measure = content.distances(embedded_encoder, photo, ("ms-ssim",))["ms-ssim"]
    changed = 1 - photo
    half = torch.cat([changed[..., :320], photo[..., 320:]], 3)
    small = content.distances(embedded_encoder, content.fitted(photo), ("ms-ssim",))["ms-ssim"]
    assert content.fitted(photo).shape == (1, 3, 320, 320)
    assert float(measure(half)) == pytest.approx(float(small(content.fitted(half))), abs=1e-6)
    assert 0 < float(measure(half)) < .7 * float(measure(changed))


def test_outside_of_the_mask_nothing_changes(photo):
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 20:60, 20:60] = 1
    found = composed(photo.flip(-1), photo, mask, False)
    assert torch.equal(found[..., :20, :], photo[..., :20, :])
    assert not torch.equal(found[..., 20:60, 20:60], photo[..., 20:60, 20:60])


def test_looks_at_the_whole_are_the_picture_and_sizes_double(photo):
    torch.testing.assert_close(zoomed(photo, (96, 96), 1., .3, .3), photo, atol=1e-5, rtol=0)
    assert sizes(512, 768, 112) == [(128, 192), (256, 384), (512, 768)]
    assert sizes(100, 60, 112) == [(100, 60)]


def test_a_bound_is_a_promise_and_a_picture_within_it_stays_as_it_is(embedded_encoder, photo):
    far = (photo + .2 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    measure = content.distances(embedded_encoder, photo, ("ms-ssim",))["ms-ssim"]
    loose, tight = ({"ms-ssim": Constraint(measure, share * float(measure(far)), "at most")} for share in (1.1, .5))
    assert held(far, photo, loose)[0] is far
    nearer, share = held(far, photo, tight)
    assert 0 < share < 1
    assert float(measure((255 * nearer).round() / 255)) <= tight["ms-ssim"].bound
    assert float(measure(nearer)) > .9 * tight["ms-ssim"].bound


def test_palettes_are_apart_by_mean_and_covariance(photo, other):
    one, another = colour.palette(photo), colour.palette(other)
    assert float(one.distance(one)) == 0
    assert float(one.distance(another)) == pytest.approx(float(another.distance(one)))
    grey = colour.Palette(one.mean + colour.SPREAD, one.covariance)
    assert float(one.distance(grey)) == pytest.approx(1)
    assert float(one.toward(another, .5).distance(another)) == pytest.approx(.25 * float(one.distance(another)), rel=1e-4)


@pytest.mark.parametrize("typed", ["structure", "structure<=3", "beauty<=.1", "structure<=.1,structure<=.2"])
def test_a_bound_that_means_nothing_is_refused(typed):
    from guide.transfer.request import parse_keep
    with pytest.raises(UserError):
        parse_keep([typed])


@pytest.mark.slow
def test_large_pictures_are_made_in_tiles_without_seams(embedded_encoder, photo, monkeypatch):
    """Across the borders of tiles a picture changes no more than elsewhere, and it is the one made in a piece."""
    large = image.resize(photo, (128, 192)).clamp(0, 1)
    target, made = of_styles(embedded_encoder, (("pointillism", 1.),), large), []
    for tile in (1024, 64):
        monkeypatch.setattr(statistics, "TILE", tile)
        made.append(paint(large, large, Aim(embedded_encoder, target), torch.Generator().manual_seed(0), Pace(4))[0])
    whole, tiled = made
    assert (whole - tiled).abs().max() < .02
    assert (whole - large).abs().mean() > .01
    jumps = (tiled - large).diff(dim=-1).abs().mean((0, 1, 2))
    assert jumps[[63, 127]].max() < 2 * jumps.median()


def test_a_crop_that_moves_by_a_pixel_does_not_flicker(embedded_encoder):
    """Frames of one scene share target and seed: where they overlap they differ far less than they were changed."""
    scene = image.resize(image.from_pil(Image.fromarray(skimage.astronaut())), 100, "bilinear").clamp(0, 1)
    frames = [scene[..., 2:98, shift:shift + 96] for shift in (0, 1)]
    target = of_styles(embedded_encoder, (("post-impressionism", 1.),), frames[0])
    made = [paint(frame, frame, Aim(embedded_encoder, target), torch.Generator().manual_seed(0), Pace(12))[0] for frame in frames]
    flicker = (made[0][..., 1:] - made[1][..., :-1]).square().mean().sqrt()
    change = (made[0] - frames[0]).square().mean().sqrt()
    assert flicker < .4 * change
