"""Where in a picture a reading comes from, and whether that is so: relevance maps, and an occlusion check against chance."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from probes import image
from probes.errors import UserError
from probes.layers import SPREAD

if TYPE_CHECKING:
    from probes.encoders import Encoder

METHODS = ("occlusion", "gradient")
SHARES = (.05, .15, .3, .5)  # of the picture that the check takes away
OVERLAP, MARKED, TRIES = 1 / 3, .15, 20  # a map of chance marks at most a third of the 15 % that the map marks most; how often it is drawn
Score = Callable[[Tensor], Tensor]  # embeddings (n, d), or with `layers` descriptions, to scores (n,)


def seen(encoder: Encoder, picture: Tensor) -> Tensor:
    """What the encoder sees of a picture `(1, 3, h, w)`: fitted to its size, `(1, 3, *size)` in [0, 1]."""
    with torch.no_grad():
        return (encoder.preprocess(image.check(picture)) * encoder.std + encoder.mean).clamp(0, 1)


def relevance(encoder: Encoder, picture: Tensor, score: Score, method: str = "occlusion", layers: bool = False) -> Tensor:
    """`(h, w)` over `seen(picture)`: how much of the score a place holds; positive speaks for the reading, negative against it."""
    if method not in METHODS:
        raise UserError(f"there is no relevance map {method!r}; there are {' and '.join(METHODS)}.")
    return (occlusion if method == "occlusion" else gradient)(encoder, seen(encoder, picture), score, layers=layers)


def occlusion(encoder: Encoder, pixels: Tensor, score: Score, window: float = .25, places: int = 8, layers: bool = False) -> Tensor:
    """Sliding occlusion (arXiv:1311.2901, section 4.2): what the score loses when a soft window is blurred, averaged over the windows.

    The paper greys a square; the blur leaves light and colour and so makes no picture that no painter would. In units of the score.
    """
    height, width = pixels.shape[-2:]
    windows = torch.stack([_bump(height, (row + .5) / places, window, pixels.device)[:, None] *
                           _bump(width, (column + .5) / places, window, pixels.device)
                           for row in range(places) for column in range(places)])
    lost = _score(encoder, pixels, score, layers) - _score(encoder, _blend(pixels, blurred(pixels), windows), score, layers)
    return (lost[:, None, None] * windows).sum(0) / windows.sum(0)


def gradient(encoder: Encoder, pixels: Tensor, score: Score, stage: str = "", layers: bool = False) -> Tensor:
    """HiResCAM (arXiv:2011.08891): gradient times feature map, summed over channels, at `stage`, enlarged.

    Default: the last stage, or, for a score that reads `layers`, the last of these: what it reads before stays out.

    Unlike Grad-CAM it does not average the gradient over places first. UserError where the image tower gives no feature maps.
    """
    stage = stage or (SPREAD[-1] if layers else encoder.stages[-1])
    with torch.inference_mode(False), torch.enable_grad():
        found = encoder.features(pixels.clone().requires_grad_(), {*SPREAD, stage} if layers else [stage])
        held = found.maps[stage]
        slope, = torch.autograd.grad(score(found.described if layers else found.embeddings).sum(), held)
    coarse = (slope * held.detach()).sum(1, keepdim=True)
    return F.interpolate(coarse, size=pixels.shape[-2:], mode="bicubic", align_corners=False)[0, 0]


def blurred(pixels: Tensor, share: float = .12) -> Tensor:
    """Gaussian blur with a standard deviation of `share` of the side."""
    for axis in (-2, -1):
        length = pixels.shape[axis]
        place = torch.arange(length, device=pixels.device, dtype=pixels.dtype)
        weights = (-(place[:, None] - place).square() / (2 * (share * length) ** 2)).exp()
        pixels = ((weights / weights.sum(1, keepdim=True)) @ (pixels if axis == -2 else pixels.mT))
        pixels = pixels if axis == -2 else pixels.mT
    return pixels


@dataclass(frozen=True, eq=False)
class Check:
    """Scores while the most relevant places are taken away (`kept`, one for each of `shares`) and while chance chooses them (`random`).

    `random` has a row for each of the maps that chance made. `effect`: how much more the score loses by the map than by chance, mean
    over the shares, in units of the score; `beaten`: the share of chance's maps that lose less; `p`: of a one-sided permutation test.
    """

    whole: float
    shares: tuple[float, ...]
    kept: tuple[float, ...]
    random: tuple[tuple[float, ...], ...]
    effect: float
    beaten: float
    p: float

    @property
    def causal(self) -> bool:
        """Whether the map finds what the reading rests on better than 95 % of what chance does."""
        return self.p <= .05

    def sentence(self, unit: str) -> str:
        """The check in words."""
        said = "the map shows what the reading rests on" if self.causal else "the map may not show what the reading rests on"
        return (f"Taking away what the map marks costs {self.effect:+.2f} {unit} more than taking away as much elsewhere, "
                f"more than {self.beaten:.0%} of {len(self.random)} maps shifted by chance (p {self.p:.2f}): {said}.")


def check(encoder: Encoder, pixels: Tensor, score: Score, relevance: Tensor, draws: int = 19, seed: int = 0,
          layers: bool = False) -> Check:
    """`deleted` for a score of embeddings. What is taken away becomes the picture's mean colour, which no relevance map here has used, so
    that the check is none of the map by itself."""
    mean = pixels.mean((-2, -1), keepdim=True).expand_as(pixels)
    return deleted(lambda seen: _score(encoder, seen, score, layers), pixels, mean, relevance, draws, seed)


@torch.no_grad()
def deleted(read: Score, pixels: Tensor, other: Tensor, relevance: Tensor, draws: int = 19, seed: int = 0, soft: float = 0.,
            apart: bool = False) -> Check:
    """Deletion (RISE, arXiv:1806.07421) of `pixels` `(1, 3, h, w)` by a map `(h, w)`, against the same map flipped and shifted by chance;
    `apart`: to where it marks little of what it marked (`OVERLAP`), for maps of something that lies in one place.

    `read`: pictures `(n, 3, h, w)` to scores `(n,)`. What is taken away becomes as in `other`, with an edge of `soft` shares of the side.
    Chance's maps are as smooth as the map, which single random pixels are not: only their place differs.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = relevance.shape
    orders = [_order(relevance)]
    marked = orders[0] < MARKED
    for _ in range(draws):
        drawn = []
        for _ in range(TRIES if apart else 1):
            down, right, flip, turn = torch.rand(4, generator=generator).tolist()
            shifted = relevance.flip([axis for axis, number in ((0, flip), (1, turn)) if number < .5])
            # By a quarter to three quarters of the side: a smaller shift would mark nearly the same place.
            order = _order(shifted.roll((int((.25 + .5 * down) * height), int((.25 + .5 * right) * width)), (0, 1)))
            drawn.append((float((order[marked] < MARKED).float().mean()), order))
            if drawn[-1][0] <= OVERLAP:
                break
        orders.append(min(drawn, key=lambda one: one[0])[1])
    scores = []
    for order in orders:
        masks = torch.stack([(order < share).to(pixels.dtype) for share in SHARES])
        scores.append(read(_blend(pixels, other, blurred(masks, soft) if soft else masks)))
    table, whole = torch.stack(scores).double().cpu(), float(read(pixels)[0])
    lost = (whole - table).mean(1)
    as_much = int((lost[1:] >= lost[0]).sum())
    return Check(whole, SHARES, tuple(table[0].tolist()), tuple(map(tuple, table[1:].tolist())), float(lost[0] - lost[1:].mean()),
                 1 - as_much / draws, (1 + as_much) / (1 + draws))


def _order(values: Tensor) -> Tensor:
    """The rank of each place of a map `(h, w)`, from 0 for the highest, in shares of all places."""
    return values.flatten().argsort(descending=True).argsort().view(values.shape) / values.numel()


def _bump(length: int, centre: float, window: float, device: torch.device) -> Tensor:
    """A raised cosine `(length,)`, 1 at `centre` and half at the window's edges, both in shares of the length."""
    apart = ((torch.arange(length, device=device) + .5) / length - centre).abs() / window
    return torch.where(apart < 1, .5 + .5 * (torch.pi * apart).cos(), 0.)


def _blend(pixels: Tensor, other: Tensor, masks: Tensor) -> Tensor:
    return pixels + masks[:, None] * (other - pixels)


@torch.no_grad()
def _score(encoder: Encoder, pixels: Tensor, score: Score, layers: bool) -> Tensor:
    return torch.cat([score((encoder.describe if layers else encoder)(part)) for part in pixels.split(32)])
