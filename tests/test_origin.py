"""Origin: the log-odds of a person's and a model's hand, and a recipe whose figures are those of generators that were left out."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from guide.brief import Brief, parse_origin
from probes.errors import UserError
from probes.heads import card
from probes.heads.linear import Linear
from probes.origin import LABELS, PROMPTS, OriginProbe
from probes.overview import words


@pytest.fixture
def f(small_encoder):
    return torch.nn.functional.normalize(torch.randn(4, small_encoder.dim, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_origin_is_the_log_odds_of_the_asked_maker(small_encoder, f):
    weight = torch.randn(2, small_encoder.dim, generator=torch.Generator().manual_seed(0))
    probe = OriginProbe(small_encoder, Linear(weight, torch.tensor([.3, -.3]), LABELS, 2., "checked on 9 works"))
    person, model = (probe.aim(Brief(origin=maker)) for maker in LABELS)
    torch.testing.assert_close(person.score(f), (f @ (weight[0] - weight[1]) + .6) / 2)
    torch.testing.assert_close(person.score(f), -model.score(f))
    torch.testing.assert_close(probe.read(f)["made_by_model"], model.score(f).sigmoid())
    assert person.reliability == "checked on 9 works"
    assert probe.aim(Brief()) is None
    exact = OriginProbe(small_encoder, Linear(weight.double(), torch.zeros(2).double(), LABELS)).aim(Brief(origin="person"))
    assert torch.autograd.gradcheck(exact.score, f[:1].double().requires_grad_())


def test_without_a_head_it_goes_by_words_and_validates_nothing(small_encoder, f):
    probe = OriginProbe(small_encoder)
    assert probe.aim(Brief(origin="person")).reliability == "not validated"
    assert ((probe.read(f)["made_by_model"] > 0) & (probe.read(f)["made_by_model"] < 1)).all()


def test_the_embedded_encoders_reading_says_how_real_paintings_read_in_the_same_line(embedded_encoder):
    said = OriginProbe(embedded_encoder).head.reliability
    assert said.startswith("not validated: of 3,244 real paintings 16 % read so")
    line = words({"made_by_model": .84, "reliability": said})
    assert line == f"made by model 0.84 ({said})"
    assert words({"made_by_model": .84, "reliability": "balanced accuracy .9 on 300 pictures"}) == "made by model 0.84"


def test_what_words_make_of_real_paintings_is_measured_for_any_encoder_and_said_with_its_readings(embedded_encoder, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    from recipes.heads import content

    class Paintings:
        encoder = embedded_encoder
        ends = torch.stack([embedded_encoder.text(list(PROMPTS[label])).mean(0) for label in LABELS])  # and 40 places on the way between
        held = torch.nn.functional.normalize(torch.lerp(*ends[:, None], torch.linspace(0, 1, 40)[:, None]), dim=-1).detach().numpy()

    said = content.makers(Paintings())
    read = OriginProbe(embedded_encoder).read(torch.from_numpy(Paintings.held))["made_by_model"]
    above = [round(100 * float((read > bound).float().mean())) for bound in (.5, .8)]
    assert 0 < above[1] < above[0]
    assert said == f"not validated: of 40 real paintings {above[0]} % read so above .5, {above[1]} % above .8"
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    (tmp_path / "content.json").write_text(json.dumps({"encoder": embedded_encoder.fingerprint, "origin": said}))
    assert OriginProbe(embedded_encoder).head.reliability == said


def test_makers_are_two():
    assert parse_origin("Person") == "person"
    with pytest.raises(UserError, match="person and model"):
        parse_origin("cat")


def test_the_shipped_head_is_found(embedded_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    head = Linear(torch.eye(2, embedded_encoder.dim), torch.zeros(2), LABELS, reliability="poor")
    card.save(tmp_path / "origin", head, {"encoder": embedded_encoder.fingerprint})
    assert OriginProbe(embedded_encoder).aim(Brief(origin="model")).reliability == "poor"


def piles(rng, shift):
    """People around 0; two generators shifted along the first axis, a third along the second, where no other generator is."""
    from recipes.heads.pictures import Pile

    def cloud(n, *at):
        return (rng.normal(0, .1, (n, 6)) + np.array([*at, *[0.] * (6 - len(at))])).astype(np.float32)

    people = {"paintings": Pile(cloud(80), False), "round trips": Pile(cloud(20), False), "replica": Pile(cloud(20), False),
              "unseen paintings": Pile(cloud(60), False, np.arange(60)), "unseen round trips": Pile(cloud(20), False, np.arange(20))}
    return people | {"one": Pile(cloud(30, shift), True), "two": Pile(cloud(30, shift), True), "odd": Pile(cloud(30, 0, shift), True)}


def test_a_generator_is_judged_by_a_head_that_has_not_seen_it():
    pytest.importorskip("sklearn")
    import pandas as pd

    from recipes.heads import origin

    class Paintings:
        table = pd.DataFrame({"style": ["baroque"] * 40 + ["cubism"] * 20, "artist": [f"painter {k % 6}" for k in range(60)]})
        held = np.random.default_rng(2).normal(0, .1, (60, 6)).astype(np.float32)

        def half_of(self, rows):
            return rows % 2 == 0

    head, said = origin.fit(Paintings(), piles(np.random.default_rng(0), 1.))
    left_out, false = said["metrics"]["left out"], said["metrics"]["false alarms"]
    assert head.labels == LABELS
    assert left_out["one"]["recognised"] == left_out["two"]["recognised"] == 1
    assert left_out["odd"]["recognised"] < .2
    assert left_out["odd"]["recognised when seen"] == 1
    assert left_out["one"]["auc against unseen paintings"] == 1
    assert false["rate"] < .1
    assert set(false["by style"]) == {"baroque", "cubism"}
    assert set(false["people's pictures of the generators' collections"]) == {"replica"}
    assert "odd" in head.reliability
    assert "confounded" in head.reliability
    # One generator that nothing predicts makes the head less sure of itself.
    assert head.temperature > 1


def test_pictures_are_made_alike_in_size_and_codec():
    pytest.importorskip("sklearn")
    from recipes.heads.pictures import alike
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    once, again, other = (alike(Image.fromarray(noise), 96, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert once.shape == (96, 96, 3)
    assert (once == again).all()
    assert (once != other).any()
    assert once.std() < noise.std() / 1.5
    assert alike(Image.new("L", (40, 50), 128), 96, np.random.default_rng(0)).mean() == pytest.approx(128, abs=1)


def test_a_head_for_the_benchmark_weighs_piles_alike_and_tells_its_area_apart():
    """A pile of ten times the pictures pulls no harder, and an area below one half is told as such."""
    benchmark = pytest.importorskip("benchmarks.origin", reason="benchmarks/ stands beside an installed checkout only")
    rng = np.random.default_rng(0)
    few, many, model = (rng.normal(mean, 1., (n, 4)) for mean, n in ((0., 40), (3., 400), (1.5, 80)))
    head = benchmark.fitted([few, many], [model])
    lone = benchmark.fitted([few, np.repeat(many, 3, 0)], [model])
    assert np.allclose(head.decision_function(model).mean(), lone.decision_function(model).mean(), atol=.02)
    assert benchmark.area(np.arange(10.) + 20, np.arange(10.)) == "1.00 [1.00, 1.00]"
    assert benchmark.area(np.arange(10.), np.arange(10.) + 20) == "0.00 [0.00, 0.00]"
