"""The denoiser's calls of a step: recorded, told apart into conditional and unconditional, fitted, and replayed on another x_t."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import UserError

# The order in which classifier-free guidance puts its two predictions, as weights of (first, second) for a scale s, likelier first.
# One call on a doubled batch: unconditional first (Stable Diffusion, SDXL, SD3). Two calls: conditional first (FLUX.1).
ORDERS: dict[str, tuple[Callable[[float], tuple[float, float]], ...]] = {
    "batched": (lambda s: (1 - s, s), lambda s: (s, 1 - s)),
    "separate": (lambda s: (s, 1 - s), lambda s: (1 - s, s)),
}
CONDITIONAL = {"batched": 1, "separate": 0}

# What rounding may leave of the combined prediction that a fixed combination of the raw ones does not explain, relative.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Call:
    """One forward pass of the denoiser as the pipeline made it."""

    args: tuple
    kwargs: dict[str, Any]
    output: Tensor


class Recorder:
    """Listens to a denoiser for the length of a `with` block. `count`: its forward passes; `take()`: those since the last take."""

    def __init__(self, denoiser: nn.Module, keep: bool, before: Callable[[], None]):
        self.denoiser, self.keep, self.before = denoiser, keep, before
        self.count, self.replaying = 0, False
        self._calls: list[Call] = []

    def __enter__(self) -> "Recorder":
        self._handle = self.denoiser.register_forward_hook(self._heard, with_kwargs=True)
        return self

    def __exit__(self, *_) -> None:
        self._handle.remove()
        self._calls.clear()

    def take(self) -> list[Call]:
        calls, self._calls = self._calls, []
        return calls

    def _heard(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self.count += 1
        if not self.replaying:
            self.before()
        predicted = _first(output)
        if self.keep and not self.replaying and isinstance(predicted, Tensor):
            self._calls.append(Call(args, kwargs, predicted))


def predictions(calls: Sequence[Call], like: Tensor) -> tuple[Tensor, ...]:
    """The raw predictions in the calls, each in the shape of the latents `like`: batches split, further channels or tokens cut off.

    Empty where they do not have that shape.
    """
    raw = []
    for call in calls:
        parts, rest = divmod(call.output.shape[0], like.shape[0])
        if rest or not parts or call.output.ndim != like.ndim:
            return ()
        raw += [part[_region(like)] for part in call.output.detach().chunk(parts)]
    return tuple(raw) if all(part.shape == like.shape for part in raw) else ()


@dataclass(frozen=True)
class Combination:
    """How a pipeline made one prediction of several: `combined = sum(weights * raw)`.

    `conditional`: which raw one is the prompt's own, None without classifier-free guidance; `residual`: the relative part of the combined
    prediction that the weights leave unexplained; `refusal`: why the weights cannot stand for the pipeline, empty if they can.
    """

    weights: tuple[float, ...]
    conditional: int | None
    residual: float
    refusal: str = ""


def combination(raw: Sequence[Tensor], combined: Tensor, batched: bool, scales: Sequence[float] = (), rescale: float = 0.) -> Combination:
    """The rule of the pipeline's family where it explains the combined prediction, else a least-squares fit of it on the raw ones.

    `scales`: guidance scales that the pipeline names; `rescale`: its guidance rescale (arXiv:2305.08891), no fixed combination.
    """
    if not raw:
        return Combination((), None, float("nan"), "the denoiser's outputs do not have the shape of the latents")
    columns = torch.stack([part.detach().double().cpu().flatten() for part in raw], 1)
    target = combined.detach().double().cpu().flatten()
    size = float(target.norm()) or 1.

    def unexplained(weights: Sequence[float]) -> float:
        return float((columns @ torch.tensor(weights, dtype=torch.float64) - target).norm()) / size

    kind, tolerance = ("batched" if batched else "separate"), TOLERANCE.get(combined.dtype, TOLERANCE[torch.bfloat16])
    refusal = f"the pipeline rescales its guidance (guidance_rescale {rescale:g})" if rescale else ""
    if len(raw) == 1:
        residual = unexplained([1.])
        if residual <= tolerance:
            return Combination((1.,), None, residual, refusal)
    if len(raw) == 2:
        for order in ORDERS[kind]:
            for scale in scales:
                if (residual := unexplained(order(scale))) <= tolerance:
                    weights = order(scale)
                    return Combination(weights, _heavier(weights, CONDITIONAL[kind]), residual, refusal)
    # The pseudo-inverse takes equal conditional and unconditional predictions, where a plain least-squares solution does not exist.
    gram = columns.T @ columns
    weights = tuple((torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ (columns.T @ target)).tolist())
    residual = unexplained(weights)
    if residual > tolerance and not refusal:
        refusal = (f"the pipeline's prediction is no fixed combination of its denoiser's calls (a share of {residual:.1e} is left over, "
                   f"{tolerance:.0e} is allowed)")
    return Combination(weights, _heavier(weights, CONDITIONAL[kind]) if len(raw) > 1 else None, residual, refusal)


def _heavier(weights: Sequence[float], rule: int) -> int:
    """The conditional prediction has the largest weight; the family's rule decides between equal ones (equal prompts)."""
    best = max(range(len(weights)), key=weights.__getitem__)
    return rule if len(weights) == 2 and abs(weights[0] - weights[1]) < 1e-6 else best


def replay(recorder: Recorder, calls: Sequence[Call], scale: Callable[[Tensor], Tensor], seen: Tensor, x: Tensor) -> list[Tensor]:
    """The raw predictions for another x_t, with gradient to it where `x.requires_grad`. `scale`: the scheduler's `scale_model_input`.

    `seen`: the x_t that the recorded calls were made on. Only the latents' part of the denoiser's input is exchanged; what else the
    pipeline concatenated (a mask, a reference image) stays, and so do the residuals of a ControlNet. UserError where the recorded
    input is not the scaled latents.
    """
    raw: list[Tensor] = []
    recorder.replaying = True
    try:
        for call in calls:
            parts = call.output.shape[0] // x.shape[0]
            args, kwargs = _normal(call.args), _normal(call.kwargs)
            name = next((key for key in ("hidden_states", "sample") if key in kwargs), None)
            old = kwargs[name] if name else args[0]
            new = _exchanged(old, torch.cat([scale(seen)] * parts), torch.cat([scale(x)] * parts))
            if name:
                kwargs[name] = new
            else:
                args = (new, *args[1:])
            output = _first(recorder.denoiser(*args, **kwargs))
            raw += [part[_region(x)].to(x.dtype) for part in output.chunk(parts)]
    finally:
        recorder.replaying = False
    return raw


def _exchanged(old: Tensor, expected: Tensor, latents: Tensor) -> Tensor:
    region = _region(expected)
    held = old[region] if old.ndim == expected.ndim and old.shape[0] == expected.shape[0] else None
    if held is None or held.shape != expected.shape or (held - expected).norm() > 2e-2 * expected.norm():
        raise UserError("This pipeline's denoiser does not take the scaled latents as they are, so its calls cannot be replayed; "
                        "use a strategy in clean-image space, such as clean-image.")
    if old.shape == latents.shape:
        return latents.to(old.dtype)
    new = old.clone()
    new[region] = latents.to(old.dtype)
    return new


def _region(like: Tensor) -> tuple[slice, ...]:
    """Cuts a tensor to the channels and tokens of `like`; the batch is left alone."""
    return (slice(None), *(slice(0, size) for size in like.shape[1:]))


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else getattr(output, "sample", output)


def _normal(value: Any) -> Any:
    """Copies of inference tensors, which autograd refuses to save for a backward pass; everything else as it is."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_normal(item) for item in value)
    return value
