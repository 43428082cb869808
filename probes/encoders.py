"""CLIP encoders through open_clip: the embedded one, a folder, or a model of a hub. Frozen, but differentiable to the pixels."""
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as _recomputed

from probes import backbones, image, layers, paths
from probes.errors import UserError
from probes.features import Features, convolutional, stages, tapped
from probes.lineage import Lineage
from probes.sources import locate

EMBEDDED = Path(__file__).parent / "embedded" / "clip"
MOST_TEXTS = 10_000  # embeddings of texts that are kept: an audit may meet a million prompts
PRECISIONS = {None: "fp32", torch.float32: "fp32", torch.bfloat16: "pure_bf16", torch.float16: "pure_fp16", torch.float64: "fp32"}


class Encoder(nn.Module):
    """Images `(n, 3, h, w)` in [0, 1], of any size, to L2-normalised fp32 embeddings `(n, dim)`, one independent of the other.

    After `double()`, or loaded in float64, all of it is in fp64, measures too: for finite differences.
    """

    def __init__(self, clip: nn.Module, tokenizer=None, *, source: str, name: str = "", data: str = "", checkpoint: Path | None = None):
        super().__init__()
        self.clip = clip.requires_grad_(False).eval()
        self.clip.visual.to(memory_format=torch.channels_last)  # a quarter to a third faster on a CPU, forward and backward
        self.tokenizer, self.source, self.name, self.checkpoint = tokenizer, source, name or source, checkpoint
        self.data = data
        self.per_pass = 0  # images at once, 0: all; fewer hold less memory and are computed again for their gradient
        preprocess = clip.visual.preprocess_cfg
        size = preprocess["size"]
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.side = max(self.size)
        self.resize_mode = preprocess["resize_mode"] or "shortest"
        self.interpolation = "bilinear" if preprocess["interpolation"] == "bilinear" else "bicubic"  # open_clip reads "random" as bicubic
        self.fill = preprocess["fill_color"] / 255
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(preprocess[key], dtype=torch.float32).expand(3)[:, None, None].clone(), persistent=False)
        self._texts: dict[str, Tensor] = {}
        self.mean, self.std = self.mean.to(self.device), self.std.to(self.device)
        self.layered = convolutional(clip.visual)
        with torch.no_grad():
            found = self.features(torch.zeros(1, 3, *self.size), layers.SPREAD if self.layered else ())
        self.dim = found.embeddings.shape[-1]
        self.described: int = found.described.shape[-1] if self.layered else self.dim  # how many values `describe` gives

    @property
    def device(self) -> torch.device:
        return next(self.clip.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the image tower computes in."""
        return next(self.clip.visual.parameters()).dtype

    @property
    def precision(self) -> torch.dtype:
        """What it takes images and gives embeddings in: fp32, or fp64 where it computes in that."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def has_text(self) -> bool:
        return self.tokenizer is not None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: of the file they came from, else of the tensors by name."""
        return hashed(self.clip) if self.checkpoint is None else paths.digest(self.checkpoint)

    @property
    def lineage(self) -> Lineage:
        visual = self.clip.visual
        trunk = getattr(visual, "trunk", visual)
        return Lineage(weights=self.fingerprint, data=self.data, architecture=type(trunk).__name__, objective="contrastive")

    @property
    def logit_scale(self) -> float:
        """What a cosine is multiplied by before a softmax: the model's own."""
        return float(self.clip.logit_scale.detach().exp())

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in evaluation mode, whatever is asked: batch statistics would tie images together."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self._in_parts(self._embedded, images)

    def _in_parts(self, look: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if not self.per_pass or len(images) <= self.per_pass:
            return look(images)
        parts = images.split(self.per_pass)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return torch.cat([look(part) for part in parts])
        return torch.cat([_recomputed(look, part, use_reentrant=False) for part in parts])

    def _embedded(self, images: Tensor) -> Tensor:
        pixels = self.preprocess(image.check(images)).to(self.dtype, memory_format=torch.channels_last)
        return F.normalize(self.clip.encode_image(pixels).to(self.precision), dim=-1)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages whose maps can be asked for, from the pixels on; UserError where the image tower gives none."""
        return tuple(stages(self.clip.visual, self.name))

    def features(self, images: Tensor, wanted: Sequence[str]) -> Features:
        """Embeddings and the maps of the wanted stages, in one pass; only those maps are kept.

        The maps show what `preprocess` leaves of an image: at the encoder's own size, without what its crop cuts off.
        """
        if not wanted:
            return Features(self._embedded(images), {})
        with tapped(self.clip.visual, wanted, self.name) as maps:
            embeddings = self._embedded(images)
        return Features(embeddings, maps)

    def describe(self, images: Tensor) -> Tensor:
        """Embeddings and, after them, what `layers` says of the maps of that pass: `(n, described)`; a transformer's embeddings alone."""
        if not self.layered:
            return self(images)
        return self._in_parts(lambda part: self.features(part, layers.SPREAD).described, images)

    def cut(self, seen: Tensor, width: int) -> Tensor:
        """Of what `describe` or a plain call gave, what a head for `width` values reads; as it is where that is not to be had from it."""
        return seen[..., :self.dim] if width == self.dim and self.layered and seen.shape[-1] == self.described else seen

    def maps(self, images: Tensor, wanted: Sequence[str], *, native: bool = False) -> dict[str, Tensor]:
        """The maps of `features` alone, cheaper: the pass ends at the last of them. `(n, c, h', w')` in fp32, differentiable to the pixels.

        `native`: of the whole image in its own pixels, neither resized nor cropped, so that fine detail is still there; a convolutional
        tower's only, UserError for another.
        """
        with tapped(self.clip.visual, wanted, self.name, only=True) as maps:
            if not native:
                self(images)
            elif not convolutional(self.clip.visual):
                raise UserError(f"the encoder {self.name} reads images at its own size only; take a convolutional one, such as embedded.")
            else:
                pixels = (image.check(images).to(self.device, self.precision) - self.mean) / self.std
                self.clip.visual(pixels.to(self.dtype, memory_format=torch.channels_last))
        return maps

    def preprocess(self, images: Tensor) -> Tensor:
        """What open_clip's own transform does to a file, differentiable: resize, crop or pad, normalise; `(n, 3, *size)` in fp32."""
        pixels = self.fit(images.to(self.device, self.precision))
        return (pixels - self.mean) / self.std

    def fit(self, pixels: Tensor) -> Tensor:
        """Resized, cropped or padded, `(n, 3, *size)`: floats, or 8-bit values, which stay such as in open_clip's own transform."""
        height, width = pixels.shape[-2:]
        if self.resize_mode == "squash":
            return image.resize(pixels, self.size, self.interpolation)
        ratios = (height / self.size[0], width / self.size[1])
        if self.resize_mode == "longest":
            interpolation, resized = self.interpolation, [round(edge / max(ratios)) for edge in (height, width)]
        elif self.size[0] == self.size[1]:  # torchvision's Resize cuts fractions where open_clip's own rounds them
            interpolation, resized = self.interpolation, [self.side * edge // min(height, width) for edge in (height, width)]
        else:  # open_clip leaves the interpolation of this case at its default
            interpolation, resized = "bicubic", [round(edge / min(ratios)) for edge in (height, width)]
        pixels = image.resize(pixels, (max(resized[0], 1), max(resized[1], 1)), interpolation)
        missing = [max(wanted - edge, 0) for wanted, edge in zip(self.size, pixels.shape[-2:], strict=True)]
        if any(missing):
            top, left = missing[0] // 2, missing[1] // 2
            pixels = F.pad(pixels, (left, missing[1] - left, top, missing[0] - top),
                           value=self.fill if pixels.is_floating_point() else round(255 * self.fill))
        top, left = (round((edge - wanted) / 2) for edge, wanted in zip(pixels.shape[-2:], self.size, strict=True))
        return pixels[..., top:top + self.size[0], left:left + self.size[1]]

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Normalised embeddings `(m, dim)` of prompts, without gradient, each computed once."""
        if not self.has_text:
            raise UserError(f"the encoder {self.name} has no tokenizer, so it reads no text; choose one whose folder holds tokenizer.json.")
        if not prompts:
            return torch.zeros(0, self.dim, device=self.device)
        if len(self._texts) > MOST_TEXTS:
            self._texts.clear()
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        # Not under inference mode: its tensors could not take part in a gradient later.
        with torch.inference_mode(False), torch.no_grad():
            for start in range(0, len(new), 256):
                batch = new[start:start + 256]
                embeddings = F.normalize(self.clip.encode_text(self.tokenizer(batch).to(self.device)).to(self.precision), dim=-1)
                self._texts.update(zip(batch, embeddings, strict=True))
        return torch.stack([self._texts[prompt].to(self.device, self.precision) for prompt in prompts])

    def cuts(self, prompt: str) -> bool:
        """Whether `prompt` is longer than the text tower reads, so that its end goes unread."""
        short = self.tokenizer([prompt])[0]
        long = self.tokenizer([prompt], context_length=8 * len(short))[0]
        return not torch.equal(short, long[:len(short)])


def hashed(network: nn.Module) -> str:
    """SHA-256 of a network's tensors, by name and shape, whatever precision holds them."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode() + value.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load(source: str = "embedded", device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Encoder:
    """The encoder `source`, loaded once per device and dtype.

    `source`: `embedded`; a folder in open_clip's format; `ViT-B-32:laion2b_s34b_b79k`; `hf-hub:owner/name`; or a judge of the networks
    dinov2 and csd, to fit heads to it. UserError where there is no such model, where its files are neither here nor to be had, or where the
    device is not there.
    """
    return _load(str(source), str(device), dtype)


def named_lineage(source: str) -> Lineage | None:
    """Where the encoder that a picture names comes from, as far as that is known without fetching it; None for no encoder's name."""
    if source == "embedded":
        return load(source).lineage
    model, _, tag = source.rpartition(":")
    return Lineage(data=tag.split("_")[0]) if model and model != "hf-hub" else None


@functools.lru_cache(maxsize=8)
def _load(source: str, device: str, dtype: torch.dtype | None) -> Encoder:
    if dtype not in PRECISIONS:
        raise UserError(f"an encoder computes in float32, bfloat16, float16 or float64, not in {dtype}.")
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {device!r} is not to be had here ({str(error).splitlines()[0]}); try --device cpu.") from None
    if judged := backbones.named(source):
        return backbones.load(*judged, device)
    found = locate(source, EMBEDDED)
    with torch.inference_mode(False):
        clip, tokenizer = found.open(PRECISIONS[dtype], device)
        clip = clip.double() if dtype == torch.float64 else clip  # open_clip itself has no such precision
        return Encoder(clip, tokenizer, source=source, name=found.name, data=found.data, checkpoint=found.checkpoint)
