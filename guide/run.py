"""`guide generate`: the same seeds unguided and guided, images as they finish, then what the probes and the verdict say of them."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from guide.brief import Brief
from probes.objective import Objective


@dataclass(frozen=True)
class Settings:
    """What a pipeline is called with; `guidance_scale` is the classifier-free one, sizes are pixels."""
    steps: int
    guidance_scale: float
    width: int
    height: int


@dataclass(frozen=True)
class Request:
    """What one run of `guide generate` was asked for. None: the model's own value (configs/models)."""
    brief: Brief
    out: Path
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    model: str = "embedded"
    strategy: str = "clean-image"
    strength: float | None = None
    steps: int | None = None
    size: tuple[int, int] | None = None
    guidance_scale: float | None = None
    encoder: str = "embedded"
    judge: str = "verdict"
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 4
    command: str = ""


def sample(pipeline, brief: Brief, seeds: Sequence[int], strategy, objective: Objective, settings: Settings,
           on_step: Callable[[], None] | None = None) -> tuple[Tensor, list[dict], dict]:
    """One batch of images of one brief -> images (n, 3, h, w) in [0, 1], the trace per step, costs."""
    raise NotImplementedError
