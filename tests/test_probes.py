"""Style, period and content: what their numbers are, by closed forms on small heads, and what they say of what they do not know."""
import json

import pytest
import torch
from safetensors.torch import save_file

from guide.brief import Brief
from probes import style
from probes.config import styles
from probes.content import ContentProbe
from probes.errors import UserError
from probes.heads import card, linear, ordinal
from probes.heads.linear import Linear
from probes.heads.ordinal import Ordinal
from probes.period import PeriodProbe
from probes.style import StyleProbe

LABELS = ("baroque", "cubism", "ukiyo-e", "rococo")


def embeddings(encoder, count=5):
    return torch.nn.functional.normalize(torch.randn(count, encoder.dim, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture
def head(small_encoder):
    weights = torch.randn(4, small_encoder.dim + 1, generator=torch.Generator().manual_seed(0))
    return Linear(3 * weights[:, 1:], weights[:, 0], LABELS, 1.7, "checked on 4 works")


def test_one_style_is_the_log_odds_of_its_calibrated_probability(small_encoder, head):
    f, probe = embeddings(small_encoder), StyleProbe(small_encoder, head)
    measure = probe.aim(Brief(styles=(("baroque", 1.),)))
    p = probe.read(f)["style_probabilities"]
    torch.testing.assert_close(p, ((f @ head.weight.T + head.bias) / 1.7).softmax(-1))
    torch.testing.assert_close(measure.score(f), p[:, 0].logit())
    torch.testing.assert_close(measure.probability(f), p[:, 0])
    assert measure.reliability == "checked on 4 works"
    assert probe.read(f)["labels"] == list(LABELS)


def test_a_mixture_pulls_towards_all_of_its_styles(small_encoder, head):
    f = embeddings(small_encoder)
    measure = StyleProbe(small_encoder, head).aim(Brief(styles=(("baroque", .7), ("cubism", .3))))
    p = head.probabilities(f)
    rest = p[:, 2:].sum(-1)
    torch.testing.assert_close(measure.score(f), .7 * (p[:, 0] / rest).log() + .3 * (p[:, 1] / rest).log())
    logits = torch.zeros(1, 4, requires_grad=True)
    identity = Linear(torch.eye(4), torch.zeros(4), LABELS)
    StyleProbe(small_encoder, identity).aim(Brief(styles=(("baroque", .7), ("cubism", .3)))).score(logits).sum().backward()
    assert (logits.grad[0, :2] > 0).all()
    assert (logits.grad[0, 2:] < 0).all()


def test_avoided_styles_count_against(small_encoder, head):
    f, probe = embeddings(small_encoder), StyleProbe(small_encoder, head)
    p = head.probabilities(f)
    both = probe.aim(Brief(styles=(("baroque", 1.),), avoid=("cubism", "rococo"))).score(f)
    torch.testing.assert_close(both, p[:, 0].logit() - (p[:, 1].logit() + p[:, 3].logit()) / 2)
    only = probe.aim(Brief(avoid=("cubism",)))
    torch.testing.assert_close(only.score(f), -p[:, 1].logit())
    assert only.probability(f) is None


def test_log_odds_do_not_saturate(small_encoder):
    sure = Linear(400 * torch.eye(4), torch.zeros(4), LABELS)
    f = torch.eye(4)[:1].clone().requires_grad_()
    score = StyleProbe(small_encoder, sure).aim(Brief(styles=(("baroque", 1.),))).score(f)
    score.sum().backward()
    assert score.isfinite().all()
    assert f.grad.abs().sum() > 100


def test_a_style_the_head_does_not_know_is_read_by_words_and_says_so(small_encoder, head):
    f, probe = embeddings(small_encoder), StyleProbe(small_encoder, head)
    assert probe.knows("Ukiyo-e")
    assert not probe.knows("gothic")
    measure = probe.aim(Brief(styles=(("gothic", 1.),)))
    assert measure.reliability == "not validated: the head does not know gothic"
    words = style.from_words(small_encoder, [*LABELS, "gothic"])
    torch.testing.assert_close(measure.score(f), words.probabilities(f)[:, -1].logit(), atol=1e-4, rtol=1e-4)
    assert measure.wanted.head.labels == (*LABELS, "gothic")
    avoiding = probe.aim(Brief(styles=(("baroque", 1.),), avoid=("gothic",)))
    assert avoiding.wanted.head is head
    assert "gothic" in avoiding.reliability


def test_names_and_aliases_mean_their_style_and_others_are_offered(small_encoder, head):
    probe = StyleProbe(small_encoder, head)
    assert probe.aim(Brief(styles=(("Barocco", 1.),))).wanted.targets == ("baroque",)
    with pytest.raises(UserError, match="baroque"):
        probe.aim(Brief(styles=(("baroqu", 1.),)))


def test_contradictions_are_refused(small_encoder, head):
    probe = StyleProbe(small_encoder, head)
    with pytest.raises(UserError, match="both asked for and to be avoided"):
        probe.aim(Brief(styles=(("baroque", 1.),), avoid=("baroque art",)))
    with pytest.raises(UserError, match="ask for fewer"):
        probe.aim(Brief(styles=tuple((label, .25) for label in LABELS)))
    with pytest.raises(UserError, match="above 0"):
        probe.aim(Brief(styles=(("baroque", -1.),)))


def test_nothing_asked_is_nothing_measured(small_encoder, head):
    assert StyleProbe(small_encoder, head).aim(Brief(prompt="lemons")) is None
    assert PeriodProbe(small_encoder).aim(Brief(prompt="lemons")) is None
    assert ContentProbe(small_encoder).aim(Brief(prompt=" ")) is None


def test_without_a_head_every_configured_style_is_read_by_words(small_encoder):
    probe = StyleProbe(small_encoder)
    read = probe.read(embeddings(small_encoder))
    assert set(probe.labels) == set(styles())
    torch.testing.assert_close(read["style_probabilities"].sum(-1), torch.ones(5))
    assert probe.aim(Brief(styles=(("baroque", 1.),))).reliability == "not validated"


def test_period_is_the_distance_in_years_to_the_span(small_encoder):
    centres = torch.tensor([1600., 1700., 1800., 1900.])
    knots = torch.tensor([1600., 1900.]), torch.tensor([1500., 2000.])
    head = Ordinal(10 * torch.eye(4, small_encoder.dim), torch.zeros(4), centres, *knots, temperature=2.)
    f, probe = embeddings(small_encoder), PeriodProbe(small_encoder, head)
    mean = (f[:, :4] * 5).softmax(-1) @ centres
    year = 1500 + (mean - 1600) / 300 * 500
    read = probe.read(f)
    torch.testing.assert_close(read["year"], year)
    assert (read["year_low"] <= read["year"]).all()
    assert (read["year"] <= read["year_high"]).all()
    measure = probe.aim(Brief(period=(1650, 1700)))
    torch.testing.assert_close(measure.score(f), (1650 - year).relu() + (year - 1700).relu(), atol=1e-3, rtol=0)
    assert not measure.higher_is_better
    wide = probe.aim(Brief(period=(1000, 2100)))
    assert not wide.score(f).any()
    with pytest.raises(UserError, match="earlier"):
        probe.aim(Brief(period=(1700, 1650)))


def test_the_span_of_a_sharp_reading_is_its_bin_and_of_a_flat_one_nearly_all():
    centres, none = torch.arange(1500., 1901., 100.), torch.zeros(0)
    head = Ordinal(torch.eye(5) * 50, torch.zeros(5), centres, none, none)
    low, high = head.span(torch.stack([torch.eye(5)[2], torch.zeros(5)]))
    torch.testing.assert_close(low, torch.tensor([1660., 1500.]), atol=1, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1740., 1900.]), atol=1, rtol=0)


def test_recalibration_interpolates_exactly_and_keeps_a_gradient_on_flat_pieces():
    x, y, none = torch.tensor([1600., 1700., 1800.]), torch.tensor([1650., 1650., 1850.]), torch.zeros(0)
    head = Ordinal(none, none, none, x, y)
    values = torch.tensor([1500., 1650., 1725., 1900.], requires_grad=True)
    out = head.recalibrated(values)
    torch.testing.assert_close(out, torch.tensor([1650., 1650., 1700., 1850.]))
    out.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([.1, .1, 2., 2.]))


def test_content_is_the_cosine_and_owns_up_to_a_prompt_that_is_cut(small_encoder):
    f, probe = embeddings(small_encoder), ContentProbe(small_encoder)
    measure = probe.aim(Brief(prompt="lemons"))
    torch.testing.assert_close(measure.score(f), f @ small_encoder.text(["lemons"])[0])
    assert "too long" not in measure.reliability
    assert "too long" in probe.aim(Brief(prompt="lemons and jugs " * 30)).reliability


@pytest.fixture
def folder(tmp_path, embedded_encoder, monkeypatch):
    """Heads for the embedded encoder in a folder of their own."""
    dim, knots = embedded_encoder.dim, torch.tensor([1600., 1800.])
    save_file({"weight": torch.eye(4, dim), "bias": torch.zeros(4)}, tmp_path / "style.safetensors")
    save_file({"weight": torch.eye(3, dim), "bias": torch.zeros(3), "centres": torch.tensor([1600., 1700., 1800.]),
               "recalibration_x": knots, "recalibration_y": knots.clone()}, tmp_path / "period.safetensors")
    (tmp_path / "style.json").write_text(json.dumps({"labels": LABELS, "temperature": 2., "reliability": "good",
                                                     "encoder": embedded_encoder.fingerprint}))
    (tmp_path / "period.json").write_text(json.dumps({"temperature": 1.}))
    (tmp_path / "content.json").write_text(json.dumps({"reliability": "fair"}))
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    return tmp_path


def test_the_heads_that_ship_serve_the_embedded_encoder_only(folder, embedded_encoder, small_encoder):
    probe = StyleProbe(embedded_encoder)
    assert probe.labels == LABELS
    assert (probe.head.temperature, probe.head.reliability) == (2., "good")
    assert PeriodProbe(embedded_encoder).aim(Brief(period=(1650, 1650))).reliability == "not validated"
    assert ContentProbe(embedded_encoder).aim(Brief(prompt="lemons")).reliability == "fair"
    assert StyleProbe(small_encoder).labels != LABELS
    assert isinstance(linear.load(folder / "style", embedded_encoder.device), Linear)
    assert len(ordinal.load(folder / "period", embedded_encoder.device).centres) == 3


def test_a_broken_head_is_told_in_a_sentence(folder, embedded_encoder):
    table = json.loads((folder / "style.json").read_text())
    (folder / "style.json").write_text(json.dumps(table | {"encoder": "other"}))
    with pytest.raises(UserError, match="other weights"):
        StyleProbe(embedded_encoder).head  # noqa: B018
    (folder / "style.json").write_text(json.dumps(table | {"labels": ["baroque"]}))
    with pytest.raises(UserError, match="each"):
        StyleProbe(embedded_encoder).head  # noqa: B018
    (folder / "style.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        StyleProbe(embedded_encoder).head  # noqa: B018
    (folder / "period.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        PeriodProbe(embedded_encoder).head  # noqa: B018
