"""Judges: their own labels and scales, no gradient, and a refusal where they would be partial."""

import json
import shutil
from math import log

import pytest
import torch
from safetensors.torch import save_file

from guide.brief import Brief
from probes import encoders, image, judge, judges
from probes.errors import UserError
from probes.heads.linear import Linear
from probes.lineage import Lineage
from probes.style import StyleProbe

NAMES = sorted(judges.NETWORKS)
LABELS = ["baroque", "ukiyo-e", "cubism"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Judges with untrained weights in a folder of their own."""
    for name in NAMES:
        torch.manual_seed(0)
        (tmp_path / name).mkdir()
        save_file(
            {
                k: v.half().contiguous() if v.is_floating_point() else v
                for k, v in judges.build(name, LABELS, ["portrait", "landscape"]).state_dict().items()
            },
            tmp_path / name / "model.safetensors",
        )
        card = {
            "labels": LABELS,
            "genre_labels": ["portrait", "landscape"],
            "temperature": 2.0,
            "recall": {"baroque": 0.7},
            "lineage": {"data": "judge", "architecture": name, "objective": name},
        }
        (tmp_path / name / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(judge, "FOLDER", tmp_path)
    judge.load.cache_clear()
    yield tmp_path
    judge.load.cache_clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (128, 128), (97, 150)])
def test_an_opinion_has_declared_shapes_and_ranges(folder, name, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    said = judge.load(name)(images)
    assert said.styles.shape == (2, 3)
    assert said.genres.shape == (2, 2)
    assert torch.allclose(said.styles.sum(1), torch.ones(2))
    assert said.years.shape == said.severity.shape == (2,)
    assert ((said.severity >= 0) & (said.severity <= 1)).all()
    assert torch.allclose(said.features.norm(dim=1), torch.ones(2), atol=1e-5)
    alone = judge.load(name)(images[1:])
    assert torch.allclose(alone.styles, said.styles[1:], atol=1e-5)


@pytest.mark.parametrize("size", [(128, 128), (144, 144), (129, 140)])
def test_the_verdict_resamples_nothing_that_is_as_large_as_what_it_learned_from(folder, size):
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    top, left = ((edge - 128) // 2 for edge in size)
    loaded = judge.load("verdict")
    assert torch.equal(loaded.fit(images), images[..., top : top + 128, left : left + 128])
    assert torch.equal(loaded(images).styles, loaded(loaded.fit(images)).styles)


def test_the_verdict_reads_a_picture_alike_at_every_size():
    """Texture whose finest waves a shrinking from 144 to 128 pixels would take away: the weights that ship, a picture at four sizes."""
    noise = torch.rand(1, 3, 144, 144, generator=torch.Generator().manual_seed(0))
    picture = (0.35 + 0.3 * image.resize(noise[..., ::12, ::12], 144) + 0.15 * (noise - 0.5)).clamp(0, 1)
    loaded = judge.load("verdict")
    seen = {side: loaded(image.resize(picture, side).clamp(0, 1)) for side in (144, 288, 512)}
    cut = loaded(picture[..., 8:136, 8:136])
    for said in seen.values():
        assert float(said.severity) == pytest.approx(float(cut.severity), abs=0.15)
        assert float((said.styles - cut.styles).abs().max()) < 0.15


@pytest.mark.parametrize("name", NAMES)
def test_a_judge_gives_no_gradient(folder, name):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    loaded = judge.load(name)
    assert not loaded(images).styles.requires_grad
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_the_temperature_flattens(folder):
    images, cold = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), judge.load("verdict")
    logits = cold.network(images)["style_logits"]
    assert torch.allclose(cold(images).styles, (logits / 2).softmax(1), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_genres_have_a_temperature_of_their_own_where_the_card_tells_one(folder, name):
    images, plain = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), judge.load(name)
    logits, before = plain.network(images)["genre_logits"], plain(images)
    assert torch.equal(before.genres, logits.softmax(1))
    card = folder / name / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"genre_temperature": 4.0}))
    judge.load.cache_clear()
    said = judge.load(name)(images)
    assert torch.allclose(said.genres, (logits / 4).softmax(1), atol=1e-6)
    assert not torch.allclose(said.genres, before.genres, atol=1e-3)
    assert all(torch.equal(getattr(said, what), getattr(before, what)) for what in ("styles", "years", "severity", "features"))


def test_log_odds_are_those_of_the_probabilities(folder):
    loaded = judge.load("verdict")
    said = loaded(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    first, second, third = (float(p) for p in said.styles[0])
    odds = {style: float(loaded.log_odds(said, [(style, 1.0)])) for style in LABELS}
    assert list(odds.values()) == pytest.approx([log(p / (1 - p)) for p in (first, second, third)], abs=1e-4)
    mixed = loaded.log_odds(said, [("baroque", 0.7), ("ukiyo-e", 0.3)], ["cubism"])
    assert float(mixed) == pytest.approx(0.7 * log(first / third) + 0.3 * log(second / third) - odds["cubism"], abs=1e-4)
    assert loaded.log_odds(said, [("thangka", 1.0)]).isnan().all()
    certain = judge.Opinion(torch.tensor([[1.0, 1e-12, 1e-12]]), *[torch.zeros(1)] * 4)
    assert float(loaded.log_odds(certain, [("baroque", 1.0)])) == pytest.approx(-log(2e-12))


def test_odds_mean_the_same_to_judge_and_probe(folder):
    loaded = judge.load("verdict")
    said = loaded(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for wanted, avoid in ([("baroque", 1.0)], ()), ([("baroque", 0.7), ("ukiyo-e", 0.3)], ["cubism"]):
        head, logits = Linear(torch.eye(3), torch.zeros(3), tuple(LABELS)), said.styles.log()
        measure = StyleProbe(encoders.load("embedded"), head).aim(Brief(styles=tuple(wanted), avoid=tuple(avoid)))
        assert torch.allclose(loaded.log_odds(said, wanted, avoid), measure.score(logits), atol=1e-4)


def test_a_judge_refuses_what_its_family_steered(folder):
    verdict, referee = judge.load("verdict"), judge.load("referee")
    verdict.check([Lineage("other", "guide", "VisionTransformer", "contrastive")])
    with pytest.raises(UserError, match=r"'verdict' cannot give a verdict .* weights"):
        verdict.check([verdict.lineage])
    with pytest.raises(UserError, match=r"judge images"):
        verdict.check([Lineage("", "guide"), Lineage("other", "guide+judge")])
    with pytest.raises(UserError, match=r"referee trained with the referee"):
        referee.check([Lineage("other", "", "referee", "referee")])


def test_a_missing_or_broken_judge_is_one_sentence(folder):
    with pytest.raises(UserError, match=r"no judge 'verdikt'.*referee.*verdict"):
        judge.load("verdikt")
    (folder / "referee" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"'referee' .* cannot be loaded"):
        judge.load("referee")
    shutil.rmtree(folder / "verdict")
    with pytest.raises(UserError, match=r"weights of the judge 'verdict' are missing"):
        judge.load("verdict")


@pytest.mark.parametrize("name", NAMES)
def test_the_judges_that_ship_may_judge_the_encoder_that_ships(name):
    loaded = judge.load(name)
    loaded.check([encoders.load("embedded").lineage])
    assert set(loaded.recall) <= set(loaded.labels)
    others = [judge.load(other).lineage for other in NAMES if other != name]
    assert all((loaded.lineage.architecture, loaded.lineage.objective) != (o.architecture, o.objective) for o in others)
