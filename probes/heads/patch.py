"""A head over pixels: how damaged each patch of an image is, and in which way."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from probes.atomic import replacing
from probes.errors import UserError
from probes.heads import card
from probes.heads.fused import gelu
from probes.probe import NOT_VALIDATED

POWER = 3  # of the mean over patches: a small damaged place counts nearly as much as a large one
EDGE = 8  # pixels of a patch
TABLE = 2**17  # cosines that are compared at a time
NEAR = 4  # cells of 4 pixels: what is nearer to a place than that is like it without being a copy
FINE, MIDDLE, COARSE, WORDS = 32, 48, 64, 16  # channels at 2, 4 and 8 pixels, and of what places are compared by


class Network(nn.Module):
    """Images `(n, 3, h, w)` in [0, 1] to severity `(n, h / 8, w / 8)` in [0, 1] and logits of `kinds` of damage `(n, k, h / 8, w / 8)`.

    Convolutions on the pixels and on what a small blur leaves of them, the energy of the finest, and how like each place is to any other
    far from it. What the whole image shares (a soft photograph, a coarse brush) is told from what one place shows. 160 k parameters.
    """

    def __init__(self, kinds: int):
        super().__init__()
        self.fine = nn.ModuleList([nn.Conv2d(24, FINE, 3, padding=1), nn.Conv2d(FINE, FINE, 3, padding=1, groups=4)])
        self.middle = nn.ModuleList([nn.Conv2d(FINE, MIDDLE, 3, 2, 1), nn.Conv2d(MIDDLE, MIDDLE, 3, padding=1)])
        self.words = nn.Conv2d(MIDDLE, WORDS, 1)
        self.entry, self.energy = nn.Conv2d(MIDDLE, COARSE, 3, 2, 1), nn.Conv2d(FINE, COARSE, 1)
        self.alike, self.shared = nn.Conv2d(2, COARSE, 1), nn.Conv2d(COARSE, COARSE, 1)
        self.coarse = nn.ModuleList([nn.Conv2d(COARSE, COARSE, 3, padding=d, dilation=d) for d in (1, 2, 1)])
        self.out = nn.Conv2d(COARSE, kinds + 1, 1)
        nn.init.constant_(self.out.bias, 0.)
        with torch.no_grad():
            self.out.bias[0] = -1.  # patches start out as nearly whole

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = (edge // EDGE * EDGE for edge in images.shape[-2:])
        x = (images[..., :height, :width] - .5) * 4
        x = torch.cat([x, 4 * (x - blurred(x))], 1)
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        x = gelu(self.fine[0], x)
        fine = x + gelu(self.fine[1], x)
        x = gelu(self.middle[0], fine)
        middle = x + gelu(self.middle[1], x)
        energy = (F.avg_pool2d(fine.square(), 4) + 1e-4).log()
        x = self.entry(middle) + self.energy(energy) + self.alike(likeness(self.words(middle)))
        shared = x.mean((2, 3), keepdim=True)
        x = F.gelu(x - shared + self.shared(shared))
        for layer in self.coarse:
            x = x + gelu(layer, x)
        out = self.out(x)
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        return out[:, 0].sigmoid().square(), out[:, 1:]  # squared: slight damage is learned as finely as severe


def blurred(x: Tensor) -> Tensor:
    """Means over 3 x 3 pixels, `(n, c, h, w)`; of rows, then of columns, in a twentieth of `avg_pool2d`'s time for few channels."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def likeness(words: Tensor) -> Tensor:
    """How like each patch is to the far place most like it, and whether its neighbours' lie as far off.

    `(n, c, 2 h, 2 w)` to `(n, 2, h, w)`: cosines of `words` without their mean over the image, and shares. A copied piece
    finds its source, all of it at one offset (as in copy-move forensics); the offsets are looked up and pass no gradient, the cosines do.
    """
    n, _, height, width = words.shape
    keys = F.normalize((words - words.mean((2, 3), keepdim=True)).to(torch.promote_types(words.dtype, torch.float32)), dim=1)
    asked, rows, columns = keys[..., ::2, ::2].flatten(2), *(torch.arange(edge, device=words.device) for edge in (height, width))
    keys = keys.flatten(2)
    with torch.no_grad():
        found = torch.stack([_farther(one, others, rows, columns) for one, others in zip(asked, keys, strict=True)])
        offsets = torch.stack([found // width - rows[::2].repeat_interleave(len(columns[::2])), found % width - columns[::2].repeat(
            len(rows[::2]))], 1).unflatten(-1, (height // 2, width // 2)).to(keys)
        around = F.unfold(F.pad(offsets, (1, 1, 1, 1), mode="replicate"), 3).view(n, 2, 9, -1)
        agreed = (-(around - offsets.flatten(2)[:, :, None]).square().sum(1) / 2).exp().mean(1)
    best = (asked * keys.gather(2, found[:, None].expand(-1, keys.shape[1], -1))).sum(1)
    return torch.stack([best, agreed], 1).view(n, 2, height // 2, width // 2).to(words.dtype)


def _farther(asked: Tensor, keys: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """For every second place, `asked` `(c, h w / 4)`, which of `keys` `(c, h w)` is most like it and not near it: `(h w / 4,)`."""
    asked, wide, beside = asked.T.contiguous(), len(columns[::2]), 2. * ((columns[::2, None] - columns).abs() < NEAR)
    # A table of all places against all is memory that the system has to clear for every image, which takes longer than to fill it.
    step, found = len(rows) if asked.is_cuda else max(TABLE // (wide * len(rows) * len(columns)), 1), []
    for first in range(0, len(rows) // 2, step):
        some = asked[first * wide : (first + step) * wide]
        like = (some @ keys).view(-1, wide, len(rows), len(columns))
        for place, part in enumerate(like):
            row = 2 * (first + place)
            part[:, max(row - NEAR + 1, 0) : row + NEAR] -= beside[:, None]
        like = like.view(len(some), -1)
        # NumPy's argmax takes a tenth of the time of torch's on a CPU; both give the first of equal ones.
        quick = like.device.type == "cpu" and like.dtype == torch.float32
        found.append(torch.from_numpy(like.numpy().argmax(-1)) if quick else like.argmax(-1))
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Patch:
    """`network` and the `kinds` of damage it tells apart; frozen, differentiable.

    `exponent` and `toe` turn the pooled map into the score; a toe above 1 keeps slight readings near 0, for a codec leaves such, and it is
    no damage. `alarm` is the score above which an image counts as damaged; `side` is the edge in pixels of the images that it learned from.
    """

    kind: ClassVar[str] = "patch"

    network: Network
    kinds: tuple[str, ...]
    exponent: float = 1.
    toe: float = 1.
    temperature: float = 1.
    alarm: float = 1.
    side: int = 128
    reliability: str = NOT_VALIDATED

    def __post_init__(self):
        if self.network.out.out_channels != len(self.kinds) + 1:
            raise UserError("a head over patches needs a row of its last weights for each kind of damage, and one for the severity.")
        if not 0 < self.temperature < float("inf") or not all(
                0 < power < float("inf") for power in (self.exponent, self.toe)):
            raise UserError("a head over patches needs a temperature, an exponent and a toe above 0.")
        self.network.requires_grad_(False).eval()

    def severity(self, images: Tensor) -> Tensor:
        """Images to the severity `(n, h / 8, w / 8)` of each patch, in [0, 1]."""
        return self._outputs(images)[0]

    def pooled(self, severity: Tensor) -> Tensor:
        """Severities `(n, h, w)` of patches to one score `(n,)` in [0, 1], on the scale of the severities that were measured."""
        return 1 - (1 - pool(severity) ** self.toe) ** self.exponent

    def score(self, images: Tensor) -> Tensor:
        """Images to the severity `(n,)` of the damage: its measured change of pixels, 1 for a fifth of their range or more."""
        return self.pooled(self.severity(images))

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score `(n,)`, severities `(n, h / 8, w / 8)`, and the calibrated probability `(n, k)` of each kind if there is damage at all."""
        severity, logits = self._outputs(images)
        return self.pooled(severity), severity, (attended(severity, logits) / self.temperature).softmax(-1)

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images.to(self.network.out.weight))


def pool(severity: Tensor) -> Tensor:
    """The power mean of severities `(n, h, w)` over patches: `(n,)`."""
    return severity.clamp_min(1e-6).pow(POWER).mean((1, 2)).pow(1 / POWER)


def attended(severity: Tensor, logits: Tensor) -> Tensor:
    """Logits `(n, k, h, w)` averaged to `(n, k)`, weighted by the squares of the severities: the kind is read where the damage is."""
    weight = severity.square()
    return (logits * (weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-12))[:, None]).sum((2, 3))


def save(stem: Path, head: Patch, table: dict) -> None:
    """Write `<stem>.safetensors`, in fp16, and the card `<stem>.json` with what else `table` says."""
    from json import dumps
    said = {name: getattr(head, name) for name in ("kinds", "exponent", "toe", "temperature", "alarm", "side", "reliability")}
    with replacing(stem.with_suffix(".safetensors")) as temporary, replacing(stem.with_suffix(".json")) as temporary_card:
        save_file({name: value.half().contiguous() for name, value in head.network.state_dict().items()}, temporary)
        temporary_card.write_text(dumps(table | {"head": head.kind} | said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(stem: Path, device: str | torch.device = "cpu") -> Patch:
    """The head in `<stem>.safetensors` with its card `<stem>.json`. UserError where either is damaged."""
    table = card.read(stem)
    try:
        kinds, side = tuple(map(str, table["kinds"])), int(table["side"])
        numbers = {name: float(table[name]) for name in ("exponent", "temperature", "alarm")} | {"toe": float(table.get("toe", 1))}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the card {stem}.json is damaged: it lacks or garbles {error}.") from None
    network = Network(len(kinds))
    weights = card.tensors(stem, tuple(network.state_dict()), device)
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"the weights {stem}.safetensors are not those of its card; reinstall the package.") from None
    return Patch(network.to(device), kinds, **numbers, side=side, reliability=card.reliability(stem))
