"""What `guide strategies` prints of the presets."""
from guide.strategies import Preset, presets

COLUMNS = ("strategy", "what it does", "paper", "needs", "cost above the plain pipeline")


def needs(preset: Preset) -> str:
    """What a preset asks of pipeline and scheduler, in words."""
    asked = [f"gradient through {preset.gradient}"] if preset.gradient else []
    asked += ["a scheduler that adds noise"] if preset.stochastic else []
    asked += ["a single-step scheduler"] if preset.single_step else []
    asked += ["a model of 1 to 4 steps"] if preset.loop == "reno" else []
    return ", ".join(asked) or "nothing"


def listing() -> list[tuple[str, ...]]:
    """A row per preset, in the order of COLUMNS."""
    return [(key, preset.about, preset.paper or "none", needs(preset), preset.cost) for key, preset in presets().items()]
