"""What a scheduler's step needs and its pipeline does not give it: a generator per image, and an eta whose step is a number."""
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from guide.noise import steadied
from guide.seeds import step_generators


class Supply:
    """Of one run of a pipeline: `supply(arguments)` completes those of a `scheduler.step`, beginning with the first.

    Pipelines of flow matching (FLUX.1, SD3, Qwen-Image, Z-Image) hand no generator on, so that a scheduler that adds noise would draw it
    from torch's global state for the whole batch; with `seeds` it draws from a generator per image. `tell` gets a sentence where eta
    changes.
    """

    def __init__(self, scheduler, signature: inspect.Signature, arguments: dict[str, Any], seeds: Sequence[int],
                 tell: Callable[[str], None]):
        self.generators = step_generators(seeds) if "generator" in signature.parameters else []
        self.asked = arguments.get("eta")
        self.eta = steadied(scheduler, self.asked)
        if self.eta != self.asked:
            tell(f"DDIM's eta is a millionth less than {self.asked:g}: its first step would be no number for rounding.")
        self(arguments)

    def __call__(self, arguments: dict[str, Any]) -> None:
        if self.generators and arguments.get("generator") is None:
            arguments["generator"] = self.generators
        if self.eta != self.asked:
            arguments["eta"] = self.eta
