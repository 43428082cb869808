"""Whole-run methods: loops around whole runs of a pipeline, or over its batch, by the same objective that the strategies descend."""
from importlib import import_module

# Where each is: they need guide.guided, which needs guide.strategies, whose presets name them.
LOOPS = {
    "best-of": "guide.loops.best_of:BestOf",
    "fk": "guide.loops.particles:FK",
    "das": "guide.loops.particles:DAS",
    "reno": "guide.loops.noise:ReNO",
}


def find(name: str) -> type:
    """The class of a loop by its key in LOOPS."""
    module, attribute = LOOPS[name].split(":")
    return getattr(import_module(module), attribute)
