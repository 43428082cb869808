"""Image networks without a text tower, DINOv2 and CSD, read from the hub's own files: features for judges and for heads."""

import functools
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from probes import hub, image
from probes.errors import UserError
from probes.judges import presets
from probes.judges.presets import Preset
from probes.lineage import Lineage
from probes.paths import digest

WEIGHTS = "model.safetensors"
FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Backbone(nn.Module):
    """Images (n, 3, h, w) in [0, 1] to L2-normalised fp32 features (n, dim): what `encoders.Encoder` is, without words.

    `edge`: the shorter side is resized to it, bicubic, before the centre, `side` a side, is cut out, as the network's own processor does.
    """

    has_text, tokenizer = False, None

    def __init__(self, network: nn.Module, side: int, edge: int, mean, std, *, preset: Preset, source: str, checkpoint: Path):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.side, self.edge, self.size, self.checkpoint = side, edge, (side, side), checkpoint
        self.preset, self.source, self.name, self.data = preset, source, preset.key or source, preset.data
        for key, value in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(value, dtype=torch.float32)[:, None, None], persistent=False)
        with torch.no_grad():
            self.dim = self(torch.zeros(1, 3, side, side)).shape[-1]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file of weights."""
        return digest(self.checkpoint)

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.fingerprint, self.preset.data, self.preset.architecture, self.preset.objective)

    def fit(self, pixels: Tensor) -> Tensor:
        """Resized and cropped to (n, 3, side, side): floats, or 8-bit values, which stay such."""
        height, width = pixels.shape[-2:]
        if (height, width) == self.size:
            return pixels
        shape = tuple(max(side * self.edge // min(height, width), self.side) for side in (height, width))
        pixels = image.resize(pixels, shape, "bicubic")
        top, left = ((edge - self.side) // 2 for edge in shape)
        return pixels[..., top : top + self.side, left : left + self.side]

    def preprocess(self, images: Tensor) -> Tensor:
        """What the network's own processor does, differentiable: (n, 3, side, side) in fp32."""
        return (self.fit(images.to(self.device, torch.float32)) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.preprocess(image.check(images)).to(next(self.network.parameters()).dtype)
        return F.normalize(self.network(pixels).float(), dim=-1)


class ClassToken(nn.Module):
    """DINOv2's class token after the last norm (arXiv:2304.07193)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).last_hidden_state[:, 0]


class StyleDescriptor(nn.Module):
    """CSD (arXiv:2404.01292): the image tower of OpenAI's CLIP, tuned to tell styles apart, under a projection of its own."""

    def __init__(self, backbone: nn.Module, last_layer_style: Tensor):
        super().__init__()
        self.backbone, self.last_layer_style = backbone, nn.Parameter(last_layer_style)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone(pixels) @ self.last_layer_style


def named(source: str) -> tuple[Preset, Path] | None:
    """The preset of an image network that a source means, by key or TOML file, and the folder of its paths; None where it means another."""
    if source not in presets.presets() and not source.endswith(".toml"):
        return None
    preset, where = presets.find(source)
    return (preset, where) if preset.network in ("dinov2", "csd") else None


def load(preset: Preset, where: Path, device: str = "cpu") -> Backbone:
    """The network of a preset, from a folder in the hub's format or from the hub; UserError where its files are not to be had."""
    folder = files(preset, where, ("config.json", "preprocessor_config.json", WEIGHTS) if preset.network == "dinov2" else (WEIGHTS,))
    try:
        made = _dinov2(preset, folder) if preset.network == "dinov2" else _csd(preset, folder, where)
    except UserError:
        raise
    except FAILURES as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".: ")
        raise UserError(f"{folder} holds no whole network of the kind {preset.network}: {cause}.") from error
    return made.to(device)


def files(preset: Preset, where: Path, wanted: tuple[str, ...]) -> Path:
    """The folder in which the wanted files of a preset lie, fetched where they are on a hub."""
    folder = where / Path(preset.source).expanduser()
    if folder.is_dir():
        missing = [name for name in wanted if not (folder / name).is_file()]
        if missing:
            raise UserError(f"The folder {folder} lacks {' and '.join(missing)}, so that it is no {preset.network} network.")
        return folder
    from huggingface_hub import hf_hub_download

    what = f"the judge {preset.key or preset.source}"
    hub.ensure(what, preset.source, " ".join(wanted))
    try:
        return Path([hf_hub_download(preset.source, name, revision=preset.revision or None) for name in wanted][-1]).parent
    except FAILURES as error:
        raise hub.unreachable(what, preset.source, " ".join(wanted), error) from error


def _dinov2(preset: Preset, folder: Path) -> Backbone:
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    side = said["crop_size"]["height"] if said.get("do_center_crop", True) else said["size"]["height"]
    edge = said["size"].get("shortest_edge", side)
    return Backbone(ClassToken(model), side, edge, said["image_mean"], said["image_std"], preset=preset, source=preset.key or str(folder),
                    checkpoint=folder / WEIGHTS)  # fmt: skip


def _csd(preset: Preset, folder: Path, where: Path) -> Backbone:
    """Keys `backbone.*` as in OpenAI's image tower without its projection, and `last_layer_style`."""
    tower = open_clip_model(preset.model, where).visual
    tower.proj = None
    state = load_file(folder / WEIGHTS)
    tower.load_state_dict({key.removeprefix("backbone."): value.float() for key, value in state.items() if key.startswith("backbone.")})
    side = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
    return Backbone(StyleDescriptor(tower, state["last_layer_style"].float()), side, side, CLIP_MEAN, CLIP_STD, preset=preset,
                    source=preset.key or str(folder), checkpoint=folder / WEIGHTS)  # fmt: skip


def open_clip_model(model: str, where: Path) -> nn.Module:
    """An open_clip model of random weights: an architecture by name, or by a folder with open_clip_config.json."""
    import open_clip

    path = where / Path(model).expanduser() / "open_clip_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))["model_cfg"] if path.is_file() else open_clip.get_model_config(model)
    if said is None:
        raise UserError(f"there is no open_clip architecture {model!r}.")
    said = {key: value for key, value in said.items() if key != "custom_text"}
    return open_clip.CLIP(**said)
