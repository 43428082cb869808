"""What a strategy is, what it sees in a step, and what it may answer."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from guide.combination import Combination
from guide.goals import STRONGEST
from probes.errors import UserError


def rms(x: Tensor) -> Tensor:
    """Root mean square of each image's numbers: (n, ...) -> (n,)."""
    return x.flatten(1).pow(2).mean(1).sqrt()


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(n,) in a shape that multiplies `like` (n, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Ascent:
    """The way down the objective's loss at one clean estimate: `direction` (n, ...) is minus the gradient, `usable` (n,) where finite."""

    direction: Tensor
    usable: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    images: Tensor


@dataclass(frozen=True)
class Step:
    """One step of a pipeline as a strategy sees it. Tensors are in float32 (or float64 where the pipeline is) and carry no gradient.

    `index` counts the steps of this run from 0, of `count`; `before` and `after` are the noise levels (a, b) of x_t and x_{t-1};
    `clean` is the scheduler's estimate `p * x_t + q * output`, clipped where the scheduler clips; `raw` the denoiser's own predictions;
    `responses` says for each step of the run how far x_{t-1} moves per unit of a consistent move; `repeat` counts the times that this
    step was taken before. `draw()` is standard normal noise like x_t from each image's own generator; `noise_scale()` the sigma of the
    noise that the scheduler will add in this step.
    """

    index: int
    count: int
    x: Tensor
    output: Tensor
    clean: Tensor
    q: float
    before: tuple[float, float]
    after: tuple[float, float]
    responses: Sequence[float]
    repeat: int
    raw: Sequence[Tensor]
    combination: Combination
    decode: Callable[[Tensor], Tensor]
    ascent: Callable[[Tensor], Ascent]
    replay: Callable[[Tensor], list[Tensor]]
    p: float
    draw: Callable[[], Tensor]
    noise_scale: Callable[[], float]

    def clean_of(self, x: Tensor) -> Tensor:
        """The clean estimate of another x_t, by the denoiser, with gradient to it: `p * x + q * combined prediction`, unclipped.

        UserError where the pipeline combines its predictions in a way that is not known.
        """
        if self.combination.refusal:
            raise UserError("This strategy takes its gradient through the denoiser, which cannot be done here: "
                            f"{self.combination.refusal}; use one in clean-image space, such as clean-image or mpgd.")
        return self.p * x + self.q * self.combination.combined(self.replay(x))

    def correction(self) -> Tensor | None:
        """What classifier-free guidance did to the clean estimate: the combined one less the conditional one. None without it."""
        own = self.combination.own(self.raw)
        return None if own is None else self.q * (self.output - own.to(self.output.dtype))

    def predict(self, x: Tensor) -> Tensor:
        """The pipeline's combined prediction for another x_t, with gradient to x where it asks for one: one more pass through the denoiser.

        UserError where the pipeline combines its predictions in an unknown way, or feeds the denoiser something else than the latents.
        """
        if self.combination.refusal:
            raise UserError(f"This strategy needs the denoiser's calls again, but {self.combination.refusal}; "
                            "use a strategy in clean-image space, such as clean-image.")
        return self.combination.combined(self.replay(x))


@dataclass(frozen=True)
class Outcome:
    """What a strategy answers. `clean` and `mean` (n, ...) are added to the clean estimate and to x_{t-1}; `carried` comes back.

    `noise` maps the unit noise that the scheduler draws to that which it uses; `again` takes the step once more, from an x_t renoised
    out of x_{t-1} (time travel), and then what this outcome carries is forgotten.
    """

    carried: Any = None
    clean: Tensor | None = None
    mean: Tensor | None = None
    noise: Callable[[Tensor], Tensor] | None = None
    again: bool = False
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """Base of all. `strength` 0 is the plain pipeline, bit for bit; `start` and `stop` are shares of the run (0 its noisy beginning);
    `every` k guides each k-th step of that window, its last step included, with the strength of the steps left out; `evaluations` instead
    says how many steps of a run may compute a gradient, 0 for any number: they lie evenly, so that few steps are all guided.

    `move` says what a change of the clean estimate means: "consistent" goes through the model's output, so that the implied noise moves
    along and x_{t-1} moves as under any other output; "fixed noise" leaves the implied noise where it is.
    """

    strength: float = 1.
    start: float = 0.
    stop: float = 1.
    every: int = 1
    evaluations: int = 0

    move: ClassVar[Literal["consistent", "fixed noise"]] = "consistent"

    def __post_init__(self):
        if not 0 <= self.strength <= STRONGEST:
            raise UserError(f"A strength of {self.strength:g} has no meaning; give 0, 1 (a fifth of classifier-free guidance) or more, "
                            f"up to {STRONGEST}.")
        if not 0 <= self.start < self.stop <= 1:
            raise UserError(f"The window {self.start} to {self.stop} is no part of the run; give shares of it, 0 <= start < stop <= 1.")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise UserError(f"every = {self.every} is no whole number of steps; give 1 to guide each step, 2 for each second.")
        if isinstance(self.evaluations, bool) or not isinstance(self.evaluations, int) or self.evaluations < 0:
            raise UserError(f"evaluations = {self.evaluations} is no whole number of steps; give 0 for all that `every` leaves, or more.")

    def __call__(self, step: Step, carried: Any) -> Outcome:
        raise NotImplementedError(f"{type(self).__name__} does not guide")

    def window(self, count: int) -> range:
        """The steps of a run of `count` that lie in the window. UserError where there is none, as that would guide nothing in silence."""
        first, last = (math.ceil(share * count - 1e-6) for share in (self.start, self.stop))
        if first >= last:
            raise UserError(f"No step of a run of {count} lies in the window {self.start:g} to {self.stop:g}; widen it or take more steps.")
        return range(first, last)

    def guided_steps(self, count: int) -> frozenset[int]:
        """The steps that compute a gradient: the last of each group of `every` in the window, so that each pays for those before it."""
        window = self.window(count)
        every = max(self.every, math.ceil(len(window) / self.evaluations) if self.evaluations else 1)
        return frozenset(window[every - 1::every]) | {window[-1]}

    def settings(self) -> dict[str, Any]:
        """Its fields, for a record."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
