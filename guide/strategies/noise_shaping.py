"""Guidance by the noise that a stochastic scheduler adds: its mean stays where it is, and so does the size of the noise."""
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from guide.strategies.gradient import Gradient, at_clean, heading, through_denoiser, told
from guide.strategies.strategy import Outcome, Step, per_image, rms
from probes.errors import UserError

MOST = math.pi / 2  # noise that is turned no further than at a right angle is all guidance


@dataclass(frozen=True)
class NoiseShaping(Gradient):
    """Base: turns the drawn noise toward a target of the same length by the angle that displaces x_{t-1} by what the strength allows.

    On a sphere of radius sigma a turn by phi moves by `2 sin(phi / 2) sigma`; where sigma is too small for what is due, the noise is
    turned by a right angle and the rest is left to the steps after it. `through`: whether the gradient goes through the denoiser.
    """

    through: bool = True

    def steer(self, step: Step, due: Tensor) -> Outcome:
        sigma = step.noise_scale()
        if not sigma:
            if step.index == step.count - 1:  # the last step of every sampler adds no noise
                return Outcome()
            raise UserError(f"{type(self).__name__} shapes the noise of a step and this scheduler adds none; use a stochastic one: "
                            "DDIM with eta above 0, DDPM or Euler ancestral.")
        ascent = through_denoiser(step)[0] if self.through else at_clean(step)
        target = self.target(heading(ascent))
        angle = 2 * torch.asin((due / (2 * sigma)).clamp(0, math.sin(MOST / 2)))
        angle = torch.where(ascent.usable & (rms(target) > 0), angle, 0.)

        def shape(noise: Tensor) -> Tensor:
            return turned(noise, target.to(noise), angle.to(noise))

        moved = 2 * sigma * (angle / 2).sin()
        left = torch.where(ascent.usable, due - moved, 0.).clamp_min(0)
        return Outcome(carried=left, noise=shape, row=told(step, ascent, moved) | {"angle": angle.tolist()})

    @abstractmethod
    def target(self, unit: Tensor) -> Tensor:
        """What the noise is turned toward, of RMS 1, given the way down the loss at RMS 1."""


def turned(noise: Tensor, target: Tensor, angle: Tensor) -> Tensor:
    """Noise (n, ...) turned by `angle` (n,) radians in the plane of itself and `target`, its length kept."""
    flat, toward = noise.flatten(1), target.flatten(1)
    length = flat.norm(dim=1, keepdim=True)
    unit = flat / length
    across = toward - (toward * unit).sum(1, keepdim=True) * unit
    size = across.norm(dim=1, keepdim=True)
    across = torch.where(size > 0, across / torch.where(size > 0, size, 1.), 0.)
    out = length * (angle.cos()[:, None] * unit + angle.sin()[:, None] * across)
    # An image that is not steered keeps its noise bit for bit.
    return torch.where(per_image(angle != 0, noise), out.view_as(noise), noise)


@dataclass(frozen=True)
class DSG(NoiseShaping):
    """Guidance with spherical Gaussian constraint (Yang et al., arXiv:2402.03201): the noise moves toward the steepest
    descent on its own sphere. The paper mixes by a rate and renormalises; here the angle follows from the strength."""

    def target(self, unit: Tensor) -> Tensor:
        return unit


@dataclass(frozen=True)
class NTRK(NoiseShaping):
    """Whitened reward noise, experimental (after NoiseTilt, arXiv:2606.18066, unverified, of which no public code is known; derived here).

    Derivation: x_{t-1} stays a plausible sample if the noise stays Gaussian white noise. The gradient is made so by replacing its values by
    the normal quantiles of their ranks (its histogram is then exactly Gaussian) and its Fourier magnitudes by their mean (its spectrum is
    then flat), in turn, `passes` times; phase and order, where the gradient's content lies, stay. `sqrt(rho) W + sqrt(1 - rho) eps` is the
    turn by `asin(sqrt(rho))`, since W and eps are nearly orthogonal. The paper's tile statistics are not reproduced.
    """

    passes: int = 10

    def target(self, unit: Tensor) -> Tensor:
        return whitened(unit, self.passes)


def whitened(field: Tensor, passes: int = 10) -> Tensor:
    """A field (n, ..., h, w) with a Gaussian histogram per image and a nearly flat spectrum, in the phase of the original; 0 stays 0."""
    count = field[0].numel()
    ranks = (torch.arange(count, dtype=torch.float64, device=field.device) + .5) / count
    quantiles = torch.special.ndtri(ranks).to(field.dtype)
    quantiles = quantiles / quantiles.pow(2).mean().sqrt()
    out = field
    for _ in range(passes):
        if field.ndim == 4:  # packed latents (n, tokens, channels) have no picture's axes to be flat along
            spectrum = torch.fft.rfft2(out)
            out = torch.fft.irfft2(spectrum / spectrum.abs().clamp_min(1e-12), s=out.shape[-2:])
        order = out.flatten(1).argsort(dim=1)
        out = torch.empty_like(out).flatten(1).scatter(1, order, quantiles.expand(len(order), -1)).view_as(field)
    return torch.where(per_image(rms(field) > 0, field), out, 0.)
