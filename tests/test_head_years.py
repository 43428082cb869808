"""Heads over years, and the folds and temperatures that make any head as sure as unseen groups allow."""
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from probes import calibration
from probes.errors import UserError
from probes.heads import folds, gda, kernel_ridge, nearest_mean, ordinal
from probes.heads.recalibration import recalibrated
from probes.heads.zero_shot import Antonyms

YEARS = {"ordinal": ordinal, "kernel-ridge": kernel_ridge}


def dated(n=300, d=16, seed=0):
    """Embeddings along an arc from 1500 to 1900, with noise."""
    generator = torch.Generator().manual_seed(seed)
    years = 1500 + 400 * torch.rand(n, generator=generator, dtype=torch.float64)
    angle = (years - 1500) / 400 * 2
    signal = torch.cat([torch.stack([angle.cos(), angle.sin()], 1), torch.zeros(n, d - 2, dtype=torch.float64)], 1)
    return F.normalize(signal + .1 * torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1), years


@pytest.mark.parametrize("name", YEARS)
def test_years_are_learned_recalibrated_and_spanned_on_unseen_images(name):
    f, years = dated()
    head = YEARS[name].fit(f[:150], years[:150])
    calibrated = YEARS[name].recalibrate(head, f[150:], years[150:])
    new, truth = dated(seed=1)
    error = (calibrated.expected(new) - truth).abs().mean()
    assert error < 35 < 90 < (truth - truth.median()).abs().mean()
    slope = np.polyfit(truth.numpy(), calibrated.expected(new).numpy(), 1)[0]
    assert .85 < slope < 1.05
    low, high = calibrated.span(new)
    assert .65 < ((low <= truth) & (truth <= high)).double().mean() < .95
    assert (low <= calibrated.expected(new)).all()
    assert (calibrated.expected(new) <= high).all()


@pytest.mark.parametrize("name", YEARS)
def test_years_have_the_gradient_of_their_formula(name):
    f, years = dated(40)
    head = YEARS[name].fit(f, years)
    query = f[:2].clone().requires_grad_()  # on the support itself
    assert torch.autograd.gradcheck(head.expected, query, rtol=1e-4)


def test_ordinal_labels_are_triangles():
    """One bin within reach, and two at equal distance: the fit tends to .5 each, without weights and pull."""
    f = torch.eye(2, dtype=torch.float64)
    head = ordinal.fit(f, [1600., 1750.], centres=[1600., 1700., 1800.], width=80., pull=1e-6, balanced=False)
    torch.testing.assert_close(head.probabilities(f), torch.tensor([[1., 0., 0.], [0., .5, .5]]).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(head.expected(f), torch.tensor([1600., 1750.]).double(), atol=.5, rtol=0)


def test_kernel_ridge_is_scikit_learns():
    other = pytest.importorskip("sklearn.kernel_ridge").KernelRidge(alpha=.2, kernel="rbf", gamma=1.5)
    f, years = dated(60)
    head = kernel_ridge.fit(f[:40], years[:40], gamma=1.5, ridge=.2)
    expected = other.fit(f[:40].numpy(), years[:40].numpy() - years[:40].mean().item()).predict(f.numpy()) + years[:40].mean().item()
    np.testing.assert_allclose(head.expected(f), expected, rtol=1e-9)


def test_bad_years_are_told_in_a_sentence():
    f, years = dated(10)
    for module in YEARS.values():
        with pytest.raises(UserError, match="10 embeddings and 3 years"):
            module.fit(f, years[:3])
        with pytest.raises(UserError, match="missing or not finite"):
            module.fit(f, years * float("nan"))
        with pytest.raises(UserError, match="16 values, not of 3"):
            module.fit(f, years).expected(f[:, :3])
        with pytest.raises(UserError, match="different years"):
            module.recalibrate(module.fit(f, years), f[:1], years[:1])
    with pytest.raises(UserError, match="two rising"):
        ordinal.fit(f, years, centres=[1700., 1600.])
    with pytest.raises(UserError, match="10 of 10 years lie 60 or more from every bin"):
        ordinal.fit(f, years, centres=[1000., 1100.])
    with pytest.raises(UserError, match="above 0"):
        kernel_ridge.fit(f, years, ridge=0)


def test_recalibration_needs_two_knots():
    values = torch.tensor([1., 2.])
    assert recalibrated(values, values[:1], values[:1]) is values


def test_folds_keep_groups_together_and_labels_even():
    groups = [f"artist {k}" for k in range(40) for _ in range(1 + k % 5)]
    labels = np.array([int(group.split()[1]) % 3 for group in groups])
    fold = folds.group_folds(groups, labels, 4)
    assert all(len(fold[np.array(groups) == group].unique()) == 1 for group in set(groups))
    for label in range(3):
        share = torch.bincount(fold[labels == label], minlength=4) / (labels == label).sum()
        assert (share - .25).abs().max() < .1
    assert torch.equal(fold, folds.group_folds(groups, labels, 4))
    with pytest.raises(UserError, match="there are 3"):
        folds.group_folds(["a", "b", "c"])


def grouped(n=600, seed=0):
    """Three labels; each artist has a quirk that a head can learn by heart and that says nothing of other artists."""
    generator = torch.Generator().manual_seed(seed)
    labels, artists = torch.arange(n) % 3, torch.arange(n) % 3 + 3 * (torch.arange(n) // 30)
    centres, quirks = torch.randn(3, 24, generator=generator), torch.randn(60, 24, generator=generator)
    features = centres[labels] + 1.5 * quirks[artists] + .3 * torch.randn(n, 24, generator=generator)
    return F.normalize(features, dim=-1), labels, artists


def test_temperature_comes_from_groups_that_the_head_has_not_seen():
    f, labels, artists = grouped()
    seen, new = artists < 30, artists >= 30
    names = ("a", "b", "c")
    head = folds.fit_calibrated(gda.fit, f[seen], labels[seen], names, artists[seen].tolist())
    naive = folds.calibrate(gda.fit(f[seen], labels[seen], names), f[seen], labels[seen])
    assert torch.equal(head.weight, naive.weight)
    errors = [calibration.calibration_error(fitted.probabilities(f[new]), labels[new]) for fitted in (head, naive)]
    assert errors[0] < errors[1]
    best = folds.calibrate(naive, f[new], labels[new])
    assert best.temperature == pytest.approx(calibration.temperature(naive.logits(f[new]), labels[new]) * naive.temperature)
    assert abs(np.log(head.temperature / best.temperature)) < abs(np.log(naive.temperature / best.temperature))


def test_out_of_fold_logits_are_those_of_a_head_without_that_group():
    f, labels, artists = grouped(120)
    fold = folds.group_folds(artists.tolist(), labels, 3)
    logits = folds.out_of_fold(nearest_mean.fit, f, labels, ("a", "b", "c"), artists.tolist(), folds=3, scale=10.)
    kept = fold != 1
    torch.testing.assert_close(logits[fold == 1], nearest_mean.fit(f[kept], labels[kept], ("a", "b", "c"), scale=10.).logits(f[fold == 1]))


def test_a_label_of_one_artist_is_not_calibrated_on_itself():
    f, labels, artists = grouped(120)
    labels = torch.where(artists == 0, 3, labels)
    names = ("a", "b", "c", "alone")
    logits = folds.out_of_fold(gda.fit, f, labels, names, artists.tolist(), folds=3)
    assert logits[labels == 3][:, 3].isinf().all()
    assert logits[labels != 3].isfinite().any(1).all()
    assert 0 < folds.fit_calibrated(gda.fit, f, labels, names, artists.tolist(), folds=3).temperature < 20
    with pytest.raises(UserError, match="second artist"):
        folds.fit_calibrated(nearest_mean.fit, f[:90], torch.arange(90) % 3, names[:3], (torch.arange(90) % 3).tolist(), folds=3)


def test_pairs_of_opposites_are_calibrated_pair_by_pair():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(4000, 2, generator=generator)
    head = Antonyms(3 * torch.eye(2), -3 * torch.eye(2), ("sharp", "bright"))
    truth = torch.rand(4000, 2, generator=generator) < (head.logits(f) / 2.5).sigmoid()
    assert folds.calibrate(head, f, truth).temperature == pytest.approx(2.5, rel=.1)
    with pytest.raises(UserError, match="image and pair"):
        folds.calibrate(head, f, truth[:, 0])


def test_years_that_are_all_the_same_are_named():
    with pytest.raises(UserError, match="all 8 years are 1700"):
        ordinal.fit(torch.rand(8, 4), [1700] * 8)


def test_a_recalibration_keeps_the_slope_that_is_asked_for():
    x = F.normalize(torch.randn(300, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    years = 1700 + 100 * (x[:, 0] > 0).double() + x[:, 0]  # two steps: a plain isotonic fit is flat between them
    head = ordinal.fit(x, years)
    for least in (.1, .5):
        found = ordinal.recalibrate(head, x, years, least_slope=least)
        assert (found.recalibration_y.diff() / found.recalibration_x.diff()).min() >= least - 1e-4
