"""A convolution and the GELU after it in one pass over memory, where PyTorch has that."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gelu(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`F.gelu(layer(x))`, to rounding; for fp32 on a CPU without a gradient the GELU costs nothing besides the convolution."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or layer.weight.dtype != torch.float32
    if plain or (torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)) or not _available():
        return F.gelu(layer(x))
    return _fused(layer, x)


def _fused(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups, "gelu", [], "none")  # fmt: skip


@cache
def _available() -> bool:
    """Whether this build has the operator, which its compiler uses and no document promises, and it gives what it should."""
    layer, x = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False), torch.linspace(-2, 2, 256).view(1, 4, 8, 8)
    try:
        return torch.allclose(_fused(layer, x), F.gelu(layer(x)), atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):
        return False
