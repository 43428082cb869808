"""Universal guidance (Bansal et al., arXiv:2302.07121, unverified): forward through the denoiser, backward on the clean estimate."""
from dataclasses import dataclass

import torch
from torch import Tensor

from guide.strategies.gradient import Gradient, at_clean, heading, sized, through_denoiser, told
from guide.strategies.strategy import Outcome, Step
from guide.strategies.tfg import resized
from probes.errors import UserError


@dataclass(frozen=True)
class Universal(Gradient):
    """Both halves change the predicted noise, so that the move is consistent: forward along the gradient by x_t (share `forward`),
    backward by `backward` gradient steps on the clean estimate for the rest; the step is taken `recurrence` times.

    The backward half works on latents here too: the loss is read through the decoder. A setting of TFG: `rho` is `forward`, `mu` the rest.
    """

    forward: float = .5
    backward: int = 2
    recurrence: int = 1

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("backward", 0), ("recurrence", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} = {value} is not a whole number from {least} on.")
        if not 0 <= self.forward <= 1 or (self.forward < 1 and not self.backward):
            raise UserError(f"forward = {self.forward:g} must be a share from 0 to 1, and 1 where there are no backward steps.")

    def steer(self, step: Step, due: Tensor) -> Outcome:
        # Departs from the paper: its weight of the forward half and the learning rate of its optimiser are shares of one displacement.
        size = due / step.responses[step.index]
        move, ascent = torch.zeros_like(step.clean), None
        if self.forward:
            ascent, _ = through_denoiser(step)
            move = move + sized(self.forward * size, heading(ascent))
        for _ in range(self.backward if self.forward < 1 else 0):
            inner = at_clean(step, step.clean + move)
            move = move + sized((1 - self.forward) * size / self.backward, heading(inner))
            ascent = ascent or inner
        parts = bool(self.forward) + (self.backward if self.forward < 1 else 0)
        row = told(step, ascent, size * ascent.usable)
        return Outcome(clean=resized(move, size, parts), row=row, again=step.repeat + 1 < self.recurrence)
