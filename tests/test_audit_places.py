"""Where a picture is damaged, in words: of maps that were made up, by how much of them is high and how far that reaches."""

import numpy as np
import pytest

from probes.auditing import damage, reasons


def painted(rows=slice(None), columns=slice(None), value=0.8, ground=0.02):
    """A map (18, 24) that is high in a part of it, unevenly, as real ones are."""
    noise = np.random.default_rng(0).uniform(0.5, 1, (18, 24))
    found = np.full((18, 24), ground)
    found[rows, columns] = value
    return found * noise


@pytest.mark.parametrize(
    ("rows", "columns", "where"),
    [
        (slice(None), slice(None), "everywhere"),
        (slice(6, 12), slice(None), "across the middle"),
        (slice(0, 6), slice(None), "across the top"),
        (slice(12, 18), slice(None), "across the bottom"),
        (slice(None), slice(0, 8), "down the left side"),
        (slice(None), slice(16, 24), "down the right side"),
        (slice(0, 6), slice(0, 8), "upper left"),
        (slice(7, 11), slice(9, 15), "centre"),
        (slice(13, 17), slice(9, 15), "lower"),
        (slice(7, 11), slice(17, 23), "right"),
    ],
)
def test_a_place_is_as_large_as_the_damage(rows, columns, where):
    assert damage.where(painted(rows, columns)) == where


def test_damage_all_over_is_everywhere_though_one_place_has_most():
    worse = painted(value=0.5)
    worse[12:, 16:] *= 1.9
    assert damage.where(worse) == "everywhere"


def test_a_flat_map_is_everywhere_and_a_strip_of_patches_has_its_place():
    assert damage.where(np.zeros((8, 8))) == "everywhere"
    assert damage.where(painted(slice(0, 6), slice(0, 8))[:, :4]) == "across the top"


@pytest.mark.parametrize(
    ("where", "said"),
    [("left", "on the left"), ("lower", "in the lower part"), ("upper right", "in the upper right"), ("centre", "in the centre"),
     ("everywhere", "everywhere"), ("across the middle", "across the middle"), ("down the left side", "down the left side")],
)  # fmt: skip
def test_a_place_is_said_in_good_grammar(where, said):
    assert reasons.place(where) == said


def test_a_single_patch_has_its_place_whatever_the_ground():
    for ground in (0.0, 0.02, 0.1):
        spot = np.full((18, 24), ground)
        spot[15, 20] = 0.9
        assert damage.where(spot) == "lower right"
