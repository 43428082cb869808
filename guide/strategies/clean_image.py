"""Guidance in clean-image space: the gradient is taken at the clean estimate, not through the denoiser (after MPGD, arXiv:2311.16424)."""
from dataclasses import dataclass

from torch import Tensor

from guide.strategies.gradient import Gradient, at_clean, heading, sized, told
from guide.strategies.strategy import Outcome, Step


@dataclass(frozen=True)
class CleanImage(Gradient):
    """Moves the clean estimate down the objective's loss by a fixed share of what classifier-free guidance moves it.

    Departs from MPGD in that the move is consistent: it goes through the model's output, so that its effect on x_{t-1} does not grow
    with the number of steps. Costs a decode and an encoder pass with gradient per guided step, nothing of the denoiser.
    """

    def steer(self, step: Step, due: Tensor) -> Outcome:
        ascent = at_clean(step)
        move = sized(due / step.responses[step.index], heading(ascent))
        return Outcome(clean=move, row=told(step, ascent, due / step.responses[step.index] * ascent.usable))
