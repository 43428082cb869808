"""The catalogue of models, and what happens where one cannot be had."""
import pytest
import torch
from tiny_pipelines import call, sd

from guide import pipelines
from probes.errors import UserError


@pytest.mark.parametrize("key", sorted(pipelines.models()))
def test_every_model_is_told_completely(key):
    model = pipelines.models()[key]
    assert pipelines.find(key) == pipelines.find(model.source) == model
    assert model.about.endswith(".")
    assert model.licence
    assert model.steps >= 1
    assert model.guidance_scale >= 0
    assert model.size % 8 == 0
    assert model.size > 0
    assert model.dtype in ("float32", "float16", "bfloat16")
    assert model.source == "embedded" or model.source.count("/") == 1


def test_aliases_are_found_whatever_their_spelling():
    assert pipelines.find("SD 1.5").key == pipelines.find("Stable Diffusion 1.5").key == "stable-diffusion-1.5"


def test_a_local_folder_is_loaded(tmp_path):
    original = sd()
    original.save_pretrained(tmp_path / "tiny")
    loaded = pipelines.load(str(tmp_path / "tiny"))
    assert torch.equal(call(loaded), call(original))
    assert pipelines.load(str(tmp_path / "tiny"), dtype="bfloat16").unet.dtype == torch.bfloat16
    with pytest.raises(UserError, match="precision"):
        pipelines.load(str(tmp_path / "tiny"), dtype="int8")
    weights = tmp_path / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        pipelines.load(str(tmp_path / "tiny"))
    (tmp_path / "tiny" / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        pipelines.load(str(tmp_path / "tiny"))


def test_bad_names_are_told(tmp_path):
    with pytest.raises(UserError, match="sdxl"):
        pipelines.load("sdlx")
    with pytest.raises(UserError, match=r"model_index\.json"):
        pipelines.load(str(tmp_path))


def test_a_hub_model_without_network_says_what_to_fetch(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"hf download stabilityai/sd-turbo.*model_index\.json.*\.safetensors") as caught:
        pipelines.load("sd-turbo")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="hf download madebyollin/taesd"):
        pipelines.load_tiny("sd-turbo")
    assert pipelines.load_tiny("embedded") is None
