"""Files of every kind that a folder may hold: each is read with a note on what is unusual, or refused with its reason."""

import io
import json
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from probes.auditing.opening import opened
from probes.image import unit
from probes.provenance import a1111, said

GRADIENT = np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (40, 1))
PHOTO = Image.fromarray(np.stack([GRADIENT, GRADIENT[:, ::-1], GRADIENT // 2], -1))


def written(picture, kind, **options):
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for kind, name in (("GIF", "a.gif"), ("WEBP", "a.webp"), ("PNG", "a.png")):
        exact = {"lossless": True} if kind == "WEBP" else {}
        found = opened(written(frames[0], kind, save_all=True, append_images=frames[1:], **exact), name)
        assert found.notes[0] == "the first of 3 frames"
        assert unit(found.pixels)[0, :, 20, 20].round().tolist() == [1, 0, 0]


def test_turns_of_exif_are_carried_out():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = opened(written(PHOTO, "JPEG", exif=exif), "a.jpg")
    assert tuple(found.pixels.shape) == (1, 3, 48, 40)
    assert "turned as its EXIF says" in found.notes


def test_transparency_palettes_and_cmyk_become_colours():
    clear = PHOTO.convert("RGBA")
    clear.putalpha(0)
    found = opened(written(clear, "PNG"), "a.png")
    assert found.notes == ["transparency laid over white"]
    assert unit(found.pixels).min() == 1
    assert opened(written(PHOTO.quantize(8), "PNG"), "a.png").notes == ["palette colours"]
    cmyk = opened(written(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), "a.jpg")
    assert cmyk.notes == ["CMYK colours were converted without a profile"]
    assert unit(cmyk.pixels)[0, :, 9, 9].round().tolist() == [1, 0, 0]


def test_greys_of_16_bits_keep_their_range():
    grey = Image.fromarray(np.full((40, 40), 32768, np.uint16))
    found = opened(written(grey, "PNG"), "a.png")
    assert found.notes == ["16-bit grey"]
    assert torch.allclose(found.pixels, torch.tensor(32768 / 65535))


def test_a_wrong_extension_is_noted_and_a_right_one_is_not():
    assert opened(written(PHOTO, "JPEG"), "a.png").notes == ["a JPEG file by another name"]
    assert not opened(written(PHOTO, "JPEG"), "A.JPG").notes
    assert not opened(written(PHOTO, "PNG"), "no suffix").notes


@pytest.mark.parametrize(("data", "told"), [
    (b"", "empty"),
    (b"GIF89a and then nothing", "cannot be decoded|not an image"),
    (b"<svg onload=alert(1)>", "an SVG, lines and no pixels"),
    (b"%PDF-1.7", "a PDF"),
    (b"hello", "not an image"),
    (written(PHOTO, "PNG")[:100], "cannot be decoded"),
    (written(PHOTO, "JPEG")[:300], "cannot be decoded"),
    (written(Image.new("RGB", (8, 200)), "PNG"), "too few"),
    (written(Image.fromarray(np.ones((40, 40), np.float32)), "TIFF"), "floating-point"),
])  # fmt: skip
def test_what_cannot_be_read_says_why(data, told):
    found = opened(data, "a.png")
    assert found.pixels is None
    assert re.search(told, found.error)


def test_a_decompression_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    assert "more than 1 megapixels" in opened(written(Image.new("1", (1500, 1000)), "PNG"), "a.png").error


def test_noise_never_raises():
    rng, whole = np.random.default_rng(0), bytearray(written(PHOTO, "PNG"))
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = written(PHOTO, kind)
        for _ in range(12):
            broken = bytearray(whole)
            for place in rng.integers(len(broken), size=8):
                broken[place] = rng.integers(256)
            found = opened(bytes(broken), "a")
            assert (found.pixels is None) == bool(found.error)


def chunks(**texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return Image.open(io.BytesIO(written(PHOTO, "PNG", pnginfo=info)))


def test_prompts_of_other_tools_are_read():
    text = "lemons, a jug\non a table\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512"
    assert a1111(text) == {"tool": "a1111", "subject": "lemons, a jug\non a table", "seed": 42}
    assert said(chunks(parameters=text))["subject"] == "lemons, a jug\non a table"
    assert a1111("Just some words.") == {}
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    assert said(Image.open(io.BytesIO(written(PHOTO, "JPEG", exif=exif))))["seed"] == 42
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 7, "positive": ["9", 0], "negative": ["7", 0]}},
        "9": {"class_type": "ConditioningCombine", "inputs": {"conditioning": ["6", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0]}},
        "12": {"class_type": "String", "inputs": {"string": "a castle"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly"}},
    }
    assert said(chunks(prompt=json.dumps(graph))) == {"tool": "comfyui", "subject": "a castle", "seed": 7}
    editor = {
        "nodes": [{"id": 3, "type": "KSampler", "inputs": [{"name": "positive", "type": "CONDITIONING", "link": 5}]},
                  {"id": 6, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a castle"]}],
        "links": [[5, 6, 0, 3, 1, "CONDITIONING"]],
    }  # fmt: skip
    assert said(chunks(workflow=json.dumps(editor)))["subject"] == "a castle"


def test_damaged_parameters_count_as_not_said():
    loop = {"1": {"inputs": {"positive": ["1", 0]}}}
    damaged = [{"prompt": "{"}, {"prompt": json.dumps(loop)}, {"workflow": "[]"}, {"guide": "[" * 5000}]
    damaged += [{"parameters": "x", "prompt": "[1]"}, {"workflow": '{"nodes": [{"id": 1}], "links": [[]]}'}]
    for texts in damaged:
        assert said(chunks(**texts)) == {}


def test_a_png_with_a_flipped_byte_is_no_picture():
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(held, "PNG")
    data = bytearray(held.getvalue())
    data[len(data) // 2] ^= 0xFF
    found = opened(bytes(data), "flipped.png")
    assert found.pixels is None
    assert found.error


def test_comfyui_by_guiders_links_and_models():
    nodes = {
        "10": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["11", 0], "guider": ["12", 0]}},
        "11": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["16", 0]}},
        "12": {"class_type": "BasicGuider", "inputs": {"conditioning": ["13", 0], "model": ["14", 0]}},
        "13": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["15", 0], "guidance": 3.5}},
        "14": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux\\flux1-dev.safetensors"}},
        "15": {"class_type": "CLIPTextEncode", "inputs": {"text": ["17", 0]}},
        "16": {"class_type": "PrimitiveInt", "inputs": {"value": 99}},
        "17": {"class_type": "StringConcatenate", "inputs": {"string_a": "a castle", "delimiter": ", "}},
    }
    assert said(chunks(prompt=json.dumps(nodes))) == {"tool": "comfyui", "subject": "a castle", "seed": 99, "model": "flux1-dev"}
    nodes["17"]["inputs"] = {"other": ["17", 0]}  # a ring
    assert said(chunks(prompt=json.dumps(nodes))) == {}
