"""Judges with networks of a hub: small models of the same classes, saved in the hub's own format and loaded from disk by the real code."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
from typer.testing import CliRunner

import cli
from guide import png
from guide.brief import Brief
from probes import encoders, judge
from probes.audit import audit
from probes.errors import UserError
from probes.judges.presets import presets
from probes.lineage import Lineage

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
LABELS = ("baroque", "impressionism", "ukiyo-e")


def paintings(folder, count=6):
    """A folder per style, whose pictures differ in colour."""
    for k, style in enumerate(LABELS):
        (folder / style).mkdir(parents=True)
        for number in range(count):
            noise = torch.rand(3, 40 + number, 40, generator=torch.Generator().manual_seed(100 * k + number))
            noise[k] += 1
            Image.fromarray((noise.permute(1, 2, 0) / 2 * 255).byte().numpy()).save(folder / style / f"{number}.png")
    return folder


def told(folder, preset, **cells):
    """A TOML file beside the files of a small model, with the lineage of a preset that ships."""
    known = vars(presets()[preset]) | {"source": ".", **cells}
    lines = [f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}" for name, value in known.items() if name != "key"]
    (folder / f"{preset}.toml").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / f"{preset}.toml")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**size, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(folder)
    return told(folder, "dinov2-base")


@pytest.fixture(scope="module")
def csd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csd")
    torch.manual_seed(1)
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    state = {f"backbone.{key}": value for key, value in open_clip.CLIP(**config).visual.state_dict().items() if key != "proj"}
    save_file(state | {name: torch.randn(64, 24) for name in ("last_layer_style", "last_layer_content")}, folder / "model.safetensors")
    return told(folder, "csd", model=".")


@pytest.fixture(scope="module")
def hpsv2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hpsv2")
    torch.manual_seed(2)
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save({"state_dict": {key: value.half() for key, value in open_clip.CLIP(**config).state_dict().items()}}, folder / "weights.pt")
    return told(folder, "hpsv2", model=".", file="weights.pt")


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory):
    """SigLIP 2's class: a timm tower with attention pooling, a text tower of its own, a bias on the logits."""
    folder = tmp_path_factory.mktemp("siglip2")
    torch.manual_seed(3)
    vision = {"image_size": 160, "timm_model_name": "test_vit3", "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "linear"}
    config = {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"resize_mode": "squash"}}))
    model = open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return told(folder, "siglip2-base")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return paintings(tmp_path_factory.mktemp("paintings"))


def fitted(source, gallery, out):
    done = CliRunner().invoke(cli.app, ["probe", "fit", "--encoder", source, "--data", str(gallery), "--label", "style", "--head", "linear",
                                        "--folds", "2", "--no-cache", "--device", "cpu", "--out", str(out)])  # fmt: skip
    assert done.exit_code == 0, done.output
    return str(out)


@pytest.mark.parametrize("network", ["dinov2", "csd"])
def test_features_judge_with_a_head_that_a_user_fits(network, gallery, tmp_path, request):
    source = request.getfixturevalue(network)
    with pytest.raises(UserError, match="guide probe fit"):
        judge.load(source)
    head = fitted(source, gallery, tmp_path / "style")
    report = audit(gallery, judge=source, judge_heads=[head], intent=Brief(styles=(("baroque", 1.0),)))
    rows = report.rows
    assert rows["verdict_style"].isin(LABELS).all()
    assert rows["verdict_style_probability"].between(0, 1).all()
    assert rows["kept"].notna().all()
    assert rows["verdict_log_odds"].notna().all()
    assert rows["verdict_severity"].isna().all()
    own = rows["image"].str.contains("/baroque/")
    assert rows.loc[own, "kept"].mean() > rows.loc[~own, "kept"].mean()
    assert "images of" in report.summary["judge"]["reliability"]["verdict"]
    with pytest.raises(UserError, match="fitted to"):
        judge.load(source, heads=(fitted("embedded", gallery, tmp_path / "other"),))


def test_the_features_are_those_of_the_network_alone(dinov2, gallery):
    tower = encoders.load(dinov2)
    file = gallery / "baroque" / "3.png"
    model, processor = (kind.from_pretrained(tower.checkpoint.parent) for kind in (Dinov2Model, BitImageProcessor))
    with torch.no_grad():
        wanted = model(**processor(Image.open(file), return_tensors="pt")).pooler_output
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None]
    found = tower(tower.fit(pixels).float() / 255)
    assert torch.allclose(found, torch.nn.functional.normalize(wanted, dim=-1), atol=2e-3)


def test_words_judge_every_style_of_the_catalogue(siglip2, gallery):
    report = audit(gallery / "ukiyo-e", judge=siglip2, intent=Brief(styles=(("thangka", 1.0),), period=(1600, 1700)))
    assert report.rows["kept"].notna().all()  # a style that the judge that ships does not know
    assert report.rows["verdict_year"].notna().all()
    assert "not validated" in report.summary["judge"]["reliability"]["verdict"]


def test_preference_compares_within_a_prompt(hpsv2, tmp_path):
    lines = ["file_name,prompt,variant,seed"]
    for k, (prompt, variant) in enumerate((prompt, variant) for prompt in ("a jug", "a boat", "") for variant in ("unguided", "guided")):
        pixels = torch.rand(40, 60, 3, generator=torch.Generator().manual_seed(k)).mul(255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        lines.append(f"{k}.png,{prompt},{variant},{k // 2}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    report = audit(tmp_path / "list.csv", judge=hpsv2)
    assert report.rows["verdict_preference"].notna().tolist() == [True] * 4 + [False] * 2
    assert report.rows["verdict_style"].eq("").all()
    won = report.summary["preference"]["guided over unguided"]
    better = sum(report.rows["verdict_preference"][k + 1] > report.rows["verdict_preference"][k] for k in (0, 2))
    assert (won["prompts"], won["rate"]) == (2, better / 2)


@pytest.mark.parametrize(("preset", "steered", "told"), [
    ("csd", Lineage("x", "openai", "ModifiedResNet", "contrastive"), "openai images"),
    ("hpsv2", Lineage("x", "laion2b", "", ""), "laion2b images"),
    ("dinov2", Lineage("x", "", "Dinov2Model", "self-distillation and masked patches"), "both are a Dinov2Model"),
    ("siglip2", Lineage("x", "webli", "", ""), "webli images"),
])  # fmt: skip
def test_a_judge_of_what_steered_refuses_and_names_the_clash(preset, steered, told, gallery, tmp_path, request):
    source = request.getfixturevalue(preset)
    heads = [fitted(source, gallery, tmp_path / "style")] if preset in ("csd", "dinov2") else []
    with pytest.raises(UserError, match=told):
        audit(gallery, judge=source, judge_heads=heads, steered_by=[steered])
    weights = judge.load(source, heads=tuple(heads)).lineage.weights
    with pytest.raises(UserError, match="share their weights"):
        audit(gallery, judge=source, judge_heads=heads, steered_by=[Lineage(weights)])


def test_a_judge_refuses_pictures_that_say_themselves_that_its_kin_steered(hpsv2, tmp_path):
    png.save(torch.rand(3, 40, 40), tmp_path / "a.png", {"encoder": "ViT-B-32:laion2b_s34b_b79k", "strategy": "clean-image"})
    with pytest.raises(UserError, match="laion2b images"):
        audit(tmp_path, judge=hpsv2)


def test_every_preset_says_where_it_comes_from_and_what_it_is_of():
    assert {"dinov2-base", "siglip2-base", "csd", "hpsv2"} <= presets().keys()
    for preset in presets().values():
        assert preset.licence
        assert preset.data
        assert preset.architecture
        assert preset.objective


def test_a_preset_without_files_says_what_is_missing(tmp_path, monkeypatch, dinov2):
    with pytest.raises(UserError, match=r"no judge 'nobody'.*dinov2-base"):
        judge.load("nobody")
    with pytest.raises(UserError, match="heads of its own"):
        judge.load("verdict", heads=("x",))
    with pytest.raises(UserError, match="lacks config"):
        judge.load(told(tmp_path, "dinov2-base"), heads=("x",))
    (tmp_path / "bad.toml").write_text("network = 'vgg'")
    with pytest.raises(UserError, match="lacks the required key"):
        judge.load(str(tmp_path / "bad.toml"))
