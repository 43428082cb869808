"""Injected damage: where it is meant to be, as strong as it says, the same for the same seed, and measured by closed forms."""
import json
from pathlib import Path

import pytest
import torch
from conftest import synthetic_photo

from probes import image
from probes.heads import card
from recipes import artifact_figures
from recipes.corruptions import CORRUPTIONS, FULL, SQUARE, change, corrupt, inject, patches, region
from recipes.corruptions import adversarial as adversarial_against


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photo():
    return image.from_pil(synthetic_photo(3, (64, 64)))


@pytest.fixture(scope="module")
def mask():
    """A hard disc, so that its outside is exactly 0."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return ((rows - 30) ** 2 + (columns - 34) ** 2 < 18**2).float()[None, None]


@pytest.mark.parametrize("kind", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_damage_is_in_its_region_grows_with_strength_and_depends_on_its_generator_alone(photo, mask, kind):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weak, strong = (inject(photo, kind, strength, mask, generator()) for strength in (.2, 1.))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(strong, inject(photo, kind, 1., mask, generator()))
    assert torch.equal(strong * (1 - mask), photo * (1 - mask))
    assert 0 <= strong.min() <= strong.max() <= 1
    assert 2 / 255 < change(photo, weak, mask) < change(photo, strong, mask)


def test_what_each_kind_does_by_closed_forms(mask):
    grey = torch.full((1, 3, 64, 64), .5)
    for name in ("blur", "smear", "warp", "ringing", "duplicate", "saturation"):  # nothing to lose, move or exaggerate
        torch.testing.assert_close(CORRUPTIONS[name](grey, 1., mask, generator()), grey)
    board = CORRUPTIONS["checkerboard"](grey, 1., mask, generator()) - grey
    torch.testing.assert_close(board[..., :2, :2], -board[..., 2:4, :2])
    torch.testing.assert_close(board.abs().amax((0, 2, 3)), .25 * torch.randn(3, 1, 1, generator=generator()).abs().flatten())
    noisy = CORRUPTIONS["noise"](grey, .4, mask, generator())
    assert (noisy - grey).std() == pytest.approx(.14, rel=.02)


def test_the_adversarial_kind_follows_the_slope_of_the_loss(photo, mask):
    slope = torch.randn(photo.shape, generator=generator(4))
    kind = adversarial_against(lambda moved, clean: ((moved - clean) * slope).sum((1, 2, 3)))
    torch.testing.assert_close(kind(photo, .5, mask, generator()), photo + 6 / 255 * slope.sign())


def test_severity_is_the_change_of_pixels_in_the_region():
    clean, mask = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :8, :] = 1
    damaged = clean.clone()
    damaged[..., :8, :8] = .1
    torch.testing.assert_close(change(clean, damaged, mask), torch.tensor([.1 * .5**.5]))
    truth = patches(clean, damaged, mask, 8)
    assert truth.shape == (1, 2, 2)
    torch.testing.assert_close(truth[0, 0, 0], torch.tensor(.1 / FULL))
    assert truth[0, 0, 1].isnan(), "in the region, and nothing shows"
    assert (truth[0, 1] == 0).all()
    assert patches(clean, torch.ones_like(clean), torch.full_like(mask, .3), 8).isnan().all(), "the edge is neither hit nor spared"


def test_regions_are_as_large_as_asked():
    shares = [float(region(96, 128, generator(seed), .1, .3).mean()) for seed in range(20)]
    assert .08 < min(shares) < max(shares) < .34


def test_corrupted_batches_repeat_with_their_seed(photo):
    images = photo.expand(8, -1, -1, -1)
    torch.manual_seed(0)
    first, severity = corrupt(images, generator(5))
    torch.manual_seed(1)
    second, again = corrupt(images, generator(5))
    assert torch.equal(first, second)
    assert torch.equal(severity, again)
    assert first.shape == images.shape
    assert ((severity >= 0) & (severity <= 1)).all()


def test_a_checkerboard_has_squares_of_the_size_that_the_card_names():
    grey = torch.full((1, 3, 16, 16), 0.5)
    signs = (CORRUPTIONS["checkerboard"](grey, 1.0, grey, generator()) - grey)[0, 0].sign()
    square = signs[:SQUARE, :SQUARE]
    assert (square == square[0, 0]).all()
    assert torch.equal(signs.roll(SQUARE, 0), -signs)
    assert torch.equal(signs.roll(SQUARE, 1), -signs)
    said = json.loads((Path(card.__file__).parents[1] / "embedded" / "heads" / "artifacts.json").read_text())
    assert f"checkerboard of {SQUARE}-pixel squares" in said["reliability"]
    assert artifact_figures.sentence(said["metrics"]).split("; a round trip")[0] in said["reliability"]
