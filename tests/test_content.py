"""Content: cosine, angle and direction by closed forms, their gradients by differences, and prompts taken apart into what they name."""
import math

import pytest
import torch
from torch.nn import functional as F

from guide.brief import Brief
from probes.config import styles
from probes.content import ContentMeasure, ContentProbe, DirectionalMeasure, SphericalMeasure, phrases
from probes.errors import UserError
from probes.heads import card
from probes.objective import Objective, Term
from probes.views import Views

COMMON = {"encoder": None}


@pytest.fixture
def f(small_encoder):
    return F.normalize(torch.randn(5, small_encoder.dim, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture
def source():
    return torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))


def at(*degrees):
    """Unit vectors in the plane."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], -1)


def test_the_spherical_distance_is_half_the_squared_angle():
    measure = SphericalMeasure(**COMMON, target=at(0)[0])
    angles = torch.tensor([0., 30., 90., 180.], dtype=torch.float64)
    torch.testing.assert_close(measure.score(at(*angles)), angles.deg2rad().square() / 2)
    u = at(30, 90, 150)
    torch.testing.assert_close(measure.score(u), 2 * ((u - at(0)).norm(dim=-1) / 2).asin().square())
    assert measure.range[1] == pytest.approx(math.pi**2 / 2)
    ends = at(0, 180).requires_grad_()
    measure.score(ends).sum().backward()
    assert ends.grad.isfinite().all()


def test_the_direction_is_the_cosine_of_two_changes():
    measure = DirectionalMeasure(**COMMON, target=torch.tensor([0., 1.]), source=torch.tensor([[1., 0.]]))
    moved = torch.tensor([[1., 0.], [1., 9.], [1., -9.], [10., 9.]])
    torch.testing.assert_close(measure.score(moved), torch.tensor([0., 1., -1., .5**.5]), atol=1e-4, rtol=0)
    unchanged = moved[:1].clone().requires_grad_()
    measure.score(unchanged).sum().backward()
    torch.testing.assert_close(unchanged.grad, torch.tensor([[0., 20.]]))
    each = DirectionalMeasure(**COMMON, target=torch.tensor([0., 1.]), source=torch.tensor([[1., 0.], [1., 9.]]))
    torch.testing.assert_close(each.score(moved[[1, 2, 0, 1]]), torch.tensor([1., -1., -1., 0.]), atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="one for each"):
        each.score(moved[:3])


@pytest.mark.parametrize("make", [ContentMeasure, SphericalMeasure, lambda **kept: DirectionalMeasure(**kept, source=at(200))])
def test_gradients_agree_with_differences(make):
    measure = make(**COMMON, target=at(20)[0])
    assert torch.autograd.gradcheck(measure.score, at(50, 100, 190).requires_grad_())


def test_modes_read_the_same_texts(small_encoder, f, source):
    brief, text = Brief(prompt="lemons"), small_encoder.text(["lemons"])[0]
    torch.testing.assert_close(ContentProbe(small_encoder).aim(brief).score(f), f @ text)
    spherical = ContentProbe(small_encoder, "spherical").aim(brief)
    torch.testing.assert_close(spherical.score(f), 2 * ((f - text).norm(dim=-1) / 2).asin().square(), atol=1e-5, rtol=1e-4)
    assert not spherical.higher_is_better
    directional = ContentProbe(small_encoder, "directional", source, "a painting").aim(brief)
    change, wanted = f - small_encoder(source), text - small_encoder.text(["a painting"])[0]
    torch.testing.assert_close(directional.score(f), F.cosine_similarity(change, wanted[None]), atol=.01, rtol=.01)
    assert directional.reliability == "not validated"


@pytest.mark.parametrize("mode", ["global", "spherical", "directional"])
def test_every_mode_steers_and_its_loss_is_its_reading(small_encoder, source, mode):
    probe = ContentProbe(small_encoder, mode, source if mode == "directional" else None)
    goal = Objective([Term(probe.aim(Brief(prompt="lemons on a table")))], Views(count=1, noise=0))
    measure, image = goal.terms[0].measure, source.flip(-1).requires_grad_()
    value = goal(image, [torch.Generator().manual_seed(0)])
    torch.testing.assert_close(goal.read(image.detach())["content"], value.terms["content"], atol=1e-4, rtol=1e-4)
    gradient, = torch.autograd.grad(value.loss.sum(), image)
    after = measure((image.detach() - .01 * gradient / gradient.square().mean().sqrt()).clamp(0, 1))
    assert (after > measure(image)) == measure.higher_is_better


def test_a_direction_needs_a_source_and_a_change(small_encoder, source):
    for arguments in (("directional",), ("global", source)):
        with pytest.raises(UserError, match="source image"):
            ContentProbe(small_encoder, *arguments)
    with pytest.raises(UserError, match="spherical"):
        ContentProbe(small_encoder, "sphere")
    with pytest.raises(UserError, match="both 'lemons'"):
        ContentProbe(small_encoder, "directional", source, "lemons").aim(Brief(prompt="lemons"))


PROMPTS = {
    "still life with lemons and a silver jug": ("still life", "lemons", "silver jug"),
    "young woman at a window": ("young woman", "window"),
    "the adoration of the shepherds": ("adoration", "shepherds"),
    "Lemons, a vase of flowers; bread": ("Lemons", "vase of flowers", "bread"),
    "costume design for a ballet": ("costume design", "ballet"),
    "St. George's dragon": ("St. George's dragon",),
    "thesis and anthem": ("thesis", "anthem"),
    "lemons and lemons": ("lemons",),
    "And a": (),
    " ": (),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_taken_apart_into_what_it_names(prompt):
    assert phrases(prompt) == PROMPTS[prompt]


def test_every_configured_prompt_names_something():
    assert all(1 <= len(phrases(prompt)) <= 5 for style in styles().values() for prompt in style.prompts)


def test_phrases_are_read_apart(small_encoder, embedded_encoder, f, tmp_path, monkeypatch):
    measures = ContentProbe(small_encoder).phrases(Brief(prompt="lemons at a window"))
    assert [measure.name for measure in measures.values()] == ["content: lemons", "content: window"]
    lemons = F.normalize(small_encoder.text(["lemons", "a painting of lemons"]).mean(0), dim=0)
    torch.testing.assert_close(measures["lemons"].score(f), f @ lemons)
    assert measures["window"].reliability == "not validated"
    assert ContentProbe(small_encoder).phrases(Brief()) == {}
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    (tmp_path / "content.json").write_text('{"reliability": "fair", "phrases": "weak"}')
    assert ContentProbe(embedded_encoder).phrases(Brief(prompt="lemons"))["lemons"].reliability == "weak"
