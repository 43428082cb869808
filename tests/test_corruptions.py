"""Injected damage: where it is meant to be, as strong as it says, the same for the same seed, and measured by closed forms."""
import json
from pathlib import Path

import pytest
import torch
from conftest import synthetic_photo

from probes import image
from probes.heads import card
from recipes import artifact_figures
from recipes.corruptions import CELLS, CORRUPTIONS, FORMS, FULL, VARIANTS, change, checkerboard, corrupt, inject, noise, patches, region
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_lattices_have_cells_of_their_size_a_mean_of_nothing_and_a_strength(cell, form, mask):
    """Over whole periods: mean 0, and a root mean square of .25 of the tint, which is the same or another in each colour."""
    grey, seen = torch.full((1, 3, 48, 48), .5, dtype=torch.float64), set()
    for seed in range(12):
        board = (checkerboard(grey, 1., mask, generator(seed), cell, form) - grey)[0]
        torch.testing.assert_close(board.mean((1, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-7, rtol=0)
        strength = board.square().mean((1, 2)).sqrt()
        seen.add(bool((strength - strength[0]).abs().max() < 1e-6))
        down, across = (2 * cell if form != other else 1 for other in ("columns", "rows"))
        torch.testing.assert_close(board, board.roll(down, 1).roll(across, 2))
        if form == "squares":
            torch.testing.assert_close(board, -board.roll(cell, 1))
            torch.testing.assert_close(board, -board.roll(cell, 2))
        values, counts = board[0].unique(return_counts=True)
        assert len(values) == 2
        assert float(counts.min() / counts.sum()) == (.25 if form == "dots" else .5)
    assert seen == {True, False}, "grey half of the time"


def test_lattices_begin_anywhere_and_come_in_every_size_and_form(mask):
    grey = torch.full((1, 3, 64, 64), .5)
    firsts = {bool(checkerboard(grey, 1., mask, generator(seed), 2, "squares")[0, 0, 0, 0] > .5) for seed in range(20)}
    assert firsts == {True, False}
    drawn = set()
    for seed in range(300):
        board = (CORRUPTIONS["checkerboard"](grey, 1., mask, generator(seed)) - grey)[0, 0]
        edges = [bool((board.diff(dim=axis) != 0).any()) for axis in (0, 1)]
        steps = (board.diff(dim=0 if edges[0] else 1) != 0).any(1 if edges[0] else 0).nonzero().flatten().diff()
        drawn.add((int(steps[0]), *edges))
    assert {size for size, *_ in drawn} == set(CELLS)
    assert {tuple(edges) for _, *edges in drawn} == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize("grain", [1., 2.])
@pytest.mark.parametrize("grey", [0., .5, 1.])
def test_noise_has_its_strength_and_as_much_of_it_in_common_as_it_says(grey, grain, mask):
    flat = torch.full((1, 3, 256, 256), .5)
    noisy = (noise(flat, .4, mask, generator(), grey, grain) - flat)[0]
    assert noisy.std() == pytest.approx(.14, rel=.03)
    correlation = torch.corrcoef(noisy.flatten(1))
    assert correlation[0, 1] == pytest.approx(grey, abs=.03)
    beside = torch.corrcoef(torch.stack([noisy[0, :, :-1].flatten(), noisy[0, :, 1:].flatten()]))[0, 1]
    assert beside > .3 if grain > 1 else abs(beside) < .02


def test_blocks_begin_anywhere(photo, mask):
    """The columns where the steps are: eight pixels apart, elsewhere for another generator."""
    begins = set()
    for seed in range(8):
        coded = CORRUPTIONS["blocks"](photo, 1., mask, generator(seed))
        steps = coded.diff(dim=-1).abs().mean((0, 1, 2))
        begins.add(max(range(8), key=lambda first: float(steps[first::8].mean())))
    assert len(begins) > 2


def test_variants_are_of_kinds_that_there_are(photo, mask):
    for name, variants in VARIANTS.items():
        assert name in CORRUPTIONS
        for kind in variants.values():
            assert torch.equal(kind(photo, .5, mask, generator()), kind(photo, .5, mask, generator()))


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


def test_the_card_says_what_its_figures_say():
    said = json.loads((Path(card.__file__).parents[1] / "embedded" / "heads" / "artifacts.json").read_text())
    assert artifact_figures.sentence(said["metrics"]) == said["reliability"]
    assert {name: list(variants) for name, variants in said["metrics"]["variants"].items()} == {n: list(v) for n, v in VARIANTS.items()}


def test_what_is_found_less_well_is_named():
    found = {"paintings": 4, "artists": 2, "all": {}, "kinds": {"noise": {"auc": .9}, "warp": {"auc": .6}, "seam": {"auc": .8}},
             "variants": {"noise": {"grey": {"auc": .84}, "coarse": {"auc": .86}}}, "round trips": {}}  # fmt: skip
    said = artifact_figures.sentence(found)
    assert said.split("; ")[1:] == ["finds noise", "hardly warp", "of noise less well grey"]
