"""The plain pipeline, as a strategy: what every other one is compared with."""
from dataclasses import dataclass

from guide.strategies.strategy import Strategy


@dataclass(frozen=True)
class Unguided(Strategy):
    """Touches nothing and computes no gradient; the run's trace and costs are kept all the same."""

    strength: float = 0.

    def __post_init__(self):
        object.__setattr__(self, "strength", 0.)
