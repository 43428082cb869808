"""A picture as what is added to a photograph: Fourier coefficients in decorrelated colours (after lucid, doi:10.23915/distill.00007).

Descent on pixels draws noise first, as a network's gradient is loudest at the finest frequencies. Here a step moves all frequencies by
amounts that fall off as those of natural pictures do, and colours along their principal directions, so that large shapes come first.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probes import image

# Principal directions of colour in columns, each as long as half its deviation: brightness, yellow to blue, green to magenta. Measured on
# the logits of 440 paintings of 22 styles (guide split), each less its mean.
COLOURS = ((.58, .20, .05), (.56, -.02, -.10), (.52, -.20, .05))
EDGE = .004  # logits are taken between this and 1 - this: a white pixel can still be pushed
DECAY = 1.2  # amplitudes fall as frequency ** -DECAY; natural pictures have 1


class Canvas:
    """Pictures `(n, 3, h, w)` in [0, 1]: `base` at first, exactly, and what descent on `coefficients` adds.

    `coefficients` `(n, 3, h, w // 2 + 1, 2)`, zero at first, are real and imaginary parts in units in which a step of one size suits all.
    They count cycles per picture, so that a canvas can be carried over to a larger base.
    """

    def __init__(self, base: Tensor, coefficients: Tensor | None = None):
        self.base = image.check(base).detach().float()
        self.height, self.width = base.shape[-2:]
        self.colours = torch.tensor(COLOURS, device=base.device)
        self.scale = _amplitudes(self.height, self.width, base.device)
        self.logits = torch.logit(self.base.clamp(EDGE, 1 - EDGE))
        shape = (len(base), 3, self.height, self.width // 2 + 1, 2)
        started = torch.zeros(shape, device=base.device) if coefficients is None else coefficients.detach().clone()
        self.coefficients = started.requires_grad_()

    def __call__(self) -> Tensor:
        """The pictures, with gradient to the coefficients."""
        spectrum = torch.view_as_complex(self.coefficients) * self.scale
        added = torch.fft.irfft2(spectrum, s=(self.height, self.width), norm="forward")
        added = torch.einsum("ij,njhw->nihw", self.colours, added)
        # Less what the sigmoid loses at black and white: without a step the picture is the base, bit for bit.
        return (self.base + (torch.sigmoid(self.logits + added) - torch.sigmoid(self.logits))).clamp(0, 1)

    def on(self, base: Tensor) -> "Canvas":
        """The same additions to a larger base: its finer frequencies start at zero."""
        height, width = base.shape[-2:]
        larger = torch.zeros(len(base), 3, height, width // 2 + 1, 2, device=base.device)
        rows, columns = (self.height - 1) // 2, min(self.width // 2, width // 2)  # the highest frequency of an even size has no sign
        larger[:, :, :rows + 1, :columns] = self.coefficients.detach()[:, :, :rows + 1, :columns]
        if rows:
            larger[:, :, -rows:, :columns] = self.coefficients.detach()[:, :, -rows:, :columns]
        return Canvas(base, larger)


def noise(generators: Sequence[torch.Generator], height: int, width: int, contrast: float = .2) -> Canvas:
    """A canvas of one generator per picture: soft coloured clouds on grey, from which inversion starts."""
    canvas = Canvas(torch.full((len(generators), 3, height, width), .5))
    drawn = torch.stack([torch.randn(canvas.coefficients.shape[1:], generator=generator) for generator in generators])
    drawn[:, :, 0, 0] = 0
    return Canvas(canvas.base, contrast * drawn)


def _amplitudes(height: int, width: int, device: torch.device) -> Tensor:
    """`(h, w // 2 + 1)`: such that unit normal coefficients give logits a deviation near 1, whatever the size."""
    short = min(height, width)
    rows = torch.fft.fftfreq(height, device=device)[:, None] * short
    columns = torch.fft.rfftfreq(width, device=device)[None] * short
    frequency = torch.hypot(rows, columns).clamp_min(short / max(height, width))
    return frequency ** -DECAY / math.sqrt(2 * math.pi)
