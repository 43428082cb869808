"""The recipes' convolution: the same numbers and gradients as torch's own, by another product."""

import copy

import pytest
import torch
from torch import nn

from recipes.convolution import PIXELS, Convolution, quicken


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [1, 4, 8, 9])
def test_gradients_are_those_of_torch(side, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    quick = quicken(copy.deepcopy(plain))
    x = torch.randn(3, 5, side, side + 1 if side * (side + 1) <= PIXELS else side, dtype=torch.float64)
    results = []
    for module in (plain, quick):
        given = x.clone().requires_grad_()
        out = module(given)
        out.square().sum().backward()
        results.append((out, given.grad, *(parameter.grad for parameter in module.parameters())))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_hold_in_finite_differences():
    quick = quicken(nn.Conv2d(2, 3, 3, padding=1).double())
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight, bias: torch.func.functional_call(quick, {"weight": weight, "bias": bias}, x),
                                    (x, quick.weight, quick.bias))


def test_autocast_learns_in_the_parameters_type():
    quick = quicken(nn.Conv2d(16, 8, 3, padding=1))
    x = torch.randn(4, 16, 4, 4).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = quick(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    theirs = torch.autograd.grad(nn.functional.conv2d(x, quick.weight, quick.bias, padding=1).square().sum(), quick.weight)[0]
    assert quick.weight.grad.dtype == torch.float32
    assert torch.cosine_similarity(quick.weight.grad.flatten(), theirs.flatten(), dim=0) > 0.999


def test_only_plain_three_by_three_convolutions_change():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3),
                          nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    names = list(model.state_dict())
    assert [type(module) is Convolution for module in quicken(model)] == [True, False, False, False, False, False]
    assert list(model.state_dict()) == names
