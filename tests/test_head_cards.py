"""Heads on disk: what is saved comes back, what is damaged is told, and each encoder finds its own."""
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from guide.brief import Brief
from probes.errors import UserError
from probes.heads import ape, card, gda, kernel_ridge, linear, ordinal, tip_adapter
from probes.heads.catalogue import KINDS
from probes.heads.zero_shot import Antonyms
from probes.period import PeriodProbe
from probes.style import StyleProbe

NAMES = ("baroque", "cubism", "ukiyo-e")
CPU = torch.device("cpu")


def fitted(kind, d=8, n=30):
    f = F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels, years = torch.arange(n) % 3, torch.linspace(1500, 1900, n)
    made = {
        "linear": lambda: gda.fit(f, labels, NAMES),
        "tip-adapter": lambda: tip_adapter.fit(f, labels, NAMES, alpha=2.),
        "ape": lambda: ape.fit(f, labels, NAMES, alpha=2.),
        "antonyms": lambda: Antonyms(f[:3], f[3:6], NAMES, temperature=2.),
        "ordinal": lambda: ordinal.recalibrate(ordinal.fit(f, years), f, years),
        "kernel-ridge": lambda: kernel_ridge.recalibrate(kernel_ridge.fit(f, years), f, years),
    }
    return made[kind](), f


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_comes_back_as_it_was_saved(kind, tmp_path):
    head, f = fitted(kind)
    card.save(tmp_path / "new" / "style-0.3", head, {"metrics": {"images": 30}, "temperature": "the head's own prevails"})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["style-0.3.json", "style-0.3.safetensors"]
    with torch.inference_mode():
        back = card.load(tmp_path / "new" / "style-0.3", CPU)
    assert type(back) is type(head)
    query = f[:4].clone().requires_grad_()
    read = "logits" if hasattr(head, "logits") else "expected"
    assert torch.equal(getattr(back, read)(query), getattr(head, read)(f[:4]))
    getattr(back, read)(query).sum().backward()
    assert query.grad.abs().sum() > 0
    table = card.read(tmp_path / "new" / "style-0.3")
    assert (table["head"], table["metrics"], table["reliability"]) == (kind, {"images": 30}, "not validated")
    if hasattr(head, "prototypes"):
        assert table["prototypes"] == head.prototypes != ""


def test_a_card_that_names_no_head_is_read_as_its_caller_expects(tmp_path):
    head, _ = fitted("linear")
    save_file({"weight": head.weight, "bias": head.bias}, tmp_path / "style.safetensors")
    (tmp_path / "style.json").write_text(json.dumps({"labels": NAMES, "temperature": 1}))
    assert linear.load(tmp_path / "style", CPU).labels == card.load(tmp_path / "style").labels == NAMES
    with pytest.raises(UserError, match="lacks the tensor 'centres'"):
        ordinal.load(tmp_path / "style", CPU)


def test_a_head_of_years_is_no_head_of_labels(tmp_path):
    for kind in ("kernel-ridge", "ape"):
        card.save(tmp_path / kind, fitted(kind)[0], {})
    assert ordinal.load(tmp_path / "kernel-ridge", CPU).kind == "kernel-ridge"
    assert linear.load(tmp_path / "ape", CPU).kind == "ape"
    with pytest.raises(UserError, match="reads years"):
        linear.load(tmp_path / "kernel-ridge", CPU)
    with pytest.raises(UserError, match="reads labels"):
        ordinal.load(tmp_path / "ape", CPU)


DAMAGED_CARDS = {
    "[1]": "no table",
    '{"head": 3}': "names the head 3",
    '{"head": "nearest"}': "there are linear, tip-adapter, ape",
    '{"temperature": 1, "labels": "baroque"}': "labels has to be a list of words",
    '{"temperature": 1, "labels": [1, 2, 3]}': "labels has to be a list of words",
    '{"temperature": 1}': "labels has to be a list of words and is missing",
    '{"temperature": "warm", "labels": ["a", "b", "c"]}': "temperature has to be a number",
    '{"temperature": NaN, "labels": ["a", "b", "c"]}': "temperature has to be a number",
    '{"temperature": -1, "labels": ["a", "b", "c"]}': "a temperature above 0",
    '{"temperature": 1, "labels": ["a", "b"]}': "a weight row and a bias for each",
    '{"temperature": 1, "labels": ["a", "b", "b"]}': "once",
    '{"temperature": 1, "labels": ["a", "b", "c"], "reliability": 7}': "reliability has to be text",
    '{"labels"': "cannot be read",
}


@pytest.mark.parametrize("text", DAMAGED_CARDS)
def test_a_damaged_card_is_told_in_a_sentence(text, tmp_path):
    card.save(tmp_path / "style", fitted("linear")[0], {})
    (tmp_path / "style.json").write_text(text)
    with pytest.raises(UserError, match=DAMAGED_CARDS[text]) as raised:
        linear.load(tmp_path / "style", CPU)
    assert raised.match("style.json|style is damaged")


def damaged(name, change):
    return lambda held: held | {name: change(held[name])}


@pytest.mark.parametrize(("kind", "change", "cause"), [
    ("linear", damaged("weight", lambda w: w * float("nan")), "not finite"),
    ("linear", damaged("weight", lambda w: w[0]), "weight row"),
    ("linear", damaged("bias", lambda b: b[:2]), "weight row"),
    ("linear", lambda held: {"weight": held["weight"]}, "lacks the tensor 'bias'"),
    ("tip-adapter", damaged("keys", lambda k: k[:, :2].contiguous()), "keys as wide"),
    ("tip-adapter", damaged("values", lambda v: v[:3].contiguous()), "value per label"),
    ("ape", damaged("channels", lambda c: c + 100), "channels of the embedding"),
    ("ape", damaged("channels", lambda c: c.float()), "channels of the embedding"),
    ("antonyms", damaged("negative", lambda n: n[:2].contiguous()), "weight row"),
    ("ordinal", damaged("centres", lambda c: c.flip(0)), "have to rise"),
    ("ordinal", damaged("recalibration_y", lambda y: y[:2].contiguous()), "as many values as knots"),
    ("ordinal", damaged("weight", lambda w: w[:0].contiguous()), "centre for each"),
    ("kernel-ridge", damaged("coefficients", lambda c: c[:3].contiguous()), "coefficient for each"),
])
def test_damaged_tensors_are_told_in_a_sentence(kind, change, cause, tmp_path):
    card.save(tmp_path / "head", fitted(kind)[0], {})
    save_file(change(load_file(tmp_path / "head.safetensors")), tmp_path / "head.safetensors")
    with pytest.raises(UserError, match=cause):
        card.load(tmp_path / "head")


def test_saving_leaves_the_old_head_where_the_new_one_cannot_be_written(tmp_path):
    head, _ = fitted("linear")
    card.save(tmp_path / "style", head, {})
    before = (tmp_path / "style.safetensors").read_bytes()
    with pytest.raises(TypeError):
        card.save(tmp_path / "style", fitted("ape")[0], {"metrics": torch.zeros(1)})
    assert (tmp_path / "style.safetensors").read_bytes() == before
    assert card.load(tmp_path / "style").kind == "linear"


def test_published_encoders_find_their_heads_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    names = ["ViT-L-14-336:openai", "hf-hub:timm/vit_large_patch14_clip_336.openai"]
    card.save(tmp_path / "vit-l-14-336-openai" / "style", fitted("ape")[0], {"encoder_name": names})
    card.save(tmp_path / "other" / "style", fitted("linear")[0], {"encoder_name": "ViT-B-32:laion2b_s34b_b79k"})
    card.save(tmp_path / "other" / "period", fitted("ordinal")[0], {})

    def found(source, name="style"):
        stem = card.shipped(name, SimpleNamespace(source=source))
        return stem and stem.parent.name

    for source in (*names, "ViT-L-14-336-quickgelu:openai"):
        assert found(source) == "vit-l-14-336-openai"
    assert found("ViT-B-32:laion2b_s34b_b79k") == "other"
    assert found("ViT-L-14-336:laion2b") is found("embedded") is found("/a/folder") is found(names[0], "period") is None
    assert found("ViT-B-32:laion2b_s34b_b79k", "period") is None
    (tmp_path / "other" / "style.json").write_text('{"encoder_name": 3}')
    with pytest.raises(UserError, match="encoder_name"):
        found("ViT-B-32:laion2b_s34b_b79k")


def test_the_probes_read_through_whatever_head_ships(tmp_path, monkeypatch, small_encoder):
    monkeypatch.setattr(card, "FOLDER", tmp_path)
    head, f = fitted("ape", d=small_encoder.dim)
    years, _ = fitted("kernel-ridge", d=small_encoder.dim)
    card.save(tmp_path / "small" / "style", head, {"encoder_name": small_encoder.source, "reliability": "lost"})
    card.save(tmp_path / "small" / "period", years, {"encoder_name": [small_encoder.source]})
    assert torch.equal(StyleProbe(small_encoder).read(f)["style_probabilities"], head.probabilities(f))
    assert StyleProbe(small_encoder).head.reliability == "not validated"
    read = PeriodProbe(small_encoder).read(f)
    assert torch.equal(read["year"], years.expected(f))
    assert (read["year_low"] <= read["year"]).all()
    assert (read["year"] <= read["year_high"]).all()
    assert PeriodProbe(small_encoder).aim(Brief(period=(1600, 1650))).score(f).shape == (30,)
