"""What guidance does when memory runs out: one rung of a ladder after the other, each announced, and the step taken again."""
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guide.decoding import Decoder
from probes.errors import UserError

TOLD = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device: CUDA, MPS, or the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in TOLD)


class Ladder:
    """The rungs in their order, each tried for as long as it helps:

    1. fewer images, then fewer crops, through the objective at once; 2. the decoder one image at a time, its activations computed again in
    the backward pass; 3. the tiny decoder of `spare()`, where there is one; 4. clean-image space in place of a gradient through the
    denoiser. Every rung gives the same gradient as before it but for rounding, except the last two. `tell` gets a sentence for each.
    """

    def __init__(self, decoder: Decoder, objective: Any, spare: Callable[[], nn.Module | None] | None, tell: Callable[[str], None]):
        self.decoder, self.spare, self.tell = decoder, spare, tell
        self.images = 0  # through the objective at once, 0: all
        self.divides = not getattr(objective, "constraints", None)  # multipliers are one per image of the whole batch
        self.encoders = list({id(term.measure.encoder): term.measure.encoder for term in getattr(objective, "terms", ())}.values())

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Encoders are shared with other runs: afterwards they take as many crops at once as before."""
        before = [encoder.per_pass for encoder in self.encoders]
        try:
            yield
        finally:
            for encoder, count in zip(self.encoders, before, strict=True):
                encoder.per_pass = count

    def slopes(self, objective: Any, pixels: Tensor, generators: Sequence[torch.Generator]) -> tuple[Any, Tensor]:
        """The objective's values of images (n, 3, h, w), and the gradient of its loss to them; as many images at a time as memory takes."""
        step = self.images or len(pixels)
        parts, slopes = [], []
        for i in range(0, len(pixels), step):
            part = pixels[i:i + step].detach().requires_grad_()
            values = objective(part, generators[i:i + step])
            if values.loss.shape != part.shape[:1] or not values.loss.requires_grad:
                raise UserError("The objective has to return one loss per image that depends on the images; "
                                f"it returned a tensor of shape {tuple(values.loss.shape)}"
                                f"{'' if values.loss.requires_grad else ' without gradient'}.")
            slopes += torch.autograd.grad(values.loss.sum(), part)
            parts.append(values)
        if len(parts) == 1:
            return parts[0], slopes[0]
        return _Joined(parts), torch.cat(slopes)

    def climb(self, n: int, through_denoiser: bool) -> str:
        """Takes the next rung for a batch of `n` and returns its name; "" where none is left, "clean-image space" where the strategy has to
        change."""
        images = self.images or n
        views = [encoder for encoder in self.encoders if encoder.per_pass != 1]
        if images > 1 and self.divides:
            self.images = images // 2
            return self._told("crops", f"the objective sees {self.images} of {n} images at a time")
        if views:
            for encoder in views:
                encoder.per_pass = max(1, (encoder.per_pass or 16) // 2)
            return self._told("crops", f"the encoder takes {max(encoder.per_pass for encoder in views)} crops at a time")
        if not self.decoder.frugal and self.decoder.vae is not None:
            self.decoder.frugal = True
            return self._told("checkpointed decoder", "the decoder takes one image at a time and computes its activations again")
        if self.decoder.tiny is None and self.spare is not None:
            spare, self.spare = self.spare, None
            try:
                self.decoder.tiny = spare()
            except UserError as error:
                self._told("", f"the tiny decoder cannot be had ({error})")
            if self.decoder.tiny is not None:
                return self._told("tiny decoder", "guidance decodes with the tiny decoder, and no longer with the pipeline's own")
        if through_denoiser:
            return self._told("clean-image space", "the gradient is taken in clean-image space, and no longer through the denoiser")
        return ""

    def _told(self, rung: str, what: str) -> str:
        self.tell(f"Memory ran out in a guided step: from here on {what}.")
        return rung


class _Joined:
    """Values of several parts of a batch as those of one."""

    def __init__(self, parts: Sequence[Any]):
        self.loss = torch.cat([part.loss.detach() for part in parts])
        self.terms = {name: torch.cat([part.terms[name].detach() for part in parts]) for name in parts[0].terms}
        goals = [part.goal for part in parts if getattr(part, "goal", None) is not None]
        self.violations, self.goal = {}, torch.cat(goals) if len(goals) == len(parts) else None


def free() -> None:
    """Gives back what a step that failed has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
