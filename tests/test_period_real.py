"""What real paintings of a style make of a reading of years: slopes inside styles, and pairs a century apart."""
import numpy as np
import pandas as pd
import pytest

period_real = pytest.importorskip("benchmarks.period_real", reason="benchmarks/ stands beside an installed checkout only")

STYLES = np.array(["old"] * 4 + ["new"] * 3)
YEARS = np.array([1600., 1650., 1700., 1700., 1800., 1895., 1800.])


def test_pairs_are_of_one_style_and_in_order_of_years():
    first, second = period_real.pairs(STYLES, YEARS, (75., 125.))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (0, 3), (4, 5), (6, 5)]
    first, second = period_real.pairs(STYLES, YEARS, (0., 10.))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(2, 3), (3, 2), (4, 6), (6, 4)]


def test_a_reading_that_knows_the_style_alone_has_no_slope_inside_it():
    table = pd.DataFrame({"style": STYLES, "year": YEARS})
    sets, one = [period_real.pairs(STYLES, YEARS, (75., 125.))], np.ones(len(YEARS))
    by_style = np.where(STYLES == "old", 1650., 1830.)
    assert np.polyfit(YEARS, by_style, 1)[0] > .5
    assert period_real.figures(table, by_style, one, sets) == pytest.approx([0., 0., 0.], abs=1e-9)
    slope, later, enough = period_real.figures(table, by_style + .3 * (YEARS - by_style), one, sets)
    assert (slope, later, enough) == pytest.approx((.3, .3 * (100 + 100 + 95 + 95) / 4, 1.))


def test_weights_are_copies_of_paintings():
    read, copies = YEARS + np.array([0., 30., -80., 5., 0., -90., 3.]), np.array([2., 1., 0., 1., 1., 2., 1.])
    table = pd.DataFrame({"style": STYLES, "year": YEARS})
    weighed = period_real.figures(table, read, copies, [period_real.pairs(STYLES, YEARS, (75., 125.))])
    rows = np.repeat(np.arange(len(YEARS)), copies.astype(int))
    sets = [period_real.pairs(STYLES[rows], YEARS[rows], (75., 125.))]
    again = period_real.figures(table.iloc[rows], read[rows], np.ones(len(rows)), sets)
    assert weighed == pytest.approx(again)


def test_draws_take_all_works_of_an_artist_together():
    artists = pd.Series(["a", "b", "a", "c"])
    draws = [next(draw) for draw in [period_real.drawn(artists)] for _ in range(20)]
    assert all(weights[0] == weights[2] and weights[[0, 1, 3]].sum() == 3 for weights in draws)
    assert len({tuple(weights) for weights in draws}) > 3
