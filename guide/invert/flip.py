"""Adversarial sensitivity: the smallest change of a picture, by its L2 norm, that changes what a head reads.

Decoupled direction and norm (Rony et al., arXiv:1811.09600, Alg. 1): a step along the gradient, then the change is brought to a norm that
shrinks while the reading is flipped and grows while it is not. As in the paper every picture that counts is rounded to 8 bits, so that the
norm is that of files that can be saved, sent, and measured again.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.encoders import Encoder
from probes.errors import UserError
from probes.heads.head import Head
from probes.probe import stages_of

GAMMA = .05  # by what share the norm changes in a step
NOISES = 20  # random changes of the same norm, beside the one that was sought


@dataclass(frozen=True, eq=False)
class Flip:
    """`before` and `after` `(1, 3, h, w)` in [0, 1], of 8 bits. `norm`: L2 of the difference over all values, 0 to sqrt(3 h w);
    `read`: the rows and columns that the encoder looks at, top, bottom, left, right; of pictures that are not square often the middle.
    `levels`: the norm as a root mean square in grey levels of 256 over what is read. `random`: the share of random changes of that norm,
    there too, that flip it as well.

    `found` is False where no change flipped it; `after` is then `before`.
    """

    before: Tensor
    after: Tensor
    was: str
    became: str
    margin: float
    found: bool
    random: float
    read: tuple[int, int, int, int]

    @property
    def norm(self) -> float:
        return float((self.after.double() - self.before.double()).norm())

    @property
    def levels(self) -> float:
        return 255 * self.norm / math.sqrt(self.before[0, :, slice(*self.read[:2]), slice(*self.read[2:])].numel())

    @property
    def partly(self) -> str:
        """What is read, in words, where it is not the whole."""
        top, bottom, left, right = self.read
        height, width = self.before.shape[2:]
        where = "" if (bottom - top, right - left) == (height, width) else f"{right - left} x {bottom - top}"
        return where and f"only the middle {where} of {width} x {height} pixels are read"

    @property
    def largest(self) -> int:
        """The largest change of one value, in grey levels of 256: the L-infinity norm."""
        return round(255 * float((self.after.double() - self.before.double()).abs().max()))


def margins(logits: Tensor, own: int, wanted: int | None) -> Tensor:
    """How clearly `(n,)` the reading is flipped: away from `own`, or to `wanted`. Above 0 it is."""
    index = own if wanted is None else wanted
    others = logits.clone()
    others[:, index] = -torch.inf
    apart = others.amax(1) - logits[:, index]
    return apart if wanted is None else -apart


def flip(encoder: Encoder, head: Head, picture: Tensor, wanted: str = "", steps: int = 100, seed: int = 0) -> Flip:
    """Of one picture `(1, 3, h, w)` in its own pixels. `wanted`: the label it is to read as; any other than its own if empty."""
    before = rounded(picture).to(encoder.device)
    look = encoder.describe if stages_of(encoder, head) else encoder
    if wanted and wanted not in head.labels:
        raise UserError(f"the head has no label {wanted!r}; it has {', '.join(head.labels)}.")
    with torch.no_grad():
        logits = head.logits(look(before))
    own = int(logits[0].argmax())
    target = head.labels.index(wanted) if wanted else None
    read = _read(lambda pixels: head.logits(look(pixels)), before)
    if target == own:
        return Flip(before.cpu(), before.cpu(), head.labels[own], wanted, float(margins(logits, own, own)[0]), True, 1., read)
    change, norm, best = torch.zeros_like(before), 1., None
    for index in range(steps):
        seen = (before + change).clamp(0, 1).detach().requires_grad_()
        with torch.inference_mode(False), torch.enable_grad():
            margin = margins(head.logits(look(seen)), own, target)
            (gradient,) = torch.autograd.grad(margin.sum(), seen)
        done = bool(margin.detach() > 0)
        length = float((seen.detach() - before).norm())
        if done and index and (best is None or length < float((best - before).norm())):
            best = seen.detach()
        if index:
            norm *= 1 - GAMMA if done else 1 + GAMMA
        size = .01 + .5 * .99 * (1 + math.cos(math.pi * index / steps))  # from 1 to .01
        change = change + size * gradient / gradient.norm().clamp_min(1e-12)
        change = norm * change / change.norm().clamp_min(1e-12)
        change = rounded((before + change).clamp(0, 1)) - before
    if best is None:
        return Flip(before.cpu(), before.cpu(), head.labels[own], "", float("nan"), False, 0., read)
    with torch.no_grad():
        logits = head.logits(look(best))
        noise = torch.randn((NOISES, *before.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(before)
        inside = torch.zeros_like(before)
        inside[..., slice(*read[:2]), slice(*read[2:])] = 1
        noise = inside * noise
        noise = noise / noise.flatten(1).norm(dim=1)[:, None, None, None] * (best - before).norm()
        random = (margins(head.logits(look((before + noise).clamp(0, 1))), own, target) > 0).float().mean()
    became, margin = head.labels[int(logits[0].argmax())], float(margins(logits, own, target)[0])
    return Flip(before.cpu(), best.cpu(), head.labels[own], became, margin, True, float(random), read)


def _read(look: Callable[[Tensor], Tensor], picture: Tensor) -> tuple[int, int, int, int]:
    """The box of the pixels on which any logit depends: top, bottom, left, right."""
    with torch.inference_mode(False), torch.enable_grad():
        seen = picture.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(look(seen).square().sum(), seen)
    touched = gradient[0].abs().sum(0) > 0
    if not touched.any():
        return 0, picture.shape[2], 0, picture.shape[3]
    rows, columns = (touched.any(axis).nonzero().flatten() for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def rounded(images: Tensor) -> Tensor:
    """To the nearest of 256 levels, as a PNG holds them."""
    return (255 * images).round() / 255
