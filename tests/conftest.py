"""What the tests share: real pictures where they are at hand, small CLIPs in the hub's own format, and no network."""
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
TOWERS = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "vit": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
}
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of paintings and features; tests that need it are skipped elsewhere."""
    folder = Path(os.environ.get("GUIDE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no paintings here: set GUIDE_DATA to the folder that holds them")
    return folder


def synthetic_photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """Smooth shapes, edges and grain, as a camera would leave them; `size` is width, height."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width] / min(size)
    waves = [np.sin(rng.uniform(3, 25) * x * np.cos(a) + rng.uniform(3, 25) * y * np.sin(a)) for a in rng.uniform(0, 6, 3)]
    pixels = .5 + .25 * np.stack(waves, -1) + .03 * rng.standard_normal((height, width, 3))
    for _ in range(6):
        inside = (x - rng.uniform(0, 1)) ** 2 + (y - rng.uniform(0, 1)) ** 2 < rng.uniform(.05, .3) ** 2
        pixels[inside] = .6 * rng.uniform(0, 1, 3) + .4 * pixels[inside]
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Four pictures of several sizes and shapes: paintings where the data is, else synthetic."""
    folder = Path(os.environ.get("GUIDE_DATA", ROOT.parent / "shared" / "data")) / "cezanne" / "authentic"
    if folder.is_dir():
        return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:4]]
    sizes = [(224, 301), (300, 224), (97, 150), (64, 64)]
    return [synthetic_photo(seed, size) for seed, size in enumerate(sizes)]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Callable[..., Path]:
    """`clip_folder(tower, side=..., **preprocess)` saves a small CLIP with random weights in open_clip's format and returns its folder."""
    import open_clip

    def build(tower: str = "resnet", side: int = 96, **preprocess) -> Path:
        model = {"embed_dim": 48, "vision_cfg": {"image_size": side, **TOWERS[tower]},
                 "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            clip = open_clip.CLIP(**model)
            for name, value in clip.named_parameters():
                if name.endswith("bn3.weight"):
                    torch.nn.init.ones_(value)  # starts at 0, which would leave the blocks out
        folder = tmp_path_factory.mktemp(tower)
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
        save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, folder / "open_clip_model.safetensors")
        return folder

    return build


@pytest.fixture(scope="session")
def small_encoder(clip_folder):
    """A small CLIP with random weights."""
    from probes import encoders
    return encoders.load(str(clip_folder("resnet")))


@pytest.fixture(scope="session")
def embedded_encoder():
    """The encoder that ships."""
    from probes import encoders
    return encoders.load("embedded")
