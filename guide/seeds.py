"""Random generators, one per image, so that image k depends on seed k alone and not on the batch it was made in."""
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from probes.errors import UserError


def generators(seeds: Sequence[int], device: str | torch.device = "cpu") -> list[torch.Generator]:
    """One generator per image. On the CPU (the default) the starting noise is the same on every machine; pipelines accept it on a GPU."""
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UserError(f"The seed {seed!r} is not a whole number from 0 to 2**63 - 1.")
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def view_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per image for the views of it: drawn from the seed too, yet another stream than the image's noise."""
    return generators([_digest(b"views", str(seed).encode()) for seed in seeds])


def step_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per image for the noise of a scheduler to which its pipeline hands none: yet another stream of the seed."""
    return generators([_digest(b"steps", str(seed).encode()) for seed in seeds])


def members(seed: int, n: int) -> list[int]:
    """Seeds of the n candidates or particles of one image: its own first, the others derived from it, so that they depend on it alone."""
    return [seed, *(_digest(b"member", f"{seed} {k}".encode()) for k in range(1, n))]


def resampling_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per image for the resampling among its particles."""
    return generators([_digest(b"resampling", str(seed).encode()) for seed in seeds])


def seeds_of(latents: Tensor, given: Sequence[int] | None = None) -> list[int]:
    """A seed per image of a run that begins from these latents (n, ...): the given ones, twice where a pipeline holds every image twice in
    its batch, for classifier-free guidance (DiT). With none given, from the bits of the latents: image k still depends on its own noise
    alone."""
    if given is None:
        return [_digest(b"latents", row.detach().float().cpu().numpy().tobytes()) for row in latents]
    n = len(given)
    if len(latents) == 2 * n and torch.equal(latents[:n], latents[n:]):
        return [*given, *given]
    if len(latents) != n:
        raise UserError(f"{n} seeds were given for a batch of {len(latents)} images; give one seed per image.")
    return list(given)


def _digest(purpose: bytes, content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(purpose + b"\0" + content).digest()[:8], "big") >> 1
