"""How far two images are apart, each measure under its own name: MS-SSIM, the verdict's features, LPIPS where it can be had."""

import hashlib
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn import functional as F

from probes.errors import UserError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from fine to coarse
WINDOW, SPREAD = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
VARIABLE = "GUIDE_LPIPS_TRUNK"


def scales(height: int, width: int) -> int:
    """Scales of MS-SSIM that fit an image: 5 from 176 pixels on the short side, 4 from 88, 3 from 44, down to 1."""
    short = min(height, width)
    if short < WINDOW:
        raise UserError(f"MS-SSIM needs images of at least {WINDOW} pixels a side, and this one has {short}; use a larger image.")
    return next(m for m in range(len(WEIGHTS), 0, -1) if short >> (m - 1) >= WINDOW)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """(n,) multi-scale structural similarity, 1 for equal images (Wang, Simoncelli, Bovik 2003); differentiable.

    Images (n, 3, h, w) in [0, 1], mean over the channels. The paper's five scales need 176 pixels a side; smaller images use
    the finest `scales(h, w)` of them with weights rescaled to sum 1 (128 pixels: 4 scales), so values compare at one size only.
    """
    if a.shape != b.shape or a.ndim != 4:
        raise UserError(f"MS-SSIM compares images of one size, and these are {tuple(a.shape)} and {tuple(b.shape)}; resize one of them.")
    count = scales(*a.shape[-2:])
    weights = torch.tensor(WEIGHTS[:count], dtype=a.dtype, device=a.device)
    weights = weights / weights.sum()
    similarity = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim(a, b)
        value = contrast if scale < count - 1 else luminance * contrast
        # departs from the paper: negative structure is cut at a small value, since a fractional power of it is undefined
        similarity = similarity * value.mean((-2, -1)).clamp(min=1e-6) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return similarity.mean(-1)


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of luminance and of contrast-structure similarity, one value per place of the window."""
    taps = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    taps = torch.exp(-(taps**2) / (2 * SPREAD**2))
    taps = taps / taps.sum()
    channels = a.shape[1]
    rows, columns = (taps.view(shape).expand(channels, 1, *shape[2:]) for shape in ((1, 1, WINDOW, 1), (1, 1, 1, WINDOW)))

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, rows, groups=channels), columns, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (variance_a + variance_b + C2)


def feature_distance(features_a: Tensor, features_b: Tensor) -> Tensor:
    """(n,) 1 - cosine of a judge's features, 0 (same) to 2. A distance in that judge's eyes, not a perceptual one."""
    return (1 - F.cosine_similarity(features_a, features_b, dim=-1)).clamp(min=0)


def lpips_missing() -> str:
    """Why LPIPS cannot be had here, or "" where its package and its real trunk weights are on disk. Downloads nothing."""
    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return "the package lpips is not installed"
    trunk, wanted = _trunk(), _published().rsplit("-", 1)[-1].removesuffix(".pth")
    if not trunk.is_file():
        return f"there are no trunk weights at {trunk}; put torchvision's {_published()} there, or name it by {VARIABLE}"
    found = hashlib.sha256(trunk.read_bytes()).hexdigest()
    return "" if found.startswith(wanted) else f"the trunk weights {trunk} are damaged or others (checksum {found[:8]}, not {wanted})"


@lru_cache(maxsize=2)
def lpips(device: str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS (arXiv:1801.03924, AlexNet, v0.1): images (n, 3, h, w) in [0, 1], two of them -> (n,). UserError where it is missing."""
    if reason := lpips_missing():
        raise UserError(f"LPIPS cannot be had: {reason}; or use MS-SSIM.")
    network = _on_trunk(_trunk()).to(device).eval().requires_grad_(False)
    return lambda a, b: network(a.to(device), b.to(device), normalize=True).flatten()


def _on_trunk(path: Path) -> torch.nn.Module:
    """The package's network with the trunk in that file, which holds a state of torchvision's AlexNet; nothing is asked of a hub."""
    from lpips import LPIPS

    with warnings.catch_warnings(action="ignore"):  # the package asks torchvision in a way that is deprecated
        network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The package cuts the layers of AlexNet's features into five slices and keeps their numbers.
        own = {f"{part}.{name}": f"features.{name}" for part, cut in network.net.named_children() for name in cut.state_dict()}
        network.net.load_state_dict({name: state[layer] for name, layer in own.items()})
    except (OSError, RuntimeError, KeyError, TypeError, UnpicklingError, EOFError) as error:
        raise UserError(f"The trunk weights {path} are not a state of torchvision's AlexNet ({type(error).__name__}).") from error
    return network


def _published() -> str:
    """The name of the trunk's file at torchvision, which ends in the first of its SHA-256."""
    from torchvision.models import AlexNet_Weights

    return AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]


def _trunk() -> Path:
    """Where the trunk is looked for: the file or folder that VARIABLE names, else torch's cache of checkpoints."""
    named = Path(os.environ.get(VARIABLE) or Path(torch.hub.get_dir()) / "checkpoints")
    return named / _published() if named.is_dir() or not named.suffix else named
