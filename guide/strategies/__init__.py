"""Strategies by name, and the presets of them in configs/strategies."""
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from guide.loops import LOOPS, find
from guide.strategies.clean_image import CleanImage
from guide.strategies.noise_shaping import DSG, NTRK
from guide.strategies.prompt_only import APG, CFG, Interval
from guide.strategies.strategy import Outcome, Step, Strategy
from guide.strategies.tfg import DPS, MPGD, TFG, FreeDoM
from guide.strategies.unguided import Unguided
from guide.strategies.universal import Universal
from probes.config import catalogue, lookup, nearest, offer
from probes.errors import UserError

__all__ = ["APG", "CFG", "DPS", "DSG", "MPGD", "NTRK", "STRATEGIES", "TFG", "CleanImage", "FreeDoM", "Interval", "Outcome", "Preset",
           "Step", "Strategy", "Unguided", "Universal", "load", "presets"]

STRATEGIES: dict[str, type[Strategy]] = {
    "unguided": Unguided, "clean-image": CleanImage, "mpgd": MPGD, "dps": DPS, "freedom": FreeDoM, "universal": Universal, "tfg": TFG,
    "dsg": DSG, "ntrk": NTRK, "cfg": CFG, "apg": APG, "interval": Interval}


@dataclass(frozen=True)
class Preset:
    """A file of configs/strategies: which strategy, what it does in a sentence, the strategy's fields where they differ from its own.

    `loop`: the whole-run method of guide/loops that goes around it, and which the settings then belong to; `paper`: its source,
    "unverified" where that was not read; `gradient`: through what it is taken; `stochastic`: it needs a scheduler that adds noise;
    `single_step`: it repeats steps, which a multistep scheduler does not allow. `unit`: what its strength is counted in, so that a model's
    default can be turned into one: "guidance", where all agree; "guidance scale", of the prompt; "own", as its settings have it.
    """

    strategy: str
    about: str
    loop: str = ""
    names: tuple[str, ...] = ()
    paper: str = ""
    gradient: Literal["", "decoder", "denoiser and decoder"] = ""
    stochastic: bool = False
    single_step: bool = False
    cost: str = ""
    unit: Literal["guidance", "guidance scale", "own"] = "guidance"
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def sampler(self) -> str:
        """What kind of sampler it cannot do without, as `guide.samplers` names them."""
        return "stochastic" if self.stochastic else "single-step" if self.single_step else ""


def presets() -> dict[str, Preset]:
    """The catalogue of presets by key."""
    return catalogue("strategies", Preset)


def load(name: str, **overrides: Any) -> Strategy:
    """The strategy of a preset; overrides that are None count as not given. UserError for an unknown name or field."""
    preset = lookup(presets(), name, "strategy")
    kind, known = ("loop", LOOPS) if preset.loop else ("strategy", STRATEGIES)
    if getattr(preset, kind) not in known:
        raise UserError(f"configs/strategies/{preset.key}.toml names no {kind} with {getattr(preset, kind)!r}"
                        f"{offer(list(known), complete=True)}.")
    cls = find(preset.loop) if preset.loop else STRATEGIES[preset.strategy]
    settings = preset.settings | {key: value for key, value in overrides.items() if value is not None}
    defaults = {f.name: f.default for f in fields(cls)}
    for key, value in settings.items():
        if key not in defaults:
            known = nearest(key, list(defaults), 1) or list(defaults)
            raise UserError(f"The strategy {preset.key!r} has no setting {key!r}{offer(known)}.")
        kinds, word = (str, "text") if isinstance(defaults[key], str) else (int | float, "a number")
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UserError(f"The setting {key!r} of the strategy {preset.key!r} must be {word}, not {value!r}.")
    return cls(**settings)
