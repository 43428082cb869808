"""The recipes on forty-eight made-up paintings: each trains, keeps a checkpoint, goes on, and what they make loads as what ships does."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from probes.judges import GENRES, STYLES

pytest.importorskip("sklearn")
MINUTES = .01


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise of a colour per style, three artists in three splits."""
    folder, rng = tmp_path_factory.mktemp("paintings"), np.random.default_rng(0)
    rows = []
    for index in range(48):
        colour = rng.integers(60, 200, 3)
        pixels = np.clip(colour + rng.normal(0, 30, (36, 36, 3)), 0, 255).astype(np.uint8)
        name = f"{index}.jpg"
        Image.fromarray(pixels).resize((150, 160)).save(folder / name)
        split = ("guide", "judge", "test")[index % 3]
        known = {"style": STYLES[index % len(STYLES)], "genre": GENRES[index % len(GENRES)], "artist": f"{split}-{index % 12}"}
        sometimes = {"year": 1500 + 8 * index if index % 4 else None, "title": "lemons and a jug" if index % 2 else ""}
        rows.append({"file_name": name, "split": split, **known, **sometimes})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def work(folder, tmp_path_factory):
    """Autoencoder, CLIP and denoiser, each trained for a moment."""
    from recipes import autoencoder, clip, denoiser
    work = tmp_path_factory.mktemp("work")
    autoencoder.main(folder, work, MINUTES, "cpu", 2)
    clip.main(folder, work, 3 * MINUTES, "cpu", 16)
    denoiser.main(folder, work, MINUTES, "cpu", 4)
    return work


def test_what_they_make_assembles_into_a_pipeline_and_a_clip(work, tmp_path):
    import open_clip
    from diffusers import DiffusionPipeline

    from recipes import assemble
    assemble.main(work, tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "guide" / "embedded")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a baroque portrait", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert images.shape == (1, 3, 128, 128)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'probes' / 'embedded' / 'clip'}")
    assert model.encode_image(torch.rand(1, 3, 96, 96)).isfinite().all()


def test_a_finished_run_given_more_time_goes_on(work, folder):
    from recipes import autoencoder
    checkpoint = work / "autoencoder" / "checkpoint.pt"
    before = torch.load(checkpoint, weights_only=True)["step"]
    autoencoder.main(folder, work, MINUTES, "cpu", 2)
    assert torch.load(checkpoint, weights_only=True)["step"] == before, "a finished run has nothing left to do"
    autoencoder.main(folder, work, 2 * MINUTES, "cpu", 2)
    assert torch.load(checkpoint, weights_only=True)["step"] > before


def test_decoder_and_referee_train(work, folder):
    from recipes import decoder, referee
    decoder.main(folder, work, MINUTES, "cpu", 2)
    referee.main(folder, work, MINUTES, "cpu", 12)
    assert json.loads((work / "referee" / "model" / "training.json").read_text())["steps"] > 0
    assert (work / "decoder" / "vae" / "config.json").is_file()


def test_missing_paintings_are_named(folder, tmp_path):
    from recipes import data
    table = pd.read_csv(folder / "metadata.csv")
    other = tmp_path / "paintings"
    other.mkdir()
    table.to_csv(other / "metadata.csv", index=False)
    with pytest.raises(FileNotFoundError, match=r"48 of 48 files .* the first: 0\.jpg"):
        data.paintings(other, tmp_path / "cache")
