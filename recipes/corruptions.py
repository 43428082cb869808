"""Damage of known severity: what diffusion, compression and careless guidance do to pictures, injected into clean paintings."""

import torch
from torch.nn import functional as F


def blur(x, s):
    side = x.shape[-1]
    small = F.interpolate(x, scale_factor=float(1 / (1 + 5 * s)), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=(side, side), mode="bicubic", align_corners=False)


def noise(x, s):
    return x + 0.35 * s * torch.randn_like(x)


def blocks(x, s):
    """8 x 8 blocks that lose their inside, as strong JPEG compression does."""
    flat = F.interpolate(F.avg_pool2d(x, 8), size=x.shape[-2:], mode="nearest")
    return x + s * 0.9 * (flat - x)


def checkerboard(x, s):
    """The pattern of strided transposed convolutions, and of gradients that fool an encoder."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    pattern = ((rows // 2 + columns // 2) % 2).to(x) * 2 - 1
    tint = torch.randn(3, 1, 1).to(x)
    return x + 0.25 * s * pattern * tint


def saturation(x, s):
    grey = x.mean(1, keepdim=True)
    return grey + (x - grey) * (1 + 5 * s) + (x - 0.5) * s


def warp(x, s):
    """Smooth random displacement."""
    n, _, h, w = x.shape
    offsets = F.interpolate(torch.randn(n, 2, 6, 6), size=(h, w), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).to(x)
    grid = F.affine_grid(torch.eye(2, 3).to(x).expand(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid + 0.18 * s * offsets, padding_mode="reflection", align_corners=False)


def ringing(x, s):
    return x + 4 * s * (x - F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5, 1))


CORRUPTIONS = {
    "blur": blur,
    "noise": noise,
    "blocks": blocks,
    "checkerboard": checkerboard,
    "saturation": saturation,
    "warp": warp,
    "ringing": ringing,
}


def corrupt(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image damaged in one way, everywhere or inside a soft random region; `(images, severity (n,))`.

    Severity is strength times the square root of the damaged share.
    """
    out, severities = [], []
    kinds = list(CORRUPTIONS.values())
    for image in images.split(1):
        kind = kinds[int(torch.randint(len(kinds), (1,), generator=generator))]
        strength = float(torch.rand(1, generator=generator)) ** 0.7
        damaged = kind(image, strength)
        if torch.rand(1, generator=generator) < 0.5:
            field = F.interpolate(torch.randn(1, 1, 4, 4, generator=generator), size=image.shape[-2:], mode="bicubic", align_corners=False)
            mask = (field * 4).sigmoid().to(image)
            damaged, share = torch.lerp(image, damaged, mask), float(mask.mean())
        else:
            share = 1.0
        out.append(damaged.clamp(0, 1))
        severities.append(strength * share**0.5)
    return torch.cat(out), torch.tensor(severities, device=images.device)
