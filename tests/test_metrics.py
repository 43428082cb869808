"""Figures of the cards against closed forms and hand-made cases."""
import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")

from probes import distributions
from probes.errors import UserError
from probes.judges import GENRES, STYLES
from recipes import card_lines, measure_judges, metrics


def gauss(n: int, d: int = 8, shift: float = 0., seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_of_two_halves_of_one_set_is_about_zero():
    pool = gauss(2000)
    found = distributions.kid(pool[:1000], pool[1000:], size=400)
    assert abs(found["kid"]) < 4 * found["deviation"] / found["subsets"] ** .5 + .01
    assert (found["size"], found["subsets"]) == (400, 10)


def test_kid_of_a_shifted_gaussian_is_what_the_moments_say():
    """E (x.y/d + 1)^3 for independent x ~ N(mu, I), y ~ N(nu, I): s = x.y has mean mu.nu, variance d + |mu|^2 + |nu|^2 and third central
    moment 6 mu.nu; for d = 1 the kernel's means are 4 for (0, 0), 7 for (0, 1) and 32 for (1, 1), so the distance is 22."""
    mean, variance, third = (lambda m, n: m * n), (lambda m, n: 1 + m * m + n * n), (lambda m, n: 6 * m * n)

    def expected(m, n):
        centre = mean(m, n) + 1
        return centre**3 + 3 * centre * variance(m, n) + third(m, n)

    assert [expected(0, 0), expected(0, 1), expected(1, 1)] == [4, 7, 32]
    truth = expected(0, 0) + expected(1, 1) - 2 * expected(0, 1)
    values = [distributions.mmd(gauss(1500, 1, seed=k), gauss(1500, 1, 1., seed=100 + k)) for k in range(10)]
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / 10**.5)


def test_kid_by_hand():
    a, b = torch.tensor([[1.], [1.]]), torch.tensor([[0.], [0.]])
    assert distributions.mmd(a, b) == pytest.approx(8 + 1 - 2 * 1)
    assert distributions.kid(a, b)["deviation"] is None
    with pytest.raises(UserError, match="two pictures"):
        distributions.mmd(a[:1], b)


def test_vendi_counts_what_differs():
    assert distributions.vendi(torch.ones(7, 5)) == pytest.approx(1)
    assert distributions.vendi(torch.eye(6)) == pytest.approx(6)
    assert distributions.vendi(torch.eye(3).repeat(4, 1)) == pytest.approx(3)


def test_precision_and_recall_of_known_sets():
    real = gauss(200)
    same = distributions.precision_recall(real, real)
    assert same["precision"] == same["recall"] == 1
    far = distributions.precision_recall(real, real + 100)
    assert far["precision"] == far["recall"] == 0
    narrow = distributions.precision_recall(real, real[:1] + .01 * gauss(50, seed=1))
    assert narrow["precision"] > .9
    assert 0 <= narrow["recall"] < .1
    with pytest.raises(UserError, match="more than 3 pictures a side"):
        distributions.precision_recall(real[:3], real)


def test_nearest_finds_the_row_across_chunks():
    pool = gauss(50)
    distance, row = distributions.nearest(pool[[3, 41]] + 1e-3, pool, chunk=7)
    assert row.tolist() == [3, 41]
    assert distance.max() < .01


def test_families_cover_every_style_once():
    members = [style for family in metrics.FAMILIES.values() for style in family]
    assert sorted(members) == sorted(STYLES)
    assert len(metrics.FAMILIES) == 8
    merged = metrics.merged(np.eye(len(STYLES)))
    assert (merged.sum(1) == 1).all()
    assert (merged.argmax(1) == metrics.family_of(np.arange(len(STYLES)))).all()


def test_a_confusion_within_a_family_costs_no_family_accuracy():
    labels = np.array([STYLES.index("impressionism"), STYLES.index("cubism")] * 20)
    sure = np.eye(len(STYLES))[np.where(labels == labels[0], STYLES.index("pointillism"), labels)]
    artists = pd.Series([f"artist {k % 8}" for k in range(40)])
    found = metrics.style_figures(sure, labels, artists, STYLES)
    assert found["balanced_accuracy"] == .5
    assert found["families"]["balanced_accuracy"] == 1
    assert found["ece"] == pytest.approx(.5)
    assert found["ece_of_perfect"] == pytest.approx((0, 0))
    assert found["accuracy_interval"][0] <= .5 <= found["accuracy_interval"][1]


def test_the_band_of_a_perfect_head_holds_a_perfect_head():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(5), 600)
    labels = np.array([rng.choice(5, p=row) for row in p])
    low, high = metrics.ece_of_perfect(p)
    assert 0 < low < metrics.ece(p, labels) * 1.6
    assert metrics.ece(p, labels) < high * 1.6
    assert metrics.ece(p, (labels + 1) % 5) > high


def test_balanced_accuracy_is_sklearns():
    from sklearn.metrics import balanced_accuracy_score
    rng = np.random.default_rng(0)
    labels, guess = rng.choice([0, 1, 3], 90), rng.integers(4, size=90)
    with pytest.warns(UserWarning, match="not in y_true"):
        assert metrics.balanced_accuracy(labels, guess) == pytest.approx(balanced_accuracy_score(labels, guess))


def test_paired_gain_and_retrieval():
    labels, artists = np.array([0, 1] * 30), pd.Series([f"artist {k // 2}" for k in range(60)])
    found = metrics.gain_figures(labels, np.zeros(60, int), labels, artists)
    assert found["gain"] == .5
    assert found["interval"] == pytest.approx((.5, .5))
    similarity = np.eye(60)
    similarity[0, 1:3] = 2  # two wrong titles before the right one
    found = metrics.retrieval_figures(similarity, artists)
    assert (found["at 1"], found["at 5"], found["median rank"]) == (pytest.approx(59 / 60), 1., 1.)


def test_paintings_without_an_artist_stand_for_themselves():
    nobody = pd.Series([""] * 12)
    assert 4 <= metrics.artist_halves(nobody).sum() <= 8
    some = pd.Series(["x", "x", "x", "y", "", ""])
    assert metrics.hands(some).nunique() == 4
    assert metrics.whose(some) == {"artists": 2, "without artist": 2}
    half = metrics.artist_halves(some)
    assert len(set(half[:3])) == 1
    low, high = metrics.over_artists(nobody, lambda rows: (rows < 6).mean())
    assert low < .5 < high
    assert metrics.by({"artists": 0, "without artist": 12}) == "whose artists are not named"
    assert metrics.by({"artists": 1, "without artist": 2}) == "by 1 unseen artist and 2 without a named one"
    assert metrics.by({"artists": 58}, "") == "by 58 artists"


def test_no_images_are_no_figures():
    none, labels = pd.Series([], dtype=object), np.array([], int)
    assert metrics.style_figures(np.zeros((0, len(STYLES))), labels, none, STYLES) == {}
    assert metrics.family_figures(np.zeros((0, len(STYLES))), labels, none) == {}
    assert metrics.year_figures(np.array([]), np.array([]), none) == {}
    assert metrics.gain_figures(labels, labels, labels, none) == {}
    assert metrics.retrieval_figures(np.zeros((0, 0)), none) == {}
    assert metrics.fit_temperature(np.zeros((0, 3)), labels) == 1


@pytest.mark.parametrize("stretched", [0.4, 3.0])
def test_genres_of_a_judge_get_the_temperature_that_mends_them_on_other_artists(stretched):
    """Labels drawn from known probabilities p: logits of `stretched * log p` are mended by just that temperature."""
    rng, count = np.random.default_rng(0), 4000
    p = rng.dirichlet(np.full(len(GENRES), 0.7), count)
    names = np.array(GENRES)[(p.cumsum(1) < rng.random((count, 1))).sum(1).clip(max=len(GENRES) - 1)]
    names[::11] = "graffiti"  # a genre that no judge knows
    tested = pd.DataFrame({"genre": names, "artist": [f"artist {k % 40}" for k in range(count)]})
    half, known = metrics.artist_halves(tested["artist"]), names != "graffiti"
    logits = stretched * np.log(p)
    temperature, found = measure_judges.genres(logits, tested, half, True)
    other, rest = found["other half"], known & ~half
    assert temperature == pytest.approx(stretched, rel=0.05)
    assert found["images"] == known.sum()
    assert (other["images"], other["artists"]) == (rest.sum(), 20)
    assert other["ece"] < 1.5 * other["ece_of_perfect"][1] < other["ece without temperature"]
    assert f"{other['ece']:.3f} (a perfectly" in card_lines.genre(found)
    plain, alone = measure_judges.genres(logits, tested, half, False)
    assert (plain, "other half" in alone) == (1.0, False)
    assert alone["ece"] == metrics.ece(metrics.softmax(logits[known]), pd.Categorical(names[known], GENRES).codes)
    assert card_lines.genre(alone) == card_lines.style(alone)
