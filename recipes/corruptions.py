"""Damage of known kind, place and severity: what diffusion, compression and careless guidance do to pictures, injected into clean ones.

Every kind takes images `(n, 3, h, w)` in [0, 1], a strength in [0, 1], the region `(1, 1, h, w)` it is meant for and a generator, and
returns them damaged everywhere; `inject` keeps the damage inside the region. All that is random comes from the generator, so the same seed
at another strength is the same damage, stronger or weaker.
"""

import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

Kind = Callable[[Tensor, float, Tensor, Generator], Tensor]
LEAST = 2 / 255  # a smaller RMS change is nothing that anybody could see
CELLS = (1, 2, 3, 4, 8)  # pixels a side of a lattice's cells
FORMS = ("squares", "rows", "columns", "dots")
FULL = 0.2  # the RMS change of pixels that counts as severity 1


def blur(x: Tensor, s: float, _mask: Tensor, _generator: Generator) -> Tensor:
    """Over-smoothing: detail up to six pixels wide is lost."""
    size = [max(1, round(edge / (1 + 5 * s))) for edge in x.shape[-2:]]
    small = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=x.shape[-2:], mode="bicubic", align_corners=False)


def noise(x: Tensor, s: float, _mask: Tensor, generator: Generator, grey: float | None = None, grain: float | None = None) -> Tensor:
    """Grain of standard deviation .35 at full strength.

    `grey` is the share of its variance that all colours have in common, by default none, all or some of it; `grain` its size in pixels, by
    default 1, or as often up to 2.5.
    """
    (n, colours, *size), (shared, common, coarse, how) = x.shape, torch.rand(4, generator=generator).tolist()
    grey = (0.0, 1.0, common)[int(3 * shared)] if grey is None else grey
    grain = (1.0 if coarse < 0.5 else 1 + 1.5 * how) if grain is None else grain
    field = torch.randn(n, colours + 1, *(math.ceil(edge / grain) for edge in size), generator=generator)
    if grain > 1:
        field = F.interpolate(field, size=size, mode="bicubic", align_corners=False)
        field = field / field.std((2, 3), keepdim=True)
    return x + 0.35 * s * ((1 - grey) ** 0.5 * field[:, :-1] + grey**0.5 * field[:, -1:]).to(x)


def blocks(x: Tensor, s: float, _mask: Tensor, generator: Generator) -> Tensor:
    """JPEG at the qualities 26 to 2: 8 x 8 blocks, which begin anywhere, lose their inside, 16 x 16 ones their colour."""
    top, left = torch.randint(16, (2,), generator=generator).tolist()
    wider = F.pad(x, (left, 0, top, 0), mode="replicate")
    return jpeg(wider, round(26 - 24 * s))[..., top:, left:]


def checkerboard(x: Tensor, s: float, _mask: Tensor, generator: Generator, cell: int | None = None, form: str | None = None) -> Tensor:
    """A lattice, as strided transposed convolutions leave it, and gradients that fool an encoder.

    Of cells of `cell` pixels (by default one of `CELLS`), which begin anywhere: squares like a chessboard's (as often as not), stripes, or
    dots at every second cell of every second row. Its mean is 0; it is grey half of the time, else of a random colour.
    """
    which, shape, plain, bright, sign = torch.rand(5, generator=generator).tolist()
    tint, (top, left) = torch.randn(3, 1, 1, generator=generator), torch.randint(16, (2,), generator=generator).tolist()
    cell = CELLS[int(which * len(CELLS))] if cell is None else cell
    form = (("squares",) * 3 + FORMS[1:])[int(shape * 6)] if form is None else form
    rows, columns = ((torch.arange(edge) + first) // cell % 2 for edge, first in zip(x.shape[-2:], (top, left), strict=True))
    rows, columns = rows[:, None].expand(-1, len(columns)), columns[None].expand(len(rows), -1)
    pattern = {"squares": (rows + columns) % 2, "rows": rows, "columns": columns, "dots": rows * columns}[form]
    share = 0.25 if form == "dots" else 0.5
    pattern = (pattern.to(x) - share) / (share * (1 - share)) ** 0.5
    if plain < 0.5:
        tint = torch.full_like(tint, (0.3 + bright) * (1 if sign < 0.5 else -1))
    return x + 0.25 * s * pattern * tint.to(x)


def saturation(x: Tensor, s: float, _mask: Tensor, _generator: Generator) -> Tensor:
    """Over-saturation, and contrast with it."""
    grey = x.mean(1, keepdim=True)
    return grey + (x - grey) * (1 + 5 * s) + (x - 0.5) * s


def warp(x: Tensor, s: float, _mask: Tensor, generator: Generator) -> Tensor:
    """Smooth random displacement: lines waver, faces melt."""
    cells = 6 + 3 * int(torch.randint(3, (1,), generator=generator))
    field = torch.randn(1, 2, cells, cells, generator=generator)
    offsets = F.interpolate(field, size=x.shape[-2:], mode="bicubic", align_corners=False)
    return _displaced(x, 6 / cells * 0.18 * s * offsets)


def ringing(x: Tensor, s: float, _mask: Tensor, _generator: Generator) -> Tensor:
    """Halos along edges, as over-sharpening leaves them."""
    return x + 4 * s * (x - F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5, 1))


def smear(x: Tensor, s: float, _mask: Tensor, generator: Generator) -> Tensor:
    """Paint dragged up to an eighth of the picture in one direction."""
    angle = 2 * math.pi * float(torch.rand(1, generator=generator))
    way = torch.tensor([math.cos(angle), math.sin(angle)])[None, :, None, None].expand(1, 2, *x.shape[-2:])
    return torch.stack([_displaced(x, 0.25 * s * step / 15 * way) for step in range(16)]).mean(0)


def duplicate(x: Tensor, s: float, mask: Tensor, generator: Generator) -> Tensor:
    """What is elsewhere in the picture shows again in the region, from a ghost to a whole copy."""
    inside = mask[0, 0].nonzero().float()
    centre = inside.mean(0) / mask.new_tensor(mask.shape[-2:]) * 2 - 1 if len(inside) else torch.zeros(2)
    for _ in range(20):  # a copy from close by is hardly one
        source = torch.rand(2, generator=generator) * 1.4 - 0.7
        if (source - centre.cpu()).norm() > 0.6:
            break
    shift = (source - centre.cpu()).flip(0)[None, :, None, None].expand(1, 2, *x.shape[-2:])
    return torch.lerp(x, _displaced(x, shift), s)


def seam(x: Tensor, s: float, mask: Tensor, generator: Generator) -> Tensor:
    """A line through the region where the picture does not meet: shifted along it and of another brightness, both fading away from it."""
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    weight = mask[0, 0].cpu() + 1e-6
    angle = math.pi * float(torch.rand(1, generator=generator))
    weight = weight / weight.sum()
    across = (columns - (weight * columns).sum()) * math.cos(angle) + (rows - (weight * rows).sum()) * math.sin(angle)
    side = across.sign() * (-across.abs() / 0.12).exp()
    along = torch.stack([-math.sin(angle) * side, math.cos(angle) * side])[None]
    tone = (torch.randn(3, 1, 1, generator=generator) * 0.5 + 1).to(x)
    return _displaced(x, 0.12 * s * along) + 0.15 * s * tone * side.to(x)


def _displaced(x: Tensor, offsets: Tensor) -> Tensor:
    """Each pixel taken from `offsets` `(1, 2, h, w)` away: x then y, in halves of the picture, mirrored at its edges."""
    grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    grid = (grid + offsets.permute(0, 2, 3, 1)).to(x)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def adversarial(loss: Callable[[Tensor], Tensor]) -> Kind:
    """The kind that no eye sees and a network does: two signed gradient steps (arXiv:1412.6572) up `loss`, to 12/255 in each pixel.

    `loss(images, clean)` gives a value per image, for example the distance of their embeddings.
    """

    def kind(x: Tensor, s: float, _mask: Tensor, generator: Generator) -> Tensor:
        clean = x.detach()
        sign = torch.randn(clean.shape, generator=generator).to(clean) / 6  # the distance has no slope at the image itself
        for _ in range(2):
            with torch.enable_grad():
                moved = (clean + 6 / 255 * sign).clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(loss(moved, clean).sum(), moved)
            sign = gradient.sign()
        return clean + 12 / 255 * s * sign

    return kind


CORRUPTIONS: dict[str, Kind] = {
    "blur": blur,
    "noise": noise,
    "blocks": blocks,
    "checkerboard": checkerboard,
    "saturation": saturation,
    "warp": warp,
    "ringing": ringing,
    "smear": smear,
    "duplicate": duplicate,
    "seam": seam,
}
# What is drawn at random within a kind, each by itself: damage that one reader finds and another is blind to.
VARIANTS: dict[str, dict[str, Kind]] = {
    "noise": {
        "of each colour by itself": partial(noise, grey=0.0, grain=1.0),
        "grey": partial(noise, grey=1.0, grain=1.0),
        "coarse": partial(noise, grain=2.0),
    },
    "checkerboard": {f"squares of {cell}": partial(checkerboard, cell=cell, form="squares") for cell in CELLS}
    | {form: partial(checkerboard, form=form) for form in FORMS[1:]},
}


def region(height: int, width: int, generator: Generator, least: float = 0.08, most: float = 0.35) -> Tensor:
    """A random blob `(1, 1, h, w)` in [0, 1] over `least` to `most` of the picture, with an edge 1 to 6 % of it wide."""
    field = torch.randn(1, 1, 4, 4, generator=generator)
    share, edge = least + (most - least) * torch.rand(1, generator=generator), 0.01 + 0.05 * torch.rand(1, generator=generator)
    field = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=False)
    slope = (field.diff(dim=-1).square().mean() * width**2 + field.diff(dim=-2).square().mean() * height**2).sqrt()
    return ((field - field.flatten().quantile(1 - share)) / (slope * edge / 4).clamp_min(1e-6)).sigmoid()


def inject(image: Tensor, kind: Kind, strength: float, mask: Tensor, generator: Generator) -> Tensor:
    """`image` `(1, 3, h, w)` damaged where `mask` is 1, as it was where it is 0."""
    return torch.lerp(image, kind(image, strength, mask, generator).clamp(0, 1), mask.to(image)).clamp(0, 1)


def change(clean: Tensor, damaged: Tensor, mask: Tensor) -> Tensor:
    """Root mean square of what changed in the region (where `mask` is above one half), in [0, 1]: `(n,)`."""
    inside = (mask > 0.5).to(clean)
    squares = (damaged - clean).square().mean(1, keepdim=True) * inside
    return (squares.sum((1, 2, 3)) / inside.expand_as(squares).sum((1, 2, 3)).clamp_min(1)).sqrt()


def patches(clean: Tensor, damaged: Tensor, mask: Tensor, edge: int) -> Tensor:
    """The truth for a map: severity in [0, 1] of each patch of `edge` pixels, `(n, h / edge, w / edge)`.

    In the region the RMS change over `FULL`, outside of it 0, NaN at its edge and where the change is too small to see.
    """
    moved = F.avg_pool2d((damaged - clean).square().mean(1, keepdim=True), edge).sqrt()[:, 0]
    share = F.avg_pool2d(mask, edge)[:, 0].expand_as(moved)
    truth = torch.full_like(moved, float("nan"))
    truth[share < 0.05] = 0
    hit = (share > 0.5) & (moved >= LEAST)
    truth[hit] = (moved[hit] / FULL).clamp(max=1)
    return truth


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Through a JPEG file of this quality and back."""
    out = []
    for image in (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()))
    return (torch.stack(out).permute(0, 3, 1, 2).float() / 255).to(images)


def corrupt(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each image damaged in one way, everywhere or inside a soft random region; `(images, severity (n,))`.

    Severity is strength times the square root of the damaged share: what the judges learn, who see the picture as a whole.
    """
    out, severities = [], []
    kinds = list(CORRUPTIONS.values())
    for image in images.split(1):
        kind = kinds[int(torch.randint(len(kinds), (1,), generator=generator))]
        strength = float(torch.rand(1, generator=generator)) ** 0.7
        mask = torch.ones(1, 1, *image.shape[-2:])
        if torch.rand(1, generator=generator) < 0.5:
            field = torch.randn(1, 1, 4, 4, generator=generator)
            mask = (F.interpolate(field, size=image.shape[-2:], mode="bicubic", align_corners=False) * 4).sigmoid()
        out.append(inject(image, kind, strength, mask, generator))
        severities.append(strength * float(mask.mean()) ** 0.5)
    return torch.cat(out), torch.tensor(severities, device=images.device)
