"""3 x 3 convolutions of few pixels whose weights learn by one matrix product: training a small latent network on a CPU.

oneDNN's gradient of a convolution's weights walks over rows of pixels; where there are 4 x 4 or 8 x 8 of them it reaches a tenth of what
the same processor's matrix product does. The patches of so few pixels fit into memory, and their product with the output's gradient is
the same gradient.
"""

import torch
from torch import nn
from torch.nn import functional as F

PIXELS = 64  # per side squared; above that laying out the patches costs more than the product saves


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        into = by_weight = None
        if need_x:
            geometry = ([0], [1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # bias sizes (unused), stride, padding, dilation, not transposed
            into = torch.ops.aten.convolution_backward(grad, x, weight, *geometry, [True, False, False])[0]
        if need_weight:
            patches = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # n, h, w, channels, 3, 3
            patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[1])
            flat = grad.permute(0, 2, 3, 1).reshape(-1, len(weight))
            by_weight = (flat.t() @ patches).view(len(weight), 3, 3, x.shape[1]).permute(0, 3, 1, 2)
        return into, by_weight, grad.sum((0, 2, 3)) if ctx.biased and need_bias else None


class Convolution(nn.Conv2d):
    """`nn.Conv2d` of 3 x 3, stride 1, padding 1, with that gradient where there are at most `PIXELS` places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] * x.shape[-2] > PIXELS or not torch.is_grad_enabled():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):  # autocast does not look into functions of one's own
            kind = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        return _Convolution.apply(x, weight, bias)


def quicken(model: nn.Module) -> nn.Module:
    """`model` with its plain 3 x 3 convolutions made `Convolution`; parameters and their names stay as they are."""
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros" and module.dilation == (1, 1)
        if plain and module.kernel_size == (3, 3) and module.stride == (1, 1) and module.padding == (1, 1):
            module.__class__ = Convolution
    return model
