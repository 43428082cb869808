"""A ControlNet beside the denoiser: its calls of a step, and the same on other latents, so that a replay holds no stale residuals."""
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import UserError

Exchange = Callable[[tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]


class Controls:
    """Listens to a ControlNet (or several in one module). `held`: why a replay kept its residuals as they were, or empty."""

    def __init__(self, network: Any):
        self.network = network if isinstance(network, nn.Module) else None
        self.held, self._again, self._heard, self._calls = "", False, [], []

    def listen(self) -> None:
        self._handle = self.network.register_forward_hook(self._hear, with_kwargs=True) if self.network is not None else None

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._heard, self._calls = [], []

    def take(self) -> None:
        """The calls since the last take become those that `again` makes."""
        self._calls, self._heard = self._heard, []

    def _hear(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if not self._again:
            self._heard.append((args, kwargs, _tensors(output)))

    def again(self, exchange: Exchange) -> Callable[[Any], Any]:
        """Runs the recorded calls on other latents; returns what puts their residuals where the old ones stood in an argument."""
        self.held, pairs, self._again = "", [], True
        try:
            for args, kwargs, old in self._calls:
                args, kwargs = exchange(args, kwargs)
                pairs += list(zip(old, _tensors(self.network(*args, **kwargs)), strict=True))
        except UserError:
            self.held, pairs = "the residuals of the ControlNet are held, as it does not take the scaled latents as they are", []
        finally:
            self._again = False
        placed = set()

        def renewed(value: Any) -> Any:
            if isinstance(value, Tensor):
                # Identity first: residuals of a fresh ControlNet are all zero, and equal.
                same = [i for i, (old, _) in enumerate(pairs) if value is old]
                for i in same or sorted(range(len(pairs)), key=placed.__contains__):
                    found = pairs[i][1] if same else _in_place(value, *pairs[i])
                    if found is not None:
                        placed.add(i)
                        self.held = "" if len(placed) == len(pairs) else self.held
                        return found
                return value
            if type(value) in (list, tuple):
                return type(value)(renewed(item) for item in value)
            return {key: renewed(item) for key, item in value.items()} if type(value) is dict else value

        if pairs:
            self.held = "residuals of the ControlNet that the pipeline altered on their way to the denoiser are held"
        return renewed


def _in_place(value: Tensor, old: Tensor, new: Tensor) -> Tensor | None:
    """The new residual in the form in which the pipeline passed on the old one: as it is, or behind zeros for the unconditional half."""
    if value.shape == old.shape and value.dtype == old.dtype and torch.equal(value, old):
        return new
    n = old.shape[0] if old.ndim else 0
    if n and value.ndim == old.ndim and value.shape == (2 * n, *old.shape[1:]) and not value[:n].any() and torch.equal(value[n:], old):
        return torch.cat([torch.zeros_like(new), new])
    return None


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and outputs, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []
