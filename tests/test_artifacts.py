"""Artifacts: feature maps from the pass that embeds, a head over pixels by closed forms, and a fit that learns."""
import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import synthetic_photo

from probes import encoders, features, image
from probes.artifacts import ArtifactProbe
from probes.errors import UserError
from probes.explain import FELT
from probes.heads import patch
from probes.heads.patch import Network, Patch, likeness, pool
from recipes import data

KINDS = ("blur", "noise")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return Patch(Network(len(KINDS)), KINDS, exponent=2., temperature=1.5, alarm=.4, reliability="checked on 4 works")


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


def test_a_copy_is_found_and_lies_at_one_offset():
    words = torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    words[..., 4:14, 4:14] = words[..., 18:28, 16:26]
    alike, agreed = likeness(words)[0]
    copied = torch.zeros(16, 16, dtype=torch.bool)
    copied[3:6, 3:6] = True
    assert (alike[copied] > .999).all()
    assert (agreed[copied] > .999).all()
    apart = torch.ones(16, 16, dtype=torch.bool)
    apart[1:8, 1:8] = apart[8:15, 7:14] = False
    assert alike[apart].max() < .98
    assert agreed[apart].mean() < .2


def test_the_slope_is_that_of_finite_differences(head):
    head = Patch(copy.deepcopy(head.network).double(), KINDS)
    images, way = (noise(1, 3, 64, 64, seed=seed).double().mul(.8).add(.1) for seed in (0, 1))
    images.requires_grad_()
    slope = float((torch.autograd.grad(head.score(images).sum(), images)[0] * way).sum())
    with torch.no_grad():
        ahead, behind = (float(head.score(images + sign * 1e-6 * way)) for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-3)


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


def test_a_head_comes_back_from_disk_and_a_damaged_one_is_named(head, tmp_path):
    stem = tmp_path / "artifacts"
    patch.save(stem, head, {"metrics": {}})
    loaded, images = patch.load(stem), noise(1, 3, 64, 64)
    assert (loaded.kinds, loaded.side, loaded.reliability) == (KINDS, 128, "checked on 4 works")
    torch.testing.assert_close(loaded.score(images), head.score(images), atol=2e-3, rtol=2e-2)
    table = json.loads(stem.with_suffix(".json").read_text())
    stem.with_suffix(".json").write_text(json.dumps(table | {"alarm": "loud"}))
    with pytest.raises(UserError, match="damaged"):
        patch.load(stem)
    stem.with_suffix(".json").write_text(json.dumps(table | {"kinds": ["blur"]}))
    with pytest.raises(UserError, match="not those of its card"):
        patch.load(stem)


def test_the_fit_learns_and_goes_on_where_it_was_interrupted(small_encoder, tmp_path):
    pytest.importorskip("sklearn")
    from recipes import artifacts
    from recipes.corruptions import CORRUPTIONS
    from recipes.round_trips import trips
    images = np.stack([np.asarray(synthetic_photo(seed, (144, 144))) for seed in range(12)])
    every, through = {name: CORRUPTIONS[name] for name in ("noise", "checkerboard")}, trips(None)
    generator = torch.Generator().manual_seed(0)
    seen = artifacts.examples(data.batch(images, np.arange(12)), every, through, generator)
    assert len(seen.pixels) == artifacts.VIEWS * 12 == len(seen.truth) == len(seen.kind) == len(seen.severity)
    assert seen.truth.shape[1:] == (16, 16)
    for steps in (4, 10):
        run = artifacts.started(len(every), tmp_path, 1, steps=steps)
        assert run.step == (0 if steps == 4 else 4)
        network = artifacts.fit(images, np.arange(12), np.ones(12), every, through, run)
    first, last = (artifacts.objective(*one(seen.pixels), seen) for one in (artifacts.Network(2), network))
    assert sum(last.values()) < sum(first.values())
    assert 0 < artifacts.scaled(Patch(network, tuple(every)), seen, seen.pixels[::artifacts.VIEWS], every, through).alarm <= 1


def test_a_toe_keeps_the_order_and_slight_readings_near_nothing(head):
    severity = torch.rand(20, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(.02, 1, 20)[:, None, None]
    plain, toed = head.pooled(severity), replace(head, toe=2.).pooled(severity)
    assert (plain.argsort() == toed.argsort()).all()
    torch.testing.assert_close(toed, 1 - (1 - pool(severity) ** 2) ** head.exponent)
    assert toed[0] < plain[0] / 10
    with pytest.raises(UserError, match="toe above 0"):
        replace(head, toe=0.)


def test_the_head_that_ships_finds_damage_where_it_is(embedded_encoder):
    from recipes.artifact_figures import localisation
    from recipes.corruptions import CORRUPTIONS, inject, patches
    probe, clean = ArtifactProbe(embedded_encoder), image.from_pil(synthetic_photo(50, (128, 128)))
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 32:80, 48:104] = 1
    for kind in ("noise", "checkerboard"):  # as drawn: of another form each time
        found = []
        for seed in range(6):
            broken = inject(clean, CORRUPTIONS[kind], .8, mask, torch.Generator().manual_seed(seed))
            found.append(localisation(patches(clean, broken, mask, 8)[0], probe.map(broken)[0]))
            assert probe.relative(broken, clean) > .05
        assert sum(found) / len(found) > .85
    assert "AUC" in probe.aim().reliability


def test_it_is_listed_read_and_explained(embedded_encoder, tmp_path):
    from probes import overview
    from probes.labelling import explained
    from recipes.corruptions import VARIANTS, inject
    assert "artifacts" in {row.name for row in overview.listed(embedded_encoder)}
    clean, mask = image.from_pil(synthetic_photo(50, (128, 136))), torch.zeros(1, 1, 136, 128)
    mask[..., 40:104, 16:80] = 1
    grain = VARIANTS["noise"]["of each colour by itself"]
    for name, picture in (("clean", clean), ("broken", inject(clean, grain, .9, mask, torch.Generator().manual_seed(0)))):
        image.to_pil(picture).save(tmp_path / f"{name}.png")
    rows = overview.readings([tmp_path / "clean.png", tmp_path / "broken.png"], embedded_encoder)
    whole, broken = (row["probes"]["artifacts"] for row in rows)
    assert broken["damaged"]
    assert max(broken["kind_probabilities"], key=broken["kind_probabilities"].get) == "noise"
    assert whole["severity"] < broken["severity"]
    found = explained(tmp_path / "broken.png", embedded_encoder, "artifacts", "", (), "occlusion", None)
    assert found.relevance.shape == found.picture.shape[:2] == (136, 128)
    assert found.relevance[48:96, 24:72].mean() > 3 * found.relevance[:24].mean()
    assert found.check.causal
    assert found.check.whole == pytest.approx(found.score, abs=1e-4)
    assert "changes the severity by" in found.verdict
    # The synthetic photograph reads as damaged all over, so that its own clean places repair nothing.
    assert ("shows what the reading rests on" in found.verdict) == (found.check.effect >= FELT)
    found.to_png(tmp_path / "why.png")
    found.to_html(tmp_path / "why.html")
    assert "most likely noise" in (tmp_path / "why.html").read_text(encoding="utf-8")
