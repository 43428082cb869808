"""Guidance in clean-image space: the gradient is taken at the clean estimate, not through the denoiser (after MPGD, arXiv:2311.16424)."""
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from guide.strategies.strategy import Outcome, Step, Strategy, per_image, rms

# Strength 1: the displacement of x_{t-1} summed over the window, as a share of that by classifier-free guidance.
SHARE_OF_CORRECTION = .2

# Strength 1 without classifier-free guidance (distilled models): that sum as a share of RMS(clean estimate), by number of steps,
# straight lines between in log(steps). A choice of this project, not validated.
SHARE_OF_CLEAN = ((1, .1), (4, .2), (10, .4))


@dataclass(frozen=True)
class CleanImage(Strategy):
    """Moves the clean estimate down the objective's loss by a fixed share of what classifier-free guidance moves it.

    Departs from MPGD in two ways: the move is consistent (it goes through the model's output, so that its effect on x_{t-1} does not grow
    with the number of steps), and its size per image is `strength * .2 * RMS(correction)` whatever the size of the gradient. Costs a
    decode and an encoder pass with gradient per guided step, nothing of the denoiser. An image whose gradient is not finite is left alone
    in that step, and counted.
    """

    def __call__(self, step: Step, carried: Tensor | None) -> Outcome:
        if step.index not in self.window(step.count):
            return Outcome()
        # The ledger is kept in displacement of x_{t-1}, which steps left out by `every` owe and the next guided step pays.
        response = step.responses[step.index]
        due = response * self._size(step)
        due = due if carried is None else due + carried
        if step.index not in self.guided_steps(step.count):
            return Outcome(carried=due)
        ascent = step.ascent(step.clean)
        steepness = rms(ascent.direction)
        heading = ascent.direction / per_image(torch.where(steepness > 0, steepness, 1.), ascent.direction)
        move = torch.where(per_image(ascent.usable, heading), per_image(self.strength * due / response, heading) * heading, 0.)
        correction = step.correction()
        row = {
            "loss": _mean(ascent.loss, ascent.usable), "losses": _numbers(ascent.loss),
            "terms": {name: _mean(values, ascent.usable) for name, values in ascent.terms.items()},
            "terms_per_image": {name: _numbers(values) for name, values in ascent.terms.items()},
            "gradient_norm": _numbers(steepness), "norm_ratio": _numbers(rms(move) / rms(step.clean)),
            "correction_ratio": None if correction is None else _numbers(rms(correction) / rms(step.clean)),
            "skipped": int((~ascent.usable).sum()),
        }
        return Outcome(carried=torch.zeros_like(due), clean=move, row=row)

    def _size(self, step: Step) -> Tensor:
        """The move of each image at strength 1, in units of the clean estimate: (n,)."""
        correction = step.correction()
        window = self.window(step.count)
        share = share_of_clean(step.count) / sum(step.responses[i] for i in window) * rms(step.clean)
        if correction is None:
            return share.nan_to_num(0., 0., 0.)
        size = rms(correction)
        # Equal prompt and negative prompt: classifier-free guidance that guides nowhere is none.
        return torch.where(size > 1e-6 * rms(step.clean), SHARE_OF_CORRECTION * size, share).nan_to_num(0., 0., 0.)


def share_of_clean(steps: int) -> float:
    """SHARE_OF_CLEAN for a run of `steps`."""
    for (low, share), (high, higher) in pairwise(SHARE_OF_CLEAN):
        if steps <= high:
            return share + (higher - share) * math.log(max(steps, low) / low) / math.log(high / low)
    return SHARE_OF_CLEAN[-1][1]


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _mean(values: Tensor, usable: Tensor) -> float | None:
    kept = values[usable & values.isfinite()]
    return float(kept.mean()) if len(kept) else None
