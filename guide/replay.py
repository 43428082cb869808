"""The denoiser's calls of a step: recorded, brought into the shape of the latents, and replayed on another x_t."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guide.controls import Controls
from probes.errors import UserError


@dataclass(frozen=True)
class Call:
    """One forward pass of a network as the pipeline made it; `output`: its prediction, a list of images' predictions stacked."""

    args: tuple
    kwargs: dict[str, Any]
    output: Tensor


class Recorder:
    """Listens to a denoiser, and to a ControlNet beside it, for the length of a `with` block. `count`: the denoiser's forward passes;
    `take()`: those since the last take; `approximate`: what a replay could not do again and held as it was, or empty."""

    def __init__(self, denoiser: nn.Module, keep: bool, before: Callable[[], None], controlnet: nn.Module | None = None):
        self.denoiser, self.keep, self.before = denoiser, keep, before
        self.controls = Controls(controlnet if keep else None)
        self.count, self.replaying, self.approximate = 0, False, ""
        self._calls: list[Call] = []

    def __enter__(self) -> "Recorder":
        # A module compiled in place (module.compile()) would trace a hook into its graph: it is listened to from outside.
        compiled = self.denoiser.__dict__.get("_compiled_call_impl")
        self._compiled = compiled
        if compiled is None:
            self._handle = self.denoiser.register_forward_hook(self._heard, with_kwargs=True)
        else:
            def listened(*args, **kwargs):
                output = compiled(*args, **kwargs)
                self._heard(self.denoiser, args, kwargs, output)
                return output
            self.denoiser._compiled_call_impl = listened
        self.controls.listen()
        return self

    def __exit__(self, *_) -> None:
        if self._compiled is None:
            self._handle.remove()
        else:
            self.denoiser._compiled_call_impl = self._compiled
        self.controls.stop()
        self._calls.clear()

    def take(self) -> list[Call]:
        calls, self._calls = self._calls, []
        self.controls.take()
        return calls

    def _heard(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self.count += 1
        if not self.replaying:
            self.before()
        predicted = _prediction(output)
        if self.keep and not self.replaying and isinstance(predicted, Tensor):
            self._calls.append(Call(args, kwargs, predicted))


def predictions(calls: Sequence[Call], like: Tensor) -> tuple[Tensor, ...]:
    """The raw predictions in the calls, each in the shape of the latents `like`: batches split, further channels or tokens cut off.

    Empty where they do not have that shape.
    """
    raw = []
    for call in calls:
        output = alike(call.output, like)
        parts, rest = divmod(output.shape[0], like.shape[0])
        if rest or not parts or output.ndim != like.ndim:
            return ()
        raw += [part[_region(like)] for part in output.detach().chunk(parts)]
    return tuple(raw) if all(part.shape == like.shape for part in raw) else ()


def replay(recorder: Recorder, calls: Sequence[Call], scale: Callable[[Tensor], Tensor], seen: Tensor, x: Tensor) -> list[Tensor]:
    """The raw predictions for another x_t, with gradient to it where `x.requires_grad`. `scale`: the scheduler's `scale_model_input`.

    `seen`: the x_t that the recorded calls were made on. Only the latents' part of the denoiser's input is exchanged; what else the
    pipeline concatenated (a mask, a reference image) stays. A ControlNet is run again on the new latents too; where that cannot be done its
    residuals are held, and `recorder.approximate` says so. UserError where the recorded input is not the scaled latents.
    """
    raw: list[Tensor] = []
    recorder.replaying = True
    try:
        renewed = recorder.controls.again(lambda args, kwargs: exchanged(args, kwargs, scale(seen), scale(x)))
        for call in calls:
            kwargs = {name: renewed(value) for name, value in call.kwargs.items()}
            args, kwargs = exchanged(tuple(renewed(value) for value in call.args), kwargs, scale(seen), scale(x))
            output = alike(_prediction(recorder.denoiser(*args, **kwargs)), x)
            raw += [part[_region(x)].to(x.dtype) for part in output.chunk(output.shape[0] // x.shape[0])]
        recorder.approximate = recorder.controls.held
    finally:
        recorder.replaying = False
    return raw


def exchanged(args: tuple, kwargs: dict[str, Any], seen: Tensor, x: Tensor) -> tuple[tuple, dict[str, Any]]:
    """A network's arguments with other latents; `seen` and `x` are the old and the new ones as the network gets them."""
    args, kwargs = _normal(args), _normal(kwargs)
    name = next((key for key in ("hidden_states", "sample", "x") if key in kwargs), None)
    if name is None and not args:
        raise UserError(_ELSE)
    old = kwargs[name] if name else args[0]
    listed = isinstance(old, list | tuple)
    whole = torch.stack(list(old)) if listed else old
    if not isinstance(whole, Tensor):
        raise UserError(_ELSE)
    lifted = whole.ndim == seen.ndim + 1 and whole.shape[2] == 1
    expected, latents = (part.unsqueeze(2) if lifted else part for part in (seen, x))
    parts = max(1, whole.shape[0] // x.shape[0])
    new = _exchanged(whole, torch.cat([expected] * parts), torch.cat([latents] * parts))
    new = list(new.unbind(0)) if listed else new
    if name:
        kwargs[name] = new
    else:
        args = (new, *args[1:])
    return args, kwargs


_ELSE = ("This pipeline's denoiser does not take the scaled latents as they are, so its calls cannot be replayed; "
         "use a strategy in clean-image space, such as clean-image.")


def _exchanged(old: Tensor, expected: Tensor, latents: Tensor) -> Tensor:
    if old.ndim == expected.ndim and old.shape[0] == expected.shape[0]:
        for region in _places(old, expected):
            held = old[region]
            if held.shape == expected.shape and (held - expected).norm() <= 2e-2 * expected.norm():
                if old.shape == latents.shape:
                    return latents.to(old.dtype)
                new = old.clone()
                new[region] = latents.to(old.dtype)
                return new
    raise UserError(_ELSE)


def _places(old: Tensor, like: Tensor) -> list[tuple[slice, ...]]:
    """Where the latents may stand in a concatenation: first, or last along one dimension."""
    places = [_region(like)]
    for d in range(1, like.ndim):
        if old.shape[d] > like.shape[d]:
            places.append(tuple(slice(old.shape[d] - like.shape[d], None) if i == d else part for i, part in enumerate(_region(like))))
    return places


def alike(output: Tensor, like: Tensor) -> Tensor:
    """A prediction without the single frame that some image models carry along."""
    return output.squeeze(2) if output.ndim == like.ndim + 1 and output.shape[2] == 1 else output


def _region(like: Tensor) -> tuple[slice, ...]:
    """Cuts a tensor to the channels and tokens of `like`; the batch is left alone."""
    return (slice(None), *(slice(0, size) for size in like.shape[1:]))


def _prediction(output: Any) -> Any:
    predicted = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    if isinstance(predicted, list) and predicted and all(isinstance(part, Tensor) for part in predicted):
        alike_ = len({part.shape for part in predicted}) == 1
        return torch.stack(predicted) if alike_ else predicted[0] if len(predicted) == 1 else None
    return predicted


def _normal(value: Any) -> Any:
    """Copies of inference tensors, which autograd refuses to save for a backward pass; everything else as it is."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_normal(item) for item in value)
    return value
