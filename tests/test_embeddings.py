"""Embeddings of files: each computed once, by what it holds and who read it; a broken file stops nothing."""
import shutil

import numpy as np
import pytest
import torch
from conftest import synthetic_photo

from probes import encoders, image
from probes.embeddings import Store, embed


@pytest.fixture
def folder(tmp_path):
    """Four pictures of three sizes, the last a copy of the first, and one file that is no picture."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, size in enumerate([(120, 90), (64, 64), (33, 150)]):
        synthetic_photo(number, size).save(pictures / f"{number}.png")
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    return pictures


def files(folder):
    return [folder / name for name in ("0.png", "1.png", "broken.jpg", "2.png", "copy.png", "missing.png")]


def test_pictures_of_any_size_are_embedded_as_one_by_one_and_broken_ones_are_named(folder, small_encoder):
    found = embed(files(folder), small_encoder)
    assert found.rows.tolist() == [0, 1, 3, 4]
    assert found.computed == 3, "a copy is read once"
    assert sorted(found.errors) == [2, 5]
    assert "broken.jpg" in found.errors[2]
    assert "missing.png" in found.errors[5]
    for row, embedding in zip(found.rows, found.features, strict=True):
        with torch.no_grad():
            alone = small_encoder(image.load(files(folder)[row]))[0].numpy()
        assert abs(1 - alone @ embedding) < 1e-4


def test_the_cache_goes_by_content_and_by_encoder(folder, small_encoder, clip_folder, tmp_path):
    cache = tmp_path / "cache"
    first = embed(files(folder), small_encoder, cache=cache)
    (folder / "1.png").rename(folder / "moved.png")
    again = embed([folder / "moved.png", folder / "0.png"], small_encoder, cache=cache)
    assert again.computed == 0
    assert np.array_equal(again.features, first.features[[1, 0]])
    synthetic_photo(9, (64, 64)).save(folder / "0.png")
    assert embed([folder / "0.png"], small_encoder, cache=cache).computed == 1
    other = encoders.load(str(clip_folder("resnet", side=96, interpolation="bilinear")))
    assert other.fingerprint == small_encoder.fingerprint
    assert embed([folder / "moved.png"], other, cache=cache).computed == 1, "the same weights with another preprocessing read otherwise"


def test_an_interruption_keeps_what_was_computed(folder, small_encoder, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        embed(files(folder), small_encoder, cache=tmp_path / "cache", batch=1, on_progress=stop)
    assert embed(files(folder), small_encoder, cache=tmp_path / "cache").computed == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_damaged_shard_counts_as_absent(folder, small_encoder, tmp_path):
    cache = tmp_path / "cache"
    first = embed([folder / "0.png"], small_encoder, cache=cache)
    shard = next(cache.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:40])
    assert Store(cache, small_encoder).load() == {}
    again = embed([folder / "0.png"], small_encoder, cache=cache)
    assert again.computed == 1
    np.testing.assert_allclose(again.features, first.features, atol=1e-6)
    assert embed([folder / "0.png"], small_encoder, cache=cache).computed == 0


def test_nothing_that_can_be_read_is_no_error_but_no_row(tmp_path, small_encoder):
    found = embed([tmp_path / "none.png"], small_encoder)
    assert found.features.shape == (0, small_encoder.dim)
    assert list(found.errors) == [0]
