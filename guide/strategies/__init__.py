"""Strategies by name, and the presets of them in configs/strategies."""
from dataclasses import dataclass, field, fields, replace
from typing import Any

from guide.strategies.clean_image import CleanImage
from guide.strategies.strategy import Outcome, Step, Strategy
from guide.strategies.unguided import Unguided
from probes.config import catalogue, lookup, nearest, offer
from probes.errors import UserError

__all__ = ["STRATEGIES", "CleanImage", "Outcome", "Preset", "Step", "Strategy", "Unguided", "load", "presets"]

STRATEGIES: dict[str, type[Strategy]] = {"unguided": Unguided, "clean-image": CleanImage}


@dataclass(frozen=True)
class Preset:
    """A file of configs/strategies: which strategy, what it does in a sentence, the strategy's fields where they differ from its own."""

    strategy: str
    about: str
    names: tuple[str, ...] = ()
    cost: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""


def presets() -> dict[str, Preset]:
    """The catalogue of presets by key."""
    return catalogue("strategies", Preset)


def load(name: str, **overrides: Any) -> Strategy:
    """The strategy of a preset; overrides that are None count as not given. UserError for an unknown name or field."""
    preset = lookup(presets(), name, "strategy")
    if preset.strategy not in STRATEGIES:
        raise UserError(f"configs/strategies/{preset.key}.toml names no strategy with {preset.strategy!r}"
                        f"{offer(list(STRATEGIES), complete=True)}.")
    cls = STRATEGIES[preset.strategy]
    settings = preset.settings | {key: value for key, value in overrides.items() if value is not None}
    known = [f.name for f in fields(cls)]
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"The strategy {preset.key!r} has no setting {key!r}{offer(nearest(key, known, 1) or known)}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"The setting {key!r} of the strategy {preset.key!r} must be a number, not {value!r}.")
    return replace(cls(), **settings)
