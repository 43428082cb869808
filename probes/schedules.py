"""Schedules: how much a measure counts at each noise level of a run."""
from dataclasses import dataclass
from itertools import pairwise

from probes.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Straight lines between `points` (noise, weight), level outside of them; noise runs from 1 (nothing but noise) to 0 (the picture).

    The noise level is `b / (a + b)` where `x_t = a * clean + b * noise`: the time of a flow model, `sigma / (1 + sigma)` of the others.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self):
        if not self.points or any(not (0 <= noise <= 1 and abs(weight) < float("inf")) for noise, weight in self.points):
            raise UserError(f"a schedule is a list of noise levels from 0 to 1 with finite weights, not {self.points}.")
        if any(a[0] < b[0] for a, b in pairwise(self.points)):
            raise UserError("the noise of a schedule runs downward, from 1 to 0, as that of an image does.")

    @classmethod
    def window(cls, high: float, low: float) -> "Schedule":
        """1 at noise levels from `high` down to `low`, both included, 0 elsewhere."""
        if not 0 <= low < high <= 1:
            raise UserError(f"the window {high:g}-{low:g} is no span of noise levels; it runs downward within 1 and 0.")
        before, after = ((high, 0.),) if high < 1 else (), ((low, 0.),) if low > 0 else ()
        return cls((*before, (high, 1.), (low, 1.), *after))

    def __call__(self, noise: float) -> float:
        above = [point for point in self.points if point[0] >= noise]
        below = [point for point in self.points if point[0] < noise]
        if above and above[-1][0] == noise:  # where a window opens or closes it counts
            return max((weight for level, weight in above if level == noise), key=abs)
        if not above or not below:
            return (above or below[:1])[-1][1]
        (high, a), (low, b) = above[-1], below[0]
        return a + (b - a) * (high - noise) / (high - low)
