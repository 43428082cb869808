"""The operations of a computation on tensors that hold no numbers: which, of what shapes, how often, and the most memory alive at once."""
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

COSTLY = ("convolution", "addmm", "baddbmm", "bmm", "mm", "scaled_dot_product", "linear")


@dataclass(frozen=True)
class Shape:
    """What of a tensor decides how long an operation takes on it."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Trace:
    """`ops`: how often each operation ran, by (operation, arguments with shapes for tensors); `peak`: bytes alive at once besides what was
    there before; `flops`: of matrix products and convolutions."""

    ops: Counter = field(default_factory=Counter)
    peak: int = 0
    flops: float = 0.


class _Tracer(TorchDispatchMode):
    def __init__(self, trace: Trace):
        super().__init__()
        self.trace, self.alive, self.known = trace, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        before = {_storage(value) for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)}
        output = func(*args, **kwargs)
        outputs = [value for value in tree_flatten(output)[0] if isinstance(value, Tensor)]
        # A view costs nothing, and neither does what only asks for a shape.
        if (outputs and not all(_storage(value) in before for value in outputs)) or _in_place(func):
            self.trace.ops[_key(func, args, kwargs)] += 1
            for value in outputs:
                self._watch(value)
        return output

    def _watch(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.alive += size
        self.trace.peak = max(self.trace.peak, self.alive)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.alive -= size


class _Checked(TorchFunctionMode):
    """Takes every check of numbers (all finite? in [0, 1]?) as passed, since there are none."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__bool__:
            return True
        return .5 if func in (Tensor.__float__, Tensor.item) else func(*args, **(kwargs or {}))


@contextmanager
def empty(device: str = "cpu") -> Iterator[None]:
    """Inside, tensors and networks are made without memory, as if on `device`; one block at a time."""
    original, nn.Module._apply = nn.Module._apply, _converted
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device), _Checked():
            yield
    finally:
        nn.Module._apply = original


def _converted(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` by new parameters: tensors without memory cannot be given other data in place."""
    for part in module.modules() if recurse else (module,):
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(fn(weight.detach()), weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = fn(buffer)
    return module


def traced(compute: Callable[[], Any]) -> Trace:
    """The trace of `compute()`, called inside `empty`."""
    trace = Trace()
    with _Tracer(trace):
        result = compute()
        del result
    trace.flops = sum(count * flops_of(key) for key, count in trace.ops.items())
    return trace


def _storage(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def _in_place(func) -> bool:
    return func._schema.is_mutable


def _key(func, args, kwargs) -> tuple:
    leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
    shown = [Shape(tuple(v.shape), tuple(v.stride()), v.dtype) if isinstance(v, Tensor) else v for v in leaves]
    return func, tuple(_hashable(v) for v in shown), spec


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def arguments(key: tuple, device: str) -> tuple[tuple, dict]:
    """Real arguments of the shapes of a traced operation, filled with small numbers."""
    _, leaves, spec = key
    return tree_unflatten([_filled(leaf, device) if isinstance(leaf, Shape) else leaf for leaf in leaves], spec)


def _filled(shape: Shape, device: str) -> Tensor:
    tensor = torch.empty_strided(shape.size, shape.stride, dtype=shape.dtype, device=device)
    return tensor.uniform_(-1, 1) if shape.dtype.is_floating_point else tensor.zero_()


def kind_of(key: tuple) -> str:
    name = key[0]._schema.name
    return next((kind for kind in COSTLY if kind in name), "other")


def bytes_of(key: tuple) -> int:
    return sum(_size(leaf) for leaf in key[1] if isinstance(leaf, Shape))


def _size(shape: Shape) -> int:
    count = 1
    for n in shape.size:
        count *= n
    return count * shape.dtype.itemsize


def flops_of(key: tuple) -> float:
    """Of a product, from the sizes of what it multiplies; 0 for what only moves numbers."""
    shapes = [leaf for leaf in key[1] if isinstance(leaf, Shape)]
    kind = kind_of(key)
    if kind == "other" or len(shapes) < 2:
        return 0.
    counts = sorted((_size(shape) / shape.dtype.itemsize for shape in shapes), reverse=True)
    if kind == "convolution":
        backward = "backward" in key[0]._schema.name
        image, weight = (shapes[0], shapes[2]) if backward else (shapes[0], shapes[1])
        places = _size(image) / image.dtype.itemsize / max(1, image.size[1])
        return 2. * places * _size(weight) / weight.dtype.itemsize * (2 if backward else 1)
    if kind == "scaled_dot_product":
        *lead, length, width = shapes[0].size
        rows = 1
        for n in lead:
            rows *= n
        return 4. * rows * length * shapes[1].size[-2] * width * (2.5 if "backward" in key[0]._schema.name else 1)
    matrices = [shape for shape in shapes if len(shape.size) >= 2][-2:]
    if len(matrices) < 2:
        return counts[0]
    return 2. * _size(matrices[0]) / matrices[0].dtype.itemsize * matrices[1].size[-1]
