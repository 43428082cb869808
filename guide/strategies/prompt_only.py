"""Prompt-only baselines: the two predictions of classifier-free guidance combined in other ways; no probe is asked, no gradient taken."""
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from guide.strategies.strategy import Outcome, Step, Strategy, per_image, rms
from probes.errors import UserError


@dataclass(frozen=True)
class PromptOnly(Strategy):
    """Base: `strength` is the guidance scale w of the prompt, which replaces the pipeline's; 0 leaves the pipeline as it is.

    The clean estimates D of the two predictions are what is combined: `D_c + (w - 1) (D_c - D_u)` is classifier-free guidance
    (arXiv:2207.12598). The pipeline has to compute both, so that its own guidance scale must be above 1.
    """

    def __call__(self, step: Step, carried: Any) -> Outcome:
        correction, chosen = step.correction(), step.combination.conditional
        scale = step.combination.weights[chosen] if chosen is not None and len(step.combination.weights) == 2 else 1.
        if correction is None or step.combination.refusal or abs(scale - 1) < 1e-6:
            cause = step.combination.refusal or "the pipeline guides by no prompt, so that there is only one prediction"
            raise UserError(f"{type(self).__name__} combines the conditional and the unconditional prediction, which cannot be done here: "
                            f"{cause}; choose a model with classifier-free guidance and a --guidance-scale above 1.")
        conditional = step.p * step.x + step.q * step.raw[chosen].to(step.x)
        update, carried = self.update(step, conditional, correction / (scale - 1), carried)
        moved = update - correction
        return Outcome(carried=carried, clean=moved, row={"norm_ratio": (rms(moved) / rms(step.clean).clamp_min(1e-12)).tolist()})

    @abstractmethod
    def update(self, step: Step, conditional: Tensor, difference: Tensor, carried: Any) -> tuple[Tensor, Any]:
        """What is added to the conditional clean estimate D_c, given it and `difference` D_c - D_u; and what the next step is to know."""


@dataclass(frozen=True)
class CFG(PromptOnly):
    """Classifier-free guidance at another scale than the pipeline's (Ho and Salimans, arXiv:2207.12598, unverified)."""

    def update(self, step: Step, conditional: Tensor, difference: Tensor, carried: Any) -> tuple[Tensor, Any]:
        return (self.strength - 1) * difference, None


@dataclass(frozen=True)
class Interval(PromptOnly):
    """Classifier-free guidance in the middle of the run alone (Kynkäänniemi et al., arXiv:2404.07724, unverified): w inside, 1 outside.

    The paper gives the interval in noise levels, which are another model's; `start` and `stop` are shares of the run here. It saves the
    unconditional pass outside of the interval; a pipeline that computes both in one batch does not, so that the cost stays.
    """

    start: float = .2
    stop: float = .7

    def update(self, step: Step, conditional: Tensor, difference: Tensor, carried: Any) -> tuple[Tensor, Any]:
        inside = step.index in self.window(step.count)
        return (self.strength - 1 if inside else 0.) * difference, None


@dataclass(frozen=True)
class APG(PromptOnly):
    """Adaptive projected guidance (Sadat, Hilliges and Weber, arXiv:2410.02416, unverified; as diffusers' `normalized_guidance` has it).

    The difference D_c - D_u, with a running sum of earlier ones times `momentum`, is cut to a length of at most `threshold` and freed of
    the share `1 - eta` of what is parallel to D_c, which is what saturates. `threshold` is RMS per number (diffusers' default norm of 15
    on the 4 x 128 x 128 numbers of SDXL's latents is .0586), relative to the RMS of D_c, so that it means the same for other latents; 0
    cuts nothing.
    """

    eta: float = 0.
    momentum: float = -.5
    threshold: float = 0.

    def __post_init__(self):
        super().__post_init__()
        if not (0 <= self.eta <= 1 and -1 < self.momentum < 1 and self.threshold >= 0):
            raise UserError(f"eta {self.eta:g} must lie in 0 to 1, momentum {self.momentum:g} between -1 and 1, and threshold "
                            f"{self.threshold:g} must be 0 or more.")

    def update(self, step: Step, conditional: Tensor, difference: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        running = difference if carried is None else difference + self.momentum * carried
        cut, size = running, rms(running)
        if self.threshold:
            most = self.threshold * rms(conditional)
            cut = running * per_image((most / size.clamp_min(1e-12)).clamp(max=1.), running)
        flat, along = cut.double().flatten(1), conditional.double().flatten(1)
        along = along / along.norm(dim=1, keepdim=True).clamp_min(1e-12)
        parallel = ((flat * along).sum(1, keepdim=True) * along).view_as(cut).to(cut.dtype)
        return (self.strength - 1) * (cut - (1 - self.eta) * parallel), running
