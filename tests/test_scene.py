"""Scene: genres, figures and places as contrasts of a head's labels, by closed forms, and how far each reading is to be trusted."""
import json

import pytest
import torch

from guide.brief import Brief, parse_scene, per_prompt
from probes import genres
from probes.errors import UserError
from probes.heads import card
from probes.heads.contrast import Contrast
from probes.heads.linear import Linear
from probes.heads.zero_shot import zero_shot
from probes.scene import SceneProbe

LABELS = tuple(genres.WORDS)


@pytest.fixture
def head(small_encoder):
    weights = torch.randn(7, small_encoder.dim + 1, generator=torch.Generator().manual_seed(0))
    return Linear(3 * weights[:, 1:], weights[:, 0], LABELS, 1.3, "checked on 7 works")


@pytest.fixture
def f(small_encoder):
    return torch.nn.functional.normalize(torch.randn(5, small_encoder.dim, generator=torch.Generator().manual_seed(1)), dim=-1)


def share(p, labels):
    return p[:, [LABELS.index(label) for label in labels]].sum(-1)


def test_a_genre_is_its_log_odds_against_all_others(small_encoder, head, f):
    probe = SceneProbe(small_encoder, head)
    measure = probe.aim(Brief(scene="landscape"))
    p = probe.read(f)["scene_probabilities"]
    torch.testing.assert_close(measure.score(f), p[:, LABELS.index("landscape")].logit(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(measure.loss(f), -measure.score(f))
    assert measure.reliability == "checked on 7 works"
    assert probe.read(f)["scene_labels"] == list(LABELS)


def test_figures_follow_from_the_genres_and_illustrations_stay_out(small_encoder, head, f):
    probe = SceneProbe(small_encoder, head)
    p = head.probabilities(f)
    shown, none = share(p, ("portrait", "genre-painting", "religious")), share(p, ("landscape", "still-life", "cityscape"))
    torch.testing.assert_close(probe.read(f)["figures"], shown / (shown + none))
    torch.testing.assert_close(probe.aim(Brief(scene="figures")).score(f), (shown / none).log(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe.aim(Brief(scene="no-figures")).score(f), (none / shown).log(), atol=1e-4, rtol=1e-4)
    assert "derived" in probe.aim(Brief(scene="figures")).reliability


def test_indoors_is_read_by_words_and_says_that_nothing_validated_it(small_encoder, head, f):
    probe = SceneProbe(small_encoder, head)
    inside, outside = (probe.aim(Brief(scene=place)) for place in ("indoor", "outdoor"))
    words = zero_shot(small_encoder, genres.PLACES)
    torch.testing.assert_close(inside.score(f), words.logits(f) @ torch.tensor([1., -1.]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inside.score(f), -outside.score(f))
    torch.testing.assert_close(probe.read(f)["indoor"], inside.score(f).sigmoid())
    assert inside.reliability == probe.reliabilities["indoor"] == "not validated"


def test_an_encoder_without_text_reads_genres_all_the_same(small_encoder, head, f, monkeypatch):
    monkeypatch.setattr(small_encoder, "tokenizer", None)
    assert set(SceneProbe(small_encoder, head).read(f)) == {"scene_probabilities", "scene_labels", "figures"}
    with pytest.raises(UserError, match="reads no text"):
        SceneProbe(small_encoder, head).aim(Brief(scene="indoor"))


def test_without_a_head_genres_are_read_by_words(small_encoder, f):
    probe = SceneProbe(small_encoder)
    assert probe.head.labels == LABELS
    assert probe.aim(Brief(scene="portrait")).reliability == "not validated"
    torch.testing.assert_close(probe.read(f)["scene_probabilities"].sum(-1), torch.ones(5))


def test_the_shipped_head_brings_its_cards_words(embedded_encoder, tmp_path, monkeypatch):
    head = Linear(torch.eye(7, embedded_encoder.dim), torch.zeros(7), LABELS, reliability="good")
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    card.save(tmp_path / "scene", head, {"encoder": embedded_encoder.fingerprint, "figures": "0.8 of 9"})
    probe = SceneProbe(embedded_encoder)
    assert probe.head.labels == LABELS
    assert probe.reliabilities == {"scene": "good", "figures": "derived from the genre; 0.8 of 9", "indoor": "not validated"}
    table = json.loads((tmp_path / "scene.json").read_text())
    del table["figures"]
    (tmp_path / "scene.json").write_text(json.dumps(table))
    assert SceneProbe(embedded_encoder).reliabilities["figures"] == "derived from the genre; not validated"


def test_a_contrast_does_not_saturate_and_needs_labels_that_it_knows(head):
    sure = Linear(400 * torch.eye(3), torch.zeros(3), ("a", "b", "c"))
    f = torch.eye(3)[:1].clone().requires_grad_()
    contrast = Contrast.rest(sure, ("a",))
    contrast(f).sum().backward()
    assert float(contrast(f).detach()) == pytest.approx(400 - float(torch.tensor(2.).log()), rel=1e-5)
    assert f.grad.abs().sum() > 100
    for wanted, against in ((("a",), ("d",)), ((), ("a",)), (("a",), ("a",))):
        with pytest.raises(UserError, match="two groups"):
            Contrast(sure, wanted, against)


def test_the_gradient_is_that_of_the_score(small_encoder, head, f):
    exact = Linear(head.weight.double(), head.bias.double(), LABELS)
    for scene in ("landscape", "figures"):
        measure = SceneProbe(small_encoder, exact).aim(Brief(scene=scene))
        assert torch.autograd.gradcheck(measure.score, f[:1].double().requires_grad_())


def test_a_brief_names_its_scene_as_people_do():
    assert parse_scene("Still life") == "still-life"
    assert parse_scene("genre painting") == "genre-painting"
    with pytest.raises(UserError, match="landscape"):
        parse_scene("landscap")
    baroque = (("baroque", 1.),)
    assert Brief(styles=baroque, scene="still-life", prompt="lemons").text() == "baroque still life of lemons"
    assert Brief(scene="illustration").text() == "an illustration"
    assert Brief(scene="figures", prompt="lemons").text() == "lemons"
    assert Brief(styles=baroque, scene="landscape", name_style=False).text() == "a painting"
    assert Brief(styles=baroque, scene="landscape").slug() == "baroque-landscape"
    assert per_prompt(Brief(styles=baroque, scene="landscape"), (0, 1)) == [(Brief(styles=baroque, scene="landscape"), (0, 1))]
    assert len(per_prompt(Brief(styles=baroque), (0, 1))) == 2
