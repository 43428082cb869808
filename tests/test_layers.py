"""Layers: statistics by closed form, one pass for embedding and layers, slopes by finite differences, and heads that read them."""
import pytest
import torch

from guide.brief import Brief
from probes import encoders, layers
from probes.content import ContentProbe
from probes.errors import UserError
from probes.heads.head import width
from probes.heads.linear import Linear
from probes.objective import Objective, Term
from probes.period import PeriodProbe
from probes.scene import SceneProbe
from probes.style import StyleProbe
from probes.views import Views

BRIEF = Brief(prompt="a harbour", styles=(("ukiyo-e", 1.),), avoid=("baroque",), period=(1500, 1520), scene="landscape")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_statistics_are_means_spreads_and_covariances():
    maps = {stage: noise(2, 3, 5, 7, seed=place) for place, stage in enumerate(layers.SPREAD)}
    found = layers.statistics(maps)
    assert found.shape == (2, 6 * len(layers.SPREAD) + 6 * len(layers.TOGETHER))
    first = maps[layers.SPREAD[0]].double()
    torch.testing.assert_close(found[:, :3].double(), first.mean((2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 3:6].double(), first.flatten(2).std(-1, correction=0), atol=1e-5, rtol=0)
    last = maps[layers.TOGETHER[-1]][1].double().flatten(1)
    row, column = torch.triu_indices(3, 3)
    torch.testing.assert_close(found[1, -6:].double(), torch.cov(last, correction=0)[row, column], atol=1e-6, rtol=0)


def test_a_flat_picture_has_a_finite_slope(small_encoder):
    images = torch.full((1, 3, 96, 96), .5, requires_grad=True)
    small_encoder.describe(images).sum().backward()
    assert images.grad.isfinite().all()


def test_a_description_is_the_embedding_and_then_the_layers_of_one_pass(small_encoder):
    images = noise(2, 3, 80, 100)
    found = small_encoder.describe(images)
    assert found.shape == (2, small_encoder.described)
    assert torch.equal(found[:, :small_encoder.dim], small_encoder(images))
    assert torch.equal(small_encoder.cut(found, small_encoder.dim), small_encoder(images))
    assert small_encoder.cut(found, small_encoder.described) is found
    torch.testing.assert_close(small_encoder.describe(images[1:]), found[1:], atol=1e-4, rtol=1e-4)


def test_a_transformer_describes_by_its_embedding(clip_folder):
    encoder = encoders.load(str(clip_folder("vit", side=64)))
    images = noise(2, 3, 64, 64)
    assert torch.equal(encoder.describe(images), encoder(images))
    assert encoder.described == encoder.dim


def test_the_slope_of_a_description_is_that_of_finite_differences(small_encoder):
    images, way = noise(1, 3, 96, 96), torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(small_encoder.described, generator=torch.Generator().manual_seed(2))
    images.requires_grad_()
    value = small_encoder.describe(images) @ weights
    slope = float((torch.autograd.grad(value.sum(), images)[0] * way).sum())
    with torch.no_grad():
        step = 2e-3
        ahead, behind = (float(small_encoder.describe((images + sign * step * way).clamp(0, 1)) @ weights) for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=.1, abs=.05 * abs(slope) + 1e-3)


@pytest.mark.parametrize("probe", [StyleProbe, PeriodProbe, ContentProbe, SceneProbe])
def test_slopes_in_double_precision_are_those_of_finite_differences(probe):
    encoder = encoders.load("embedded", dtype=torch.float64)
    measure = probe(encoder).aim(BRIEF)
    draw = torch.Generator().manual_seed(3)
    images, way = (.1 + .8 * torch.rand(1, 3, *encoder.size, generator=draw, dtype=torch.float64) for _ in range(2))
    images.requires_grad_()

    def loss(images):
        return measure.loss(encoder.describe(images) if measure.reads_layers else encoder(images)).sum()

    value = loss(images)
    assert value.dtype == torch.float64
    slope = float((torch.autograd.grad(value, images)[0] * way).sum())
    with torch.no_grad():
        ahead, behind = (float(loss(images + sign * 1e-8 * way)) for sign in (1, -1))
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((ahead - behind) / 2e-8, rel=1e-5)


def test_an_encoder_follows_its_parameters_into_double_precision(clip_folder):
    encoder = encoders.load(str(clip_folder("resnet", side=64)))
    images, text = noise(1, 3, 80, 70), encoder.text(["a harbour"])
    before = encoder.describe(images)
    encoder.double()
    try:
        assert encoder.text(["a harbour", "a fair"]).dtype == encoder.describe(images).dtype == torch.float64
        torch.testing.assert_close(encoder.describe(images).float(), before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoder.text(["a harbour"]).float(), text)
    finally:
        encoder.float()
    assert torch.equal(encoder.describe(images), before)


@pytest.mark.parametrize("probe", [StyleProbe, SceneProbe])
def test_the_heads_that_ship_read_layers_and_say_so(embedded_encoder, probe):
    measure = probe(embedded_encoder).aim(BRIEF)
    assert measure.reads_layers
    assert width(probe(embedded_encoder).head) == embedded_encoder.described
    images = noise(2, 3, 112, 112)
    torch.testing.assert_close(measure(images), measure.score(embedded_encoder.describe(images)))
    with pytest.raises(UserError, match="reads the layers of the encoder too"):
        measure.score(embedded_encoder(images))


def test_loss_and_reading_are_one_definition_whoever_else_reads_along(embedded_encoder):
    measures = [probe(embedded_encoder).aim(BRIEF) for probe in (StyleProbe, PeriodProbe, SceneProbe)]
    images = noise(2, 3, 96, 96)
    said = Objective([Term(measure) for measure in measures], Views(count=1, noise=0.)).read(images)
    for measure in measures:
        torch.testing.assert_close(said[measure.name], measure(images), atol=1e-4, rtol=1e-4)
    alone = Objective([Term(measures[1])], Views(count=1, noise=0.)).read(images)
    torch.testing.assert_close(alone["period"], said["period"], atol=1e-4, rtol=1e-4)


def test_a_head_of_another_width_is_refused(small_encoder):
    head = Linear(torch.zeros(2, 5), torch.zeros(2), ("baroque", "ukiyo-e"))
    with pytest.raises(UserError, match="reads embeddings of 5 values"):
        StyleProbe(small_encoder, head).read(small_encoder.describe(noise(1, 3, 96, 96)))


def test_discriminants_are_the_gaussians_own_and_even_out_artists():
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    from recipes.heads import discriminant
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    x = (rng.normal(size=(180, 6)) + np.eye(3, 6)[labels] * 2).astype(np.float32)
    weight, bias = discriminant.fits(x, np.eye(3)[labels], np.ones(180), [1e-9])[1e-9]
    theirs = LinearDiscriminantAnalysis("lsqr", priors=[1 / 3] * 3).fit(x, labels)
    logits = x @ weight.T + bias
    known = theirs.decision_function(x)
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), known - known.mean(1, keepdims=True), atol=1e-3, rtol=1e-3)
    artists = pd.Series(["a"] * 4 + ["b"] + [""] * 2)
    np.testing.assert_allclose(discriminant.evened(artists, np.ones((7, 1))), [.5] * 4 + [1.] + [1., 1.])


def test_a_domain_with_a_column_that_says_nothing_is_read_again(tmp_path):
    from probes import domain

    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    features[:, 3] = 0.5
    domain.save(tmp_path / "domain", domain.fit(features, [str(k % 12) for k in range(60)], rank=3, columns=torch.arange(8)))
    assert domain.load(tmp_path / "domain").percentile(features).isfinite().all()


def test_a_domain_of_layers_tells_noise_flat_colour_and_text_from_paintings(data):
    from probes import domain, encoders, image
    from recipes.heads.domain import pictures

    encoder = encoders.load("embedded")
    found = domain.shipped(encoder)
    with torch.no_grad():
        for name, strange in pictures().items():
            assert (found.percentile(encoder.describe(strange[:6])) >= domain.FARTHEST).float().mean() > 0.8, name
        files = sorted((data / "cezanne" / "authentic").glob("*.jpg"))[:12]
        real = found.percentile(torch.cat([encoder.describe(image.load(file)) for file in files]))
    assert (real < domain.FARTHEST).float().mean() > 0.8


def test_percentiles_of_a_domain_are_shares_of_what_was_held_out():
    from probes import domain

    features = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    found = domain.fit(features, list(range(4000)), rank=None, columns=torch.arange(6))
    seen = found.percentile(torch.randn(20000, 6, generator=torch.Generator().manual_seed(1)))
    for percent in (50, 90, 99):
        assert abs(float((seen >= percent).float().mean()) * 100 - (100 - percent)) < 1.5, percent
    assert found.percentile(torch.zeros(1, 6)) == 0


def test_a_domain_of_layers_says_that_an_embedding_is_not_enough():
    from probes import domain

    found = domain.fit(torch.rand(60, 9), list(range(60)), rank=None, columns=torch.tensor([5, 6, 7, 8]), spreads=2)
    with pytest.raises(UserError, match="description"):
        found.percentile(torch.rand(2, 5))
