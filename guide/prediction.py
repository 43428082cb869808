"""One adapter for every scheduler: noise levels `x_t = a * x0 + b * noise` and the clean estimate `x0 = p * x_t + q * model_output`."""
import math
from itertools import pairwise

import torch
from torch import Tensor

from probes.errors import UserError

ALPHAS, EXPLODING, PRESERVING, FLOW, EDM = "alphas", "exploding", "preserving", "flow", "edm"

FAMILIES = {
    "DDIMScheduler": ALPHAS, "DDIMParallelScheduler": ALPHAS, "DDPMScheduler": ALPHAS, "DDPMParallelScheduler": ALPHAS,
    "PNDMScheduler": ALPHAS, "LCMScheduler": ALPHAS, "TCDScheduler": ALPHAS, "CogVideoXDDIMScheduler": ALPHAS,
    "EulerDiscreteScheduler": EXPLODING, "EulerAncestralDiscreteScheduler": EXPLODING, "HeunDiscreteScheduler": EXPLODING,
    "LMSDiscreteScheduler": EXPLODING, "KDPM2DiscreteScheduler": EXPLODING, "KDPM2AncestralDiscreteScheduler": EXPLODING,
    "DPMSolverMultistepScheduler": PRESERVING, "DPMSolverSinglestepScheduler": PRESERVING, "UniPCMultistepScheduler": PRESERVING,
    "DEISMultistepScheduler": PRESERVING, "SASolverScheduler": PRESERVING,
    "FlowMatchEulerDiscreteScheduler": FLOW, "FlowMatchHeunDiscreteScheduler": FLOW, "FlowMatchLCMScheduler": FLOW,
    "EDMEulerScheduler": EDM, "EDMDPMSolverMultistepScheduler": EDM,
}

RENEWS_NOISE = {"LCMScheduler", "FlowMatchLCMScheduler"}


def family(scheduler) -> str | None:
    """How the scheduler writes its noise levels, read from its class or a parent's; None for one that is not known here."""
    return next((FAMILIES[cls.__name__] for cls in type(scheduler).__mro__ if cls.__name__ in FAMILIES), None)


def closed_form(prediction: str, a: float, b: float) -> tuple[float, float]:
    """(p, q) of `x0 = p * x_t + q * model_output` where `x_t = a * x0 + b * noise`.

    `v_prediction` is that of the variance-preserving form (arXiv:2202.00512), so for any a and b `v = (a * noise - b * x0) / hypot(a, b)`;
    `flow_prediction` is the velocity `noise - x0` with a = 1 - b.
    """
    if prediction == "epsilon":
        return (1 / a, -b / a) if a else (math.inf, -math.inf)
    if prediction in ("sample", "original_sample"):
        return 0., 1.
    if prediction == "v_prediction":
        return a / (a * a + b * b), -b / math.hypot(a, b)
    if prediction == "flow_prediction":
        return 1., -b
    raise UserError(f"Guidance does not know the prediction {prediction!r}; it knows epsilon, v_prediction, sample and flow_prediction.")


def prediction_type(scheduler) -> str:
    """`epsilon`, `v_prediction`, `sample` or `flow_prediction`, as the scheduler's configuration has it."""
    return "flow_prediction" if family(scheduler) == FLOW else scheduler.config.prediction_type


def noise_levels(scheduler) -> list[tuple[float, float]]:
    """(a, b) at each of the scheduler's timesteps and after the last: n + 1 pairs."""
    kind = _known(scheduler)
    if kind == ALPHAS:
        cumulative = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
        cumulative.append(float(getattr(scheduler, "final_alpha_cumprod", 1.)))
        return [(math.sqrt(c), math.sqrt(max(0., 1 - c))) for c in cumulative]
    return [_from_sigma(scheduler, kind, float(sigma)) for sigma in scheduler.sigmas]


def levels(scheduler, t) -> tuple[float, float]:
    """(a, b) of `x_t = a * x0 + b * noise` at timestep t. Read it before `scheduler.step`, which moves on to the next."""
    kind = _known(scheduler)
    if kind == ALPHAS:
        cumulative = float(scheduler.alphas_cumprod[int(t)])
        return math.sqrt(cumulative), math.sqrt(max(0., 1 - cumulative))
    index, sigmas = position(scheduler, t), scheduler.sigmas
    if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
        # The second half of a KDPM2 step stands at a level between two sigmas; its two variants store it at different places.
        sigmas, index = scheduler.sigmas_interpol, index - ("Ancestral" in type(scheduler).__name__)
    return _from_sigma(scheduler, kind, float(sigmas[index]))


def affine(scheduler, t, sample: Tensor | None = None) -> tuple[float, float]:
    """(p, q) of the clean estimate `x0 = p * x_t + q * model_output` at timestep t, whatever is predicted and however noise is written.

    Numbers that hold for the whole batch (`sample` is not needed by any scheduler known so far). UserError for an unknown scheduler.
    """
    a, b = levels(scheduler, t)
    if family(scheduler) == EDM:
        one, zero, sigma = torch.tensor([1., 0., b], dtype=torch.float64)
        return float(scheduler.precondition_outputs(one, zero, sigma)), float(scheduler.precondition_outputs(zero, one, sigma))
    return closed_form(prediction_type(scheduler), a, b)


def clean_estimate(scheduler, t, sample: Tensor, output: Tensor) -> Tensor:
    """The scheduler's own estimate of x0, with the clipping or thresholding that its configuration asks for."""
    p, q = affine(scheduler, t, sample)
    clean = p * sample + q * output
    if getattr(scheduler.config, "thresholding", False):
        return scheduler._threshold_sample(clean)
    if getattr(scheduler.config, "clip_sample", False):
        return clean.clamp(-scheduler.config.clip_sample_range, scheduler.config.clip_sample_range)
    return clean


def position(scheduler, t) -> int:
    """Where t stands in `scheduler.timesteps`: the scheduler's own count where that agrees, else the first place that holds t."""
    timesteps = scheduler.timesteps
    for index in (getattr(scheduler, "step_index", None), getattr(scheduler, "begin_index", None)):
        if index is not None and index < len(timesteps) and float(timesteps[index]) == float(t):
            return index
    found = [index for index, other in enumerate(timesteps.tolist()) if other == float(t)]
    if not found:
        raise UserError(f"Timestep {float(t):g} is not one of the scheduler's; pass a value of scheduler.timesteps after set_timesteps.")
    # Schedulers themselves take the second of two equal timesteps, so as not to skip a sigma in the middle of a schedule.
    return found[1] if len(found) > 1 and hasattr(scheduler, "index_for_timestep") else found[0]


def responses(scheduler) -> list[float]:
    """How far x_{t-1} moves per unit of x0 at each timestep when noise and clean estimate move together: `a' - b' * a / b`.

    Exact for first-order steps. Where a step takes several denoiser calls (Heun, KDPM2, PNDM) all are counted alike, as 1.
    """
    pairs = noise_levels(scheduler)
    if hasattr(scheduler, "state_in_first_order") or len(set(scheduler.timesteps.tolist())) < len(scheduler.timesteps):
        return [1.] * len(scheduler.timesteps)
    if type(scheduler).__name__ in RENEWS_NOISE:
        return [after[0] for after in pairs[1:]]
    moved = [after[0] - after[1] * a / b if b else 1. for (a, b), after in pairwise(pairs)]
    return [max(response, 1e-3) for response in moved]


def _known(scheduler) -> str:
    kind = family(scheduler)
    if kind is None:
        raise UserError(f"Guidance does not know the scheduler {type(scheduler).__name__}; set pipeline.scheduler to DDIM, Euler, "
                        "DPM-Solver or another of those listed in guide/prediction.py.")
    return kind


def _from_sigma(scheduler, kind: str, sigma: float) -> tuple[float, float]:
    if kind == FLOW or (kind == PRESERVING and scheduler.config.get("use_flow_sigmas", False)):
        return 1 - sigma, sigma
    if kind == PRESERVING:
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    return 1., sigma
