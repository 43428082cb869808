"""Artifacts: feature maps from the pass that embeds, a head over patches by closed forms, and a fit that learns."""
import json

import numpy as np
import pytest
import torch
from conftest import synthetic_photo
from safetensors.torch import save_file

from probes import encoders, features, image
from probes.artifacts import ArtifactProbe
from probes.errors import UserError
from probes.heads import patch
from probes.heads.patch import Patch, initial, outputs, pool, textures

STAGES, KINDS = ("conv1", "conv3"), ("blur", "noise")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def head(small_encoder):
    seen = textures(small_encoder.maps(noise(4, 3, 64, 64), STAGES, native=True), STAGES)
    weights = initial(seen.mean((0, 2, 3)), seen.std((0, 2, 3)) + .01, len(KINDS), 8, torch.Generator().manual_seed(0))
    return Patch(weights, STAGES, KINDS, exponent=2., temperature=1.5, alarm=.4, reliability="checked on 4 works")


def test_one_pass_gives_the_embedding_and_the_maps(small_encoder):
    images, wanted = noise(2, 3, 80, 100), ["stem", "layer1", "layer4"]
    found = small_encoder.features(images, wanted)
    assert torch.equal(found.embeddings, small_encoder(images))
    assert {name: tuple(value.shape[-2:]) for name, value in found.maps.items()} == {"stem": (24, 24), "layer1": (24, 24), "layer4": (3, 3)}
    trunk, pixels = small_encoder.clip.visual, small_encoder.preprocess(images)
    torch.testing.assert_close(found.maps["layer1"], trunk.layer1(trunk.stem(pixels)))
    assert torch.equal(small_encoder.maps(images, ["stem"])["stem"], found.maps["stem"])
    assert not any(module._forward_hooks for module in trunk.modules()), "nothing is kept after the pass"


def test_native_maps_see_the_whole_image_in_its_own_pixels(small_encoder):
    images = noise(1, 3, 64, 96)
    found = small_encoder.maps(images, ["conv3"], native=True)["conv3"]
    assert found.shape[-2:] == (32, 48)
    mirrored = small_encoder.maps(images[..., :64], ["conv3"], native=True)["conv3"]
    torch.testing.assert_close(found[..., :24], mirrored[..., :24])  # what lies to the right does not matter


def test_a_vision_transformer_gives_its_patch_tokens(clip_folder):
    encoder = encoders.load(str(clip_folder("vit", side=64)))
    images = noise(2, 3, 64, 64)
    found = encoder.features(images, ["block1", "block2"])
    theirs = encoder.clip.visual.forward_intermediates(encoder.preprocess(images), indices=2)["image_intermediates"]
    for name, expected in zip(("block1", "block2"), theirs, strict=True):
        torch.testing.assert_close(found.maps[name], expected)
    with pytest.raises(UserError, match="its own size only"):
        encoder.maps(images, ["block1"], native=True)


def test_what_gives_no_maps_says_so(small_encoder):
    with pytest.raises(UserError, match="no stage 'layer9'; it has conv1, conv3, stem, layer1"):
        small_encoder.features(noise(1, 3, 64, 64), ["layer9"])
    with pytest.raises(UserError, match="gives no feature maps: its image tower is a Linear"):
        features.stages(torch.nn.Linear(2, 2), "odd")


def test_textures_are_means_and_the_energy_above_the_local_mean():
    flat = torch.full((1, 2, 16, 16), .7)
    seen = textures({"a": flat[:, :1], "b": flat[:, 1:]}, ("a", "b"))
    assert seen.shape == (1, 8, 4, 4)
    torch.testing.assert_close(seen[:, :2], torch.full((1, 2, 4, 4), .7))
    torch.testing.assert_close(seen[:, 2:], torch.full((1, 6, 4, 4), 1e-4).log())
    rows, columns = torch.arange(16)[:, None], torch.arange(16)[None]
    board = ((rows + columns) % 2 * 2. - 1)[None, None]  # of +-1 and a local mean of a ninth
    energy = textures({"a": board}, ("a",))[0, 1, 1:3, 1:3]
    torch.testing.assert_close(energy, torch.full((2, 2), (8 / 9) ** 2 + 1e-4).log())


def test_scores_pool_the_map(head):
    torch.testing.assert_close(pool(torch.full((2, 3, 4), .3)), torch.full((2,), .3))
    one = torch.zeros(1, 4, 4)
    one[0, 1, 2] = .8
    torch.testing.assert_close(pool(one), torch.tensor([.8 / 16 ** (1 / 3)]))
    torch.testing.assert_close(head.pooled(torch.full((1, 4, 4), .3)), torch.tensor([1 - .7**2]))


def test_the_probe_reads_any_shape_and_its_measure_reaches_the_pixels(small_encoder, head):
    probe, images = ArtifactProbe(small_encoder, head), noise(2, 3, 64, 96).requires_grad_()
    measure = probe.aim()
    assert (measure.name, measure.unit, measure.range, measure.higher_is_better) == ("artifacts", "severity", (0., 1.), False)
    assert measure.reliability == "checked on 4 works"
    score, found = measure(images), probe.map(images)
    assert found.shape == (2, 8, 12)
    torch.testing.assert_close(score, head.pooled(found))
    score.sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
    torch.testing.assert_close(probe.kinds(images).sum(1), torch.ones(2))
    look = probe.look(images)
    assert torch.equal(look["damaged"], score > .4)
    assert look["kinds"] == list(KINDS)
    torch.testing.assert_close(probe.relative(images, images.flip(0)), score - score.flip(0))


def test_what_it_cannot_read_is_told_in_a_sentence(small_encoder, head):
    probe = ArtifactProbe(small_encoder, head)
    with pytest.raises(UserError, match="24 x 40 pixels is too small"):
        probe.map(noise(1, 3, 40, 24))
    with pytest.raises(UserError, match="the same number and size"):
        probe.relative(noise(1, 3, 64, 64), noise(2, 3, 64, 64))
    with pytest.raises(UserError, match="not from their embeddings"):
        probe.aim().score(noise(1, small_encoder.dim))
    with pytest.raises(UserError, match="no artifact head ships"):
        _ = ArtifactProbe(small_encoder).head
    other = Patch(initial(torch.zeros(5), torch.ones(5), 2, 4, torch.Generator().manual_seed(0)), STAGES, KINDS)
    with pytest.raises(UserError, match="another encoder"):
        ArtifactProbe(small_encoder, other).map(noise(1, 3, 64, 64))


def test_a_head_comes_back_from_disk_and_a_damaged_card_is_named(head, tmp_path):
    stem = tmp_path / "artifacts"
    save_file({name: value.contiguous() for name, value in head.weights.items()}, stem.with_suffix(".safetensors"))
    table = {"stages": STAGES, "kinds": KINDS, "exponent": 2., "temperature": 1.5, "alarm": .4, "side": 64, "reliability": "checked"}
    stem.with_suffix(".json").write_text(json.dumps(table))
    loaded = patch.load(stem)
    assert (loaded.stages, loaded.kinds, loaded.side, loaded.reliability) == (STAGES, KINDS, 64, "checked")
    seen = noise(1, len(head.weights["centre"]), 4, 4)
    torch.testing.assert_close(outputs(loaded.weights, seen), outputs(head.weights, seen))
    stem.with_suffix(".json").write_text(json.dumps(table | {"alarm": "loud"}))
    with pytest.raises(UserError, match="damaged"):
        patch.load(stem)


def test_the_fit_finds_damage_that_it_has_not_seen(small_encoder):
    pytest.importorskip("sklearn")
    from recipes import artifacts
    from recipes.artifact_figures import localisation
    from recipes.corruptions import CORRUPTIONS, inject, patches
    from recipes.round_trips import trips
    images = np.stack([np.asarray(synthetic_photo(seed, (144, 144))) for seed in range(40)])
    train = artifacts.examples(small_encoder, images, np.arange(36), trips(None), 0)
    assert train.seen.shape[0] == 3 * 36 == len(train.truth) == len(train.kind) == len(train.severity)
    names = tuple(artifacts.kinds(small_encoder))
    head = Patch(artifacts.fit(train, len(names), 6, 0), artifacts.STAGES, names)
    head = artifacts.scaled(head, train)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 32:80, 48:104] = 1
    clean = image.from_pil(synthetic_photo(50, (128, 128)))
    broken = inject(clean, CORRUPTIONS["noise"], .8, mask, torch.Generator().manual_seed(0))
    probe = ArtifactProbe(small_encoder, head)
    assert localisation(patches(clean, broken, mask, 8)[0], probe.map(broken)[0]) > .9
    assert probe.relative(broken, clean) > 0
