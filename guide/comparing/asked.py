"""What `guide compare` was asked for, and what it comes to: settings of the pipeline, cells of the experiment, arms of a strategy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

from guide import pipelines
from guide.brief import Brief, parse_styles, per_prompt
from guide.run import Request, Settings
from guide.strategies import Preset, presets
from probes.config import lookup, styles
from probes.errors import UserError

SOURCES = ("prompt", "guidance", "both")
SWEEP = {"guidance": (0.5, 1.0, 2.0), "guidance scale": (1.0, 2.0), "own": (1.0,)}  # of the model's default, or the preset's
PROMPT_ONLY = {"cfg": (0.5, 1.5, 2.5), "apg": (1.0, 2.0), "interval": (1.0, 2.0)}  # and their sweeps
CHOICE_FROM = 1000  # the first seed on which strengths are chosen, where none is named


@dataclass(frozen=True)
class Asked:
    """A comparison as resolved from the command line. Where a tuple may be empty, empty means the model's or the project's own choice.

    `styles`: each a style or a mixture (`baroque:.7+ukiyo-e:.3`); `strengths`: `5,10,20`, or with a strategy before it `cfg=2,8`;
    `choice_seeds`: None for as many as half of `seeds`, from 1000 on; `style_from`: of SOURCES; `budget`: "", `seconds`, `calls`, or with
    an amount a picture `seconds:8`; `best_of`: numbers of candidates, empty for those at equal seconds; `crossed`: so many of each
    style's own prompts, each at every seed, 0 to go round them as `guide generate` does; `steered_by`: the encoder that steered, where
    another one reads the pictures anew.
    """

    out: Path
    styles: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    choice_seeds: tuple[int, ...] | None = None
    strengths: tuple[str, ...] = ()
    style_from: tuple[str, ...] = SOURCES
    budget: str = ""
    best_of: tuple[int, ...] = ()
    prompt_only: bool = True
    crossed: int = 0
    prompt: str = ""
    avoid: tuple[str, ...] = ()
    period: tuple[int, int] | None = None
    models: tuple[str, ...] = ("embedded",)
    steps: tuple[int, ...] = ()
    guidance_scales: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    encoder: str = "embedded"
    judges: tuple[str, ...] = ("verdict", "referee")
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 4
    suite: str = ""
    command: str = ""
    steered_by: str = ""

    def __post_init__(self):
        for name, values in (("style", self.styles), ("seed", self.seeds), ("strategy", self.strategies), ("judge", self.judges)):
            if not values:
                raise UserError(f"No {name} is named; a comparison needs at least one.")
        if not self.style_from or set(self.style_from) - set(SOURCES):
            raise UserError(f"The style can come from {', '.join(SOURCES)}, not from {', '.join(self.style_from) or 'nowhere'}.")
        if not 1 <= self.batch <= 256:
            raise UserError(f"{self.batch} pictures at a time cannot be made; choose from 1 to 256.")
        if not 0 <= self.crossed <= 100:
            raise UserError(f"{self.crossed} prompts of each style cannot be taken; choose from 0 (go round them) to 100.")
        if bad := [n for n in self.best_of if not 2 <= n <= 256]:
            raise UserError(f"Best of {bad[0]} is no choice; give numbers of candidates from 2 to 256.")
        if both := set(self.seeds) & set(self.choice_seeds or ()):
            raise UserError(f"The seed {min(both)} would choose the strengths and report them too; keep the two sets of seeds apart.")

    def choosing(self) -> tuple[int, ...]:
        """The seeds on which the strengths are chosen; none where the referee, who chooses, is not asked."""
        if self.choice_seeds is not None:
            return self.choice_seeds
        if "referee" not in self.judges:
            return ()
        free = (seed for seed in range(CHOICE_FROM, CHOICE_FROM + 2 * len(self.seeds) + 8) if seed not in self.seeds)
        return tuple(next(free) for _ in range(max(2, (len(self.seeds) + 1) // 2)))

    def settings(self) -> "list[Setting]":
        """Every model with every number of steps and guidance scale."""
        found = []
        for model in self.models:
            for steps in self.steps or (None,):
                for scale in self.guidance_scales or (None,):
                    one = Request(Brief(), self.out, model=model, steps=steps, guidance_scale=scale, size=self.size).settings()
                    found.append(Setting(model, one))
        return list(dict.fromkeys(found))

    def words(self) -> tuple[bool, ...]:
        """Whether the prompt names the style: True, False or both."""
        named = {"prompt": True, "both": True, "guidance": False}
        return tuple(dict.fromkeys(named[source] for source in self.style_from))


@dataclass(frozen=True)
class Setting:
    """A model and what its pipeline is called with."""

    model: str
    settings: Settings

    def said(self) -> str:
        """`embedded, 25 steps, CFG 4`."""
        return f"{self.model}, {self.settings.steps} steps, CFG {self.settings.guidance_scale:g}"

    def slug(self) -> str:
        model = re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")[-32:]
        return f"{model}-{self.settings.steps}-{self.settings.guidance_scale:g}"


@dataclass(frozen=True)
class Arm:
    """One way to make a picture. `strength` is the strategy's own measure; `sampler`: "" the pipeline's, "stochastic" or "single-step";
    `candidates` are made for each seed, of which the guide keeps one; `steps` 0 are the setting's."""

    strategy: str
    strength: float = 0.0
    sampler: str = ""
    candidates: int = 1
    steps: int = 0

    @property
    def label(self) -> str:
        """`clean-image 10`, `best of 6`, `dps 10, best of 2, 31 steps`, `unguided, stochastic`."""
        if self.strategy == "best-of":
            parts = [f"best of {self.candidates}"]
        else:
            parts = [f"{self.strategy} {self.strength:g}" if self.strength and self.strategy != "unguided" else self.strategy]
            parts += [f"best of {self.candidates}"] if self.candidates > 1 else []
        parts += [self.sampler] if self.sampler and self.strategy == "unguided" else []
        return ", ".join([*parts, *([f"{self.steps} steps"] if self.steps else [])])

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower())

    @property
    def kind(self) -> tuple[str, str]:
        """What its cost depends on."""
        return self.strategy, self.sampler

    def baseline(self) -> "Arm":
        """The plain pipeline on the same sampler, at the setting's own steps."""
        return Arm("unguided", sampler=self.sampler)


@dataclass(frozen=True)
class Cell:
    """Pictures of one style under one wording: `spec` as typed, `named` whether the prompt names it, `number` of a crossed prompt."""

    spec: str
    brief: Brief
    setting: Setting
    number: int | None = None
    groups: tuple[tuple[Brief, tuple[int, ...]], ...] = field(default=(), repr=False)

    @property
    def named(self) -> bool:
        return self.brief.name_style

    @property
    def style(self) -> str:
        """`baroque`, or a mixture as `baroque 0.7 + ukiyo-e 0.3`."""
        parts = self.brief.styles
        return parts[0][0] if len(parts) == 1 else " + ".join(f"{key} {weight:g}" for key, weight in parts)

    @property
    def folder(self) -> str:
        style = re.sub(r"[^a-z0-9.]+", "-", self.style.lower()).strip("-")
        parts = [
            style,
            "" if self.named else "by-guidance-alone",
            "" if self.number is None else f"prompt-{self.number}",
            self.setting.slug(),
        ]
        return "_".join(filter(None, parts))

    def per_prompt(self, seeds: Sequence[int]) -> list[tuple[Brief, tuple[int, ...]]]:
        return [(self.brief, tuple(seeds))] if self.number is not None else per_prompt(self.brief, seeds)


def cells(asked: Asked, setting: Setting) -> list[Cell]:
    """Every style, named in the prompt or not, with its prompts."""
    found = []
    for spec in dict.fromkeys(asked.styles):
        mixture = parse_styles(spec.replace("+", ","))
        if len(mixture) == 1 and ":" in spec:
            raise UserError(f"The style {mixture[0][0]!r} is compared on its own, without weights; a mixture is baroque:.7+ukiyo-e:.3.")
        own = lookup(styles(), mixture[0][0], "style").prompts
        for named in asked.words():
            brief = Brief(asked.prompt, mixture, asked.avoid, asked.period, named)
            if asked.crossed and not asked.prompt:
                if asked.crossed > len(own):
                    raise UserError(f"The style {mixture[0][0]} has {len(own)} prompts of its own, not {asked.crossed}; ask for fewer.")
                found += [Cell(spec, replace(brief, prompt=own[k]), setting, k) for k in range(asked.crossed)]
            else:
                found.append(Cell(spec, brief, setting))
    return found


def field_of(asked: Asked, setting: Setting) -> list[Arm]:
    """The arms of a setting at one candidate each: the plain pipeline on every sampler that is used, then every strategy at its strengths.

    Best-of-N follows from what the others cost (guide/comparing/budget.py).
    """
    names = [lookup(presets(), name, "strategy").key for name in asked.strategies]
    extra = [name for name in PROMPT_ONLY if asked.prompt_only and True in asked.words() and setting.settings.guidance_scale > 1]
    wanted = dict.fromkeys([*(name for name in names if name not in ("unguided", "best-of")), *extra])
    if not wanted and "best-of" not in names:
        raise UserError("A comparison needs two different strategies; write them as --strategies unguided,clean-image.")
    given = _given(asked.strengths)
    if unknown := [name for name in given if name and name not in wanted]:
        raise UserError(f"Strengths are given for {unknown[0]}, which is not compared; name it in --strategies too.")
    found = [
        Arm(name, strength, sampler_of(preset))
        for name in wanted
        for preset in [presets()[name]]
        for strength in strengths(preset, setting, given.get(name, given.get("", ()) if preset.unit == "guidance" else ()))
    ]
    baselines = dict.fromkeys(arm.baseline() for arm in [Arm("unguided"), *found])
    return [*baselines, *found]


def sampler_of(preset: Preset) -> str:
    """What kind of sampler the strategy cannot do without."""
    return preset.sampler


def strengths(preset: Preset, setting: Setting, given: Sequence[float] = ()) -> tuple[float, ...]:
    """The strengths of a strategy: as given, or around what is the model's default for it."""
    own = float(preset.settings.get("strength", 1.0))
    default = {"guidance": pipelines.find(setting.model).strength, "guidance scale": setting.settings.guidance_scale, "own": own}[
        preset.unit
    ]
    if not given:
        given = [float(f"{share * default:.3g}") for share in PROMPT_ONLY.get(preset.key, SWEEP[preset.unit])]
    return tuple(dict.fromkeys(given))


def _given(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """`5,10,20` -> {"": ...}; `cfg=2,8` -> {"cfg": ...}."""
    found: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, _, values = text.rpartition("=")
        key = lookup(presets(), name.strip(), "strategy").key if name.strip() else ""
        try:
            numbers = tuple(float(value) for value in values.split(","))
        except ValueError:
            raise UserError(f"The strengths {text!r} are not numbers; write 5,10,20, or cfg=2,8 for one strategy.") from None
        if bad := [number for number in numbers if not (isfinite(number) and number > 0)]:
            raise UserError(f"A strength of {bad[0]:g} compares nothing; give numbers above 0.")
        found[key] = (*found.get(key, ()), *numbers)
    return found
