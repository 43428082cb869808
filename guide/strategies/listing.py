"""What `guide strategies` prints of the presets, with what they cost as `python -m benchmarks.costs --write` measured it."""
import json
from pathlib import Path
from typing import Any

from guide.strategies import Preset, presets

COLUMNS = ("strategy", "what it does", "paper", "needs", "cost per image relative to unguided")
MEASURED = Path(__file__).with_name("costs.json")


def needs(preset: Preset) -> str:
    """What a preset asks of pipeline and scheduler, in words."""
    asked = [f"gradient through {preset.gradient}"] if preset.gradient else []
    asked += ["a scheduler that adds noise"] if preset.stochastic else []
    asked += ["a single-step scheduler"] if preset.single_step else []
    asked += ["a model of 1 to 4 steps"] if preset.loop == "reno" else []
    return ", ".join(asked) or "nothing"


def measured() -> dict[str, Any]:
    """`ratios` by preset, and of what: `date`, `machine`, `model`; empty where nothing was measured."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}


def cost(preset: Preset) -> str:
    """The measured multiple, and in words what it is made of."""
    ratio = measured().get("ratios", {}).get(preset.key)
    number = "not measured" if ratio is None else f"{ratio:.3g} times"
    return number if preset.cost == "none" else f"{number}: {preset.cost}"


def listing() -> list[tuple[str, ...]]:
    """A row per preset, in the order of COLUMNS."""
    return [(key, preset.about, preset.paper or "none", needs(preset), cost(preset)) for key, preset in presets().items()]


def source() -> str:
    """On what the costs were measured, in a sentence."""
    told = measured()
    if not told:
        return "Costs were not measured: python -m benchmarks.costs --write, in a checkout."
    return (f"Costs: processor time of a picture against the unguided one's, measured {told['date']} on {told['machine']}, with the model "
            f"{told['model']} (reno: 1 step). They are other ones on other models: `guide plan` predicts.")
