"""Judges from a hub: DINOv2 and CSD features under heads, SigLIP 2 by words, HPSv2's preference within one prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from probes import backbones, encoders
from probes.config import lookup, styles
from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads import card
from probes.heads.head import Head, YearHead
from probes.judge import Judge, Opinion
from probes.judges.presets import Preset
from probes.lineage import Lineage
from probes.period import PeriodProbe
from probes.style import StyleProbe

PREFERENCE = "cosine of picture and prompt in HPS v2; comparable within one prompt only, not validated here"


@dataclass(frozen=True)
class Heads:
    """What reads a network's features: a head of styles, what it recalled of real ones, a head of years, and the data of both."""

    style: Head | None = None
    year: YearHead | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    data: tuple[str, ...] = ()


class HubJudge(Judge):
    """A network of a preset under a head of styles and one of years, each optional; or it weighs each picture against its prompt."""

    def __init__(self, name: str, tower: nn.Module, preset: Preset, heads: Heads, salt: str):
        style, year = heads.style, heads.year
        trust = {"verdict": style.reliability} if style else {}
        trust |= ({"verdict's year": year.reliability} if year else {}) | ({"preference": PREFERENCE} if preset.network == "hpsv2" else {})
        labels = tuple(map(_key, style.labels)) if style else ()
        recall = {_key(label): share for label, share in heads.recall.items()}
        super().__init__(name, tower, {"labels": labels, "genre_labels": (), "reliability": trust, "recall": recall}, tower.fingerprint)
        self.lineage = Lineage(tower.fingerprint, "+".join((preset.data, *heads.data)), preset.architecture, preset.objective)
        self.style, self.year, self.prefers, self.salt = style, year, preset.network == "hpsv2", salt

    @property
    def identity(self) -> str:
        return self.salt

    def fit(self, images: Tensor) -> Tensor:
        return self.network.fit(images)

    @torch.no_grad()
    def forward(self, images: Tensor, prompts: Sequence[str] = ()) -> Opinion:
        """Images (n, 3, h, w) in [0, 1]; `prompts`: what each was made for, "" where nobody knows."""
        features = self.network(images)
        preference = None
        if self.prefers and any(prompts):
            towards = (features * self.network.text([prompt or " " for prompt in prompts])).sum(1)
            preference = torch.where(torch.tensor([bool(prompt) for prompt in prompts], device=towards.device), towards, torch.nan)
        return Opinion(
            styles=self.style.probabilities(features) if self.style else None,
            years=self.year.expected(features) if self.year else None,
            genres=None,
            severity=None,
            features=features,
            preference=preference,
        )


def load(name: str, preset: Preset, where: Path, device: str, heads: Sequence[str | Path]) -> HubJudge:
    """The judge of a preset. `heads` besides, or instead of, those that the preset names: files made by `guide probe fit`."""
    stems = [where / Path(head).expanduser() for head in preset.heads] + [Path(head).expanduser() for head in heads]
    tower = _tower(preset, where, device)
    heads = _heads(stems, tower, device)
    if preset.network == "open-clip":
        heads = replace(heads, style=heads.style or StyleProbe(tower).head, year=heads.year or PeriodProbe(tower).head)
    elif preset.network != "hpsv2" and heads.style is None and heads.year is None:
        out = f"{Path(name).stem}-style"
        fit = f"guide probe fit --encoder {name} --data FOLDER --label style --out {out}"
        raise UserError(f"The judge {name!r} has no head to read styles with: fit one to labelled paintings with `{fit}`, then name it "
                        f"with --judge-head {out}.")  # fmt: skip
    digest = sha256(tower.fingerprint.encode())
    for stem in stems:
        for suffix in (".json", ".safetensors"):
            digest.update(stem.with_name(stem.name + suffix).read_bytes())
    return HubJudge(name, tower, preset, heads, digest.hexdigest()).to(device)


def _tower(preset: Preset, where: Path, device: str) -> nn.Module:
    if preset.network == "open-clip":
        folder = where / Path(preset.source).expanduser()
        return encoders.load(str(folder) if folder.is_dir() else preset.source, device)
    return _hpsv2(preset, where).to(device) if preset.network == "hpsv2" else backbones.load(preset, where, device)


def _hpsv2(preset: Preset, where: Path) -> Encoder:
    """CLIP ViT-H/14 with the weights of HPS v2; its own preprocessing shrinks the whole picture and fills up with black."""
    import open_clip

    folder = backbones.files(preset, where, (preset.file,))
    model, checkpoint = backbones.open_clip_model(preset.model, where), folder / preset.file
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict({key: value.float() for key, value in held.get("state_dict", held).items()})
    except backbones.FAILURES as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".: ")
        raise UserError(f"{checkpoint} holds no weights of HPS v2: {cause}.") from error
    open_clip.model.set_model_preprocess_cfg(model, {
        "size": model.visual.image_size, "mode": "RGB", "mean": backbones.CLIP_MEAN, "std": backbones.CLIP_STD, "interpolation": "bicubic",
        "resize_mode": "longest", "fill_color": 0,
    })  # fmt: skip
    named = where / Path(preset.model).expanduser()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{named}" if named.is_dir() else preset.model)
    return Encoder(model, tokenizer, source=preset.key or preset.source, data=preset.data, checkpoint=checkpoint)


def _heads(stems: Sequence[Path], tower: nn.Module, device: str) -> Heads:
    """UserError for a head of another network."""
    found = Heads()
    for stem in stems:
        said, head = card.read(stem), card.load(stem, device)
        if said.get("encoder") and said["encoder"] != tower.fingerprint:
            other = said.get("encoder_name") or "another network"
            raise UserError(f"the head {stem} was fitted to {other}, not to this judge; fit one with it.")
        measured = said.get("metrics") if isinstance(said.get("metrics"), dict) else {}
        named = str(measured.get("data") or "")
        data = tuple(dict.fromkeys((*found.data, *([named] if named else []))))
        read = {"year": head} if hasattr(head, "expected") else {"style": head, "recall": measured.get("recall") or {}}
        found = replace(found, data=data, **read)
    return found


def _key(label: str) -> str:
    """The style of the catalogue that a head's label means, else the label."""
    try:
        return lookup(styles(), label, "style").key
    except UserError:
        return label
