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
    # A licence that nobody here has read says so; what a model's latents are is told of every one.
    assert model.read
    assert model.latents
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


def test_every_family_of_the_catalogue_has_a_model():
    sources = {model.source.split("/")[0] for model in pipelines.models().values()}
    assert {"stable-diffusion-v1-5", "stabilityai", "black-forest-labs", "PixArt-alpha", "Efficient-Large-Model", "Qwen",
            "Tongyi-MAI"} <= sources
    assert pipelines.find("Z-Image").guidance_scale == 0


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


def test_the_embedded_preview_decoder_shows_what_the_decoder_shows_and_where_to_go():
    """Guidance looks through it: the pictures and the gradients of an objective have to be nearly the decoder's own."""
    from guide.brief import Brief
    from guide.decoding import Decoder
    from guide.run import aimed
    from guide.seeds import generators, view_generators
    from probes import encoders
    pipeline, tiny = pipelines.load("embedded"), pipelines.load_tiny("embedded")
    assert sum(weight.numel() for weight in tiny.parameters()) < 150_000
    objective = aimed(Brief(styles=(("ukiyo-e", 1.),)), encoders.load("embedded"))
    latents = pipeline("a landscape", num_inference_steps=4, output_type="latent", generator=generators([0])).images
    found = []
    for decoder in (Decoder(pipeline), Decoder(pipeline, tiny)):
        z = latents.detach().clone().requires_grad_()
        images = decoder(z)
        (slope,) = torch.autograd.grad(objective(images, view_generators([0])).loss.sum(), z)
        found.append((images.detach(), slope.flatten()))
    (images, slope), (preview, other) = found
    assert (images - preview).square().mean().sqrt() < .08
    assert torch.nn.functional.cosine_similarity(slope, other, dim=0) > .3
