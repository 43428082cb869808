"""Relevance maps find what a reading rests on where that is known, the check tells a right map from a wrong one, and pages are safe."""
import numpy as np
import pytest
import torch
from conftest import synthetic_photo
from torch.nn import functional as F

from probes import explain, image, relevance
from probes.artifacts import ArtifactProbe
from probes.concepts import concepts, neighbours
from probes.errors import UserError
from probes.heads.linear import Linear
from probes.labelled import Labelled

SIDE = 48


class Quadrants(torch.nn.Module):
    """An encoder in closed form: the contrast of each quarter of the picture."""

    mean, std, has_text = torch.zeros(3, 1, 1), torch.ones(3, 1, 1), False

    def preprocess(self, images):
        return image.resize(images, SIDE)

    def forward(self, images):
        quarters = F.unfold(images.mean(1, keepdim=True), SIDE // 2, stride=SIDE // 2)
        return quarters.std(1)


@pytest.fixture
def grain():
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quarter", range(4))
def test_occlusion_finds_the_quarter_that_is_read_and_the_check_agrees(grain, quarter):
    encoder, score = Quadrants(), lambda embeddings: 10 * embeddings[:, quarter]
    values = relevance.relevance(encoder, grain, score)
    shares = F.adaptive_avg_pool2d(values[None], 2).flatten()
    assert int(shares.argmax()) == quarter
    assert shares[quarter] > 3 * shares[[k for k in range(4) if k != quarter]].max()
    right = relevance.check(encoder, grain, score, values)
    assert right.causal
    assert right.effect > .3
    wrong = relevance.check(encoder, grain, score, values.flip(0, 1))
    assert not wrong.causal
    assert wrong.effect < 0


def test_the_check_knows_a_map_that_says_nothing(grain):
    found = relevance.check(Quadrants(), grain, lambda embeddings: embeddings.sum(1), torch.zeros(SIDE, SIDE))
    assert not found.causal
    assert abs(found.effect) < .05


def test_the_gradients_map_is_of_the_encoders_size_and_finite(clip_folder):
    from probes import encoders
    encoder = encoders.load(str(clip_folder("resnet", side=64)))
    pixels = torch.rand(1, 3, *encoder.size, generator=torch.Generator().manual_seed(0))
    values = relevance.gradient(encoder, pixels, lambda embeddings: embeddings[:, 0])
    assert values.shape == encoder.size
    assert values.isfinite().all()
    assert values.abs().sum() > 0


def test_blur_keeps_a_flat_picture_and_the_mean():
    torch.testing.assert_close(relevance.blurred(torch.full((1, 3, 20, 30), .3)), torch.full((1, 3, 20, 30), .3))


def test_a_label_is_explained_in_log_odds_and_a_year_in_years(small_encoder):
    head = Linear(torch.eye(2, small_encoder.dim), torch.zeros(2), ("a", "b"))
    embedding = F.normalize(torch.tensor([[3., 1.] + [0.] * (small_encoder.dim - 2)]), dim=-1)
    found = explain.target("style", head, embedding)
    assert found.label == "a"
    torch.testing.assert_close(found.score(embedding), embedding[:, 0] - embedding[:, 1])
    assert explain.target("style", head, embedding, "b").said.startswith("reads as b")
    with pytest.raises(UserError, match="no label 'c'; it has a, b"):
        explain.target("style", head, embedding, "c")


def test_neighbours_are_the_nearest_without_the_picture_itself():
    angles = np.array([0, .1, .4, 1.5])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    text = np.array(["self", "near", "mid", "far"])
    found = neighbours(torch.tensor([[1., 0.]]), Labelled(text, text, text, features=features, group="artist"), 2)
    assert [one.name for one in found] == ["near", "mid"]
    assert found[0].cosine == pytest.approx(np.cos(.1), abs=1e-6)


def test_the_nearest_concept_is_the_one_the_embedding_is_and_pulls_where_the_score_goes(small_encoder):
    words = {"kind": {"dog": ["a dog"], "cat": ["a cat"], "sea": ["the sea"]}}
    aim = small_encoder.text(["a cat"])
    found = concepts(small_encoder, aim, lambda embeddings: embeddings @ small_encoder.text(["a dog"])[0], 3, words)
    assert found[0].words == "cat"
    assert found[0].cosine == pytest.approx(1, abs=1e-5)
    pulls = {concept.words: concept.pull for concept in found}
    assert pulls["dog"] == max(pulls.values()) > 0


def test_a_page_escapes_what_files_say_and_loads_nothing(tmp_path, small_encoder):
    name = tmp_path / "<script>alert(1)</script>.png".replace("/", "-")
    synthetic_photo(0, (90, 70)).save(name)
    head = Linear(torch.randn(2, small_encoder.dim, generator=torch.Generator().manual_seed(0)), torch.zeros(2), ("<b>a</b>", "b"))
    data = Labelled(np.array(["<i>x</i>"]), np.array(["b"]), np.array(["y"]), (name,),
                    F.normalize(torch.ones(1, small_encoder.dim), dim=-1).numpy(), group="artist")
    found = explain.explain(name, small_encoder, lambda seen: explain.target("style", head, seen, "<b>a</b>"), labelled=data)
    found.to_html(tmp_path / "page.html")
    found.to_png(tmp_path / "map.png")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<b>a" not in page
    assert "<i>x" not in page
    assert "&lt;i&gt;x" in page
    assert "http" not in page.replace("data:image", "")
    assert image.load(tmp_path / "map.png").shape[1] == 3
    assert any("not validated" in line for line in found.sentences())
    with pytest.raises(UserError, match="no relevance map 'magic'"):
        relevance.relevance(small_encoder, image.load(name), found.target.score, "magic")


def test_a_map_of_damage_is_checked_by_clean_places_of_the_picture(embedded_encoder, tmp_path):
    """Noise in a corner of a smooth picture: what the map marks is there, and repairing it is what lowers the score."""
    generator = torch.Generator().manual_seed(0)
    wave = .5 + .2 * torch.sin(torch.linspace(0, 9, 144))
    picture = (wave[:, None] * torch.ones(144) + .1 * wave[None]).expand(3, 144, 144).clone()
    probe = ArtifactProbe(embedded_encoder)
    picture[:, :56, 88:] += .2 * torch.randn(3, 56, 56, generator=generator)
    image.to_pil(picture.clamp(0, 1)).save(tmp_path / "noisy.png")
    found = explain.damage(tmp_path / "noisy.png", probe)
    assert not found.undamaged
    assert found.relevance[:56, 88:].mean() > 2 * found.relevance[:, :80].mean()
    assert found.check.causal
    assert found.verdict.endswith("the map shows what the reading rests on.")


def test_of_an_undamaged_picture_there_is_no_damage_to_explain(embedded_encoder, tmp_path, monkeypatch):
    probe = ArtifactProbe(embedded_encoder)
    image.to_pil(torch.full((3, 64, 64), .5)).save(tmp_path / "plain.png")
    seen = probe.look(image.load(tmp_path / "plain.png"))
    monkeypatch.setattr(probe, "look", lambda pixels: seen | {"damaged": torch.tensor([False])})
    assert explain.damage(tmp_path / "plain.png", probe).verdict == "It reads as undamaged, so there is no damage to explain."
