"""Encoders: equal to open_clip's own preprocessing, differentiable to the pixels, frozen, and clear about what they cannot load."""
import json
import shutil

import open_clip
import pytest
import torch
from conftest import synthetic_photo
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from probes import encoders, image
from probes.errors import UserError

PREPROCESSINGS = [
    ("resnet", 96, {"resize_mode": "shortest", "interpolation": "bilinear", "mean": [.5, .45, .38], "std": [.25, .24, .23]}),
    ("resnet", 64, {"resize_mode": "shortest", "interpolation": "bicubic"}),
    ("vit", 64, {"resize_mode": "squash", "interpolation": "bicubic", "mean": [.5] * 3, "std": [.5] * 3}),
    ("vit", 64, {"resize_mode": "longest", "interpolation": "bicubic", "fill_color": 255}),
    ("vit", 96, {"resize_mode": "longest", "interpolation": "bilinear"}),
    ("vit", (64, 96), {"resize_mode": "shortest", "interpolation": "bicubic"}),
]


def theirs(folder):
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return clip.eval(), transform


@pytest.mark.parametrize(("tower", "side", "preprocess"), PREPROCESSINGS)
def test_preprocessing_equals_open_clips_own_on_real_images(clip_folder, photos, tower, side, preprocess):
    folder = clip_folder(tower, side=side, **preprocess)
    encoder, (clip, transform) = encoders.load(str(folder)), theirs(folder)
    std = torch.tensor(preprocess.get("std", open_clip.OPENAI_DATASET_STD))[:, None, None]
    for photo in photos:
        expected, ours = transform(photo)[None], encoder.preprocess(image.from_pil(photo))
        assert ours.shape == expected.shape
        # Pillow rounds to 8 bits after each direction; nothing else may differ.
        assert ((ours - expected) * std).abs().max() < 2.5 / 255
        with torch.no_grad():
            reference = F.normalize(clip.encode_image(expected), dim=-1)
            assert 1 - (encoder(image.from_pil(photo)) * reference).sum() < 1e-4


def test_the_embedded_encoder_reads_what_open_clip_reads(embedded_encoder, photos):
    clip, transform = theirs(encoders.EMBEDDED)
    for photo in photos:
        with torch.no_grad():
            reference = F.normalize(clip.encode_image(transform(photo)[None]), dim=-1)
            assert 1 - (embedded_encoder(image.from_pil(photo)) * reference).sum() < 1e-2


def distances(encoder, pictures):
    """1 - cosine of our embedding and open_clip's, for each picture."""
    clip, transform = theirs(encoders.EMBEDDED)
    with torch.no_grad():
        reference = F.normalize(clip.encode_image(torch.stack([transform(picture) for picture in pictures])), dim=-1)
        ours = torch.cat([encoder(image.from_pil(picture)) for picture in pictures])
    return 1 - (ours * reference).sum(-1)


def test_real_paintings_are_read_as_open_clip_reads_them(embedded_encoder, data):
    files = [path for folder in sorted((data / "cezanne").iterdir()) if folder.is_dir() for path in sorted(folder.glob("*.jpg"))[:3]]
    assert len(files) >= 12
    assert distances(embedded_encoder, [Image.open(path).convert("RGB") for path in files]).max() < 1e-2


@pytest.mark.parametrize("size", [(17, 23), (97, 151), (333, 501), (640, 65), (64, 300)])
def test_pictures_of_odd_sizes_are_read_as_open_clip_reads_them(embedded_encoder, size):
    assert distances(embedded_encoder, [synthetic_photo(seed, size) for seed in range(2)]).max() < 1e-2


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (128, 97), (500, 333)])
def test_any_input_size_gives_unit_embeddings(small_encoder, size):
    embeddings = small_encoder(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert embeddings.shape == (2, small_encoder.dim)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))


def test_the_gradient_reaches_the_image_and_not_the_weights(embedded_encoder):
    images = torch.rand(2, 3, 128, 150, generator=torch.Generator().manual_seed(0)).requires_grad_()
    embedded_encoder(images)[:, 0].sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in embedded_encoder.parameters())


def test_a_white_image_still_has_a_gradient(clip_folder):
    encoder = encoders.load(str(clip_folder("vit", side=64, interpolation="bicubic")))
    images = torch.ones(1, 3, 50, 50, requires_grad=True)
    encoder(images)[:, 0].sum().backward()
    assert (images.grad != 0).float().mean() > .9


def test_an_embedding_does_not_depend_on_the_batch_nor_on_training_mode(small_encoder):
    images = torch.rand(3, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small_encoder(images)[1:2], small_encoder.train()(images[1:2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("images", "said"), [
    (torch.rand(3, 64, 64), "shape"), (torch.rand(1, 1, 64, 64), "shape"), (torch.rand(0, 3, 64, 64), "shape"),
    (torch.rand(1, 3, 64, 64) * 2 - 1, r"\[0, 1\]"), (torch.rand(1, 3, 64, 64) * 255, r"\[0, 1\]"),
    (torch.full((1, 3, 64, 64), float("nan")), "finite"), (torch.full((1, 3, 64, 64), float("inf")), "finite"),
    (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "float"), ([1, 2], "tensor"),
])  # fmt: skip
def test_what_is_no_image_is_told_in_a_sentence(small_encoder, images, said):
    with pytest.raises(UserError, match=said):
        small_encoder(images)


def test_text_is_normalised_cached_and_usable_in_a_gradient(small_encoder):
    with torch.inference_mode():
        first = small_encoder.text(["a baroque painting", "cubism", "a baroque painting"])
    assert torch.equal(first[0], first[2])
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(3))
    calls = []
    handle = small_encoder.clip.transformer.register_forward_hook(lambda *_: calls.append(1))
    again = small_encoder.text(["cubism"])
    handle.remove()
    assert not calls
    images = torch.rand(1, 3, 64, 64).requires_grad_()
    (small_encoder(images) @ again.T).sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_prompt_that_is_too_long_is_noticed(embedded_encoder, small_encoder):
    for encoder in (embedded_encoder, small_encoder):
        assert not encoder.cuts("a still life with lemons and a jug")
        assert encoder.cuts("a still life with lemons and a jug, " * 20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_agree_with_thirty_two(clip_folder, dtype):
    folder = str(clip_folder("vit", side=64))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    full, half = encoders.load(folder), encoders.load(folder, dtype=dtype)
    assert half(images).dtype == torch.float32
    assert ((full(images) * half(images)).sum(-1) > .999).all()
    assert full.fingerprint == half.fingerprint


def test_an_encoder_is_loaded_once(clip_folder):
    folder = clip_folder("vit", side=64)
    assert encoders.load(str(folder)) is encoders.load(str(folder), "cpu")
    assert encoders.load(str(folder)).lineage.weights == encoders.load(f"local-dir:{folder}").fingerprint


def test_pickled_weights_load_only_as_weights(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder("vit", side=64), tmp_path / "pickled")
    reference = encoders.load(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(reference.clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoders.load(f"local-dir:{folder}")(images), reference(images))

    class Malicious:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weights": Malicious()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="hold more than tensors"):
        encoders.load(f"{folder}/.")
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_tokenizer_reads_images_only(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder("vit", side=64), tmp_path / "mute")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "local"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    encoder = encoders.load(str(folder))
    assert not encoder.has_text
    assert encoder(torch.rand(1, 3, 64, 64)).isfinite().all()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        encoder.text(["baroque"])


@pytest.mark.parametrize(("source", "said"), [
    ("ViT-B-23:openai", "ViT-B-32"),
    ("ViT-B-32", "needs the name of its weights.*openai"),
    ("ViT-B-32:laion2b_s34b_b79q", "laion2b_s34b_b79k"),
    ("embeded", "embedded"),
    ("no/such/folder", "neither a folder nor a model"),
    ("hf-hub:nobody", "owner/name"),
    ("ViT-B-32:laion2b_s34b_b79k", "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K open_clip_model.safetensors"),
    ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K open_clip_config.json"),
])  # fmt: skip
def test_an_encoder_that_cannot_be_had_is_told_in_a_sentence(source, said):
    with pytest.raises(UserError, match=said) as caught:
        encoders.load(source)
    assert "\n" not in str(caught.value)


def test_a_broken_folder_is_told_in_a_sentence(clip_folder, tmp_path):
    with pytest.raises(UserError, match=r"open_clip_config\.json"):
        encoders.load(str(tmp_path))
    folder = shutil.copytree(clip_folder("vit", side=64), tmp_path / "broken")
    (folder / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a whole model"):
        encoders.load(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        encoders.load(str(folder))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_told_in_a_sentence():
    with pytest.raises(UserError, match="--device cpu"):
        encoders.load("embedded", "cuda")


# Of each family that users name, a small model of the same classes: open_clip's configuration with a smaller trunk and text tower.
FAMILIES = [
    ("ViT-L-14-336-quickgelu", "openai", {"width": 64, "layers": 2, "head_width": 32}, {"width": 32, "heads": 2, "layers": 1}),
    ("ViT-B-16-SigLIP2", "webli", {"timm_model_name": "vit_tiny_patch16_224"}, {"width": 32, "heads": 2, "layers": 1, "vocab_size": 500}),
    ("MobileCLIP2-S0", "dfndr2b", {}, {"width": 64, "heads": 2, "layers": 1}),
    ("PE-Core-T-16-384", "meta", {}, {"width": 64, "heads": 2, "layers": 1}),
]


@pytest.mark.parametrize(("name", "tag", "vision", "text"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_every_family_of_encoders_loads_and_reads_as_open_clip_does(name, tag, vision, text, tmp_path, photos):
    assert tag in open_clip.list_pretrained_tags_by_model(name)
    config, given = open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag)
    config["embed_dim"] = 192
    config["vision_cfg"] |= vision
    config["text_cfg"] |= text
    for key in ("hf_tokenizer_name", "tokenizer_kwargs"):  # a tokenizer of the hub's: SigLIP's own is not here
        config["text_cfg"].pop(key, None)
    preprocess = {key: given[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    build = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build(**config)
    save_file({key: value.contiguous() for key, value in made.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    encoder, (clip, transform) = encoders.load(str(tmp_path)), theirs(tmp_path)
    photo = photos[0]
    with torch.no_grad():
        reference = F.normalize(clip.encode_image(transform(photo)[None]), dim=-1)
        assert 1 - (encoder(image.from_pil(photo)) * reference).sum() < 1e-2
    images = image.from_pil(photo).requires_grad_()
    encoder.describe(images)[:, 0].sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
