"""Folds keep groups apart, options are chosen inside them, gains are paired; stacked heads against closed forms."""
import numpy as np
import pytest
import torch

from probes import evaluation
from probes.errors import UserError
from probes.heads import stacked
from probes.reliability import accuracy


def blobs(n=240, d=12, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    x = rng.normal(size=(k, d))[y] + rng.normal(size=(n, d))
    return x.astype(np.float32), y, [f"artist {g}" for g in rng.integers(0, 40, n)]


def test_groups_stay_together_and_labels_stay_even():
    _, y, groups = blobs()
    for seed in range(3):
        fold = evaluation.splits(y, groups, 5, seed)
        assert all(len({fold[row] for row in range(len(y)) if groups[row] == group}) == 1 for group in set(groups))
        counts = np.array([np.bincount(y[fold == number], minlength=3) for number in range(5)])
        assert counts.min() >= 10  # of 16
    assert (evaluation.splits(y, groups, 5, 0) != evaluation.splits(y, groups, 5, 1)).any()
    with pytest.raises(UserError, match="folds"):
        evaluation.splits(y, ["one"] * len(y), 5, 0)


def test_no_head_sees_the_group_it_is_asked_about():
    _, y, groups = blobs()
    owner = np.array(groups)

    def fit(rows):
        def predict(held):
            assert not set(owner[rows]) & set(owner[held])
            return np.zeros(len(held))
        return predict
    evaluation.evaluate(y, groups, {"watching": [fit, fit]}, score=accuracy, repeats=2)


def test_the_right_option_is_chosen_and_the_gain_is_paired():
    _, y, groups = blobs()

    def right(rows):
        return lambda held: y[held]

    def wrong(rows):
        return lambda held: np.where(held % 4 == 0, y[held] + 1, y[held])
    done = evaluation.evaluate(y, groups, {"choosing": [wrong, right], "wrong": wrong}, score=accuracy, labels=y, repeats=2)
    assert set(done.chosen["choosing"]) == {1}
    row = done.table(accuracy, baseline="wrong", resamples=100)[0]
    assert row["candidate"] == "choosing"
    assert row["gain"].value == pytest.approx(.25)
    assert 0 < row["gain"].low < .25 < row["gain"].high


def test_scores_without_a_group_are_those_of_a_refit():
    x, y, groups = blobs(90, 8)
    x, target = x.astype(float), np.eye(3)[y]
    scores, weight, bias = stacked.without_group(x, target, groups, .7)
    held = np.array(groups) == groups[0]
    _, refit, offset = stacked.without_group(x[~held], target[~held], [g for g in groups if g != groups[0]], .7)
    np.testing.assert_allclose(scores[held], x[held] @ refit.T + offset, atol=1e-9)
    assert np.abs(scores - (x @ weight.T + bias)).max() > .01


def test_without_influence_it_is_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, groups = blobs()
    head = stacked.fit(x, y, "abc", groups, influence=0., balance=0., evenness=0., pull=1.)
    centred = x - x.mean(0)
    other = linear_model.LogisticRegression(C=1., tol=1e-8, max_iter=1000).fit(centred, y)
    np.testing.assert_allclose(head.probabilities(torch.from_numpy(x)).numpy(), other.predict_proba(centred), atol=.01)


def test_shares_of_votes_are_read_as_shares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    p = 1 / (1 + np.exp(-x[:, 0]))
    head = stacked.fit(x, np.stack([1 - p, p], 1), ("no", "yes"), list(range(300)), balance=0., pull=.01)
    np.testing.assert_allclose(head.probabilities(torch.from_numpy(x))[:, 1].numpy(), p, atol=.02)


def test_bins_order_years():
    rng = np.random.default_rng(0)
    years = rng.choice([1450., 1550., 1625., 1675.], 200)
    x = np.stack([years / 100 - 16, rng.normal(size=200)], 1).astype(np.float32)
    head = stacked.fit_bins(x, years, list(range(200)), pull=.01)
    assert head.centres.tolist() == [1450, 1550, 1625, 1675]
    assert np.abs(head.expected(torch.from_numpy(x)).numpy() - years).mean() < 10
    with pytest.raises(UserError, match="group"):
        stacked.fit_bins(x, years, [0])


def test_splits_that_are_done_are_not_computed_again(tmp_path):
    x, y, groups = blobs()
    asked = []

    def fit(rows):
        asked.append(len(rows))
        means = np.stack([x[rows][y[rows] == k].mean(0) for k in range(3)])
        return lambda held: -((x[held][:, None] - means) ** 2).sum(-1)
    score = lambda truth, read: accuracy(truth, read.argmax(-1))  # noqa: E731

    class Enough(Exception):
        pass

    def stop():
        raise Enough
    with pytest.raises(Enough):
        evaluation.evaluate(y, groups, {"mean": [fit, fit]}, score=score, repeats=2, kept=tmp_path, on_split=stop)
    first = len(asked)
    again = evaluation.evaluate(y, groups, {"mean": [fit, fit]}, score=score, repeats=2, kept=tmp_path)
    assert len(asked) == 2 * first  # the second repeat alone
    plain = evaluation.evaluate(y, groups, {"mean": [fit, fit]}, score=score, repeats=2)
    assert (again.predictions["mean"] == plain.predictions["mean"]).all()
    assert again.chosen == plain.chosen
    evaluation.evaluate(y, groups, {"mean": [fit, fit]}, score=score, repeats=1, folds=4, kept=tmp_path)
    assert len(asked) > 4 * first  # other folds are other splits
