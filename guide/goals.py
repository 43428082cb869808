"""Goals: what an objective weighs, keeps, limits and times beyond what a brief asks, and how that is written on the command line."""
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from probes.config import lookup
from probes.errors import UserError
from probes.paths import digest, typed

# How much a step of each measure's scale counts unless a weight is given. The small encoder reads subjects weakly, and collections as
# readily as origins: see its cards. Artifacts count only where they are weighed or limited. A period pulls until its span is reached, then
# not at all; 8 of 1, 2, 4 and 8 moved the referee's year most and left as many pictures their style (benchmarks/period.py).
WEIGHTS = {"style": 1., "period": 8., "content": .2, "scene": .5, "origin": .3, "artifacts": 0., "reference": 1., "toward": .2}
MEASURES = tuple(WEIGHTS)
BY = ("moments", "gram", "style", "embedding")
CONTENT = ("global", "spherical", "directional")
REACTIONS = ("off", "warn", "damp", "stop")
STRONGEST = 10_000  # far beyond what leaves a picture
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Goals:
    """`weights`: (measure, weight); `constraints`: (measure, `>=` or `<=`, bound in its unit); `schedules`: (measure, points of noise level
    and factor, see `probes.schedules`); `toward`: (words, weight), below 0 away from them; `references`: (picture, weight), compared
    `by` moments, gram, style or embedding; `region`: a picture, white where the objective acts; `content`: how the prompt is compared.
    """

    weights: tuple[tuple[str, float], ...] = ()
    constraints: tuple[tuple[str, str, float], ...] = ()
    schedules: tuple[tuple[str, Points], ...] = ()
    toward: tuple[tuple[str, float], ...] = ()
    references: tuple[tuple[str, float], ...] = ()
    by: str = "moments"
    region: str = ""
    content: str = "global"

    def __bool__(self) -> bool:
        return self != Goals()

    @property
    def asks(self) -> bool:
        """Whether there is something to steer by even where the brief asks nothing."""
        return bool(self.toward or self.references)

    def described(self) -> dict[str, object]:
        """What differs from the default, and the SHA-256 of each picture that is named, for a record."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        files = [*(path for path, _ in self.references), *([self.region] if self.region else [])]
        return told | ({"files": {path: _digest(path) for path in files}} if files else {})


def _digest(path: str) -> str:
    try:
        return digest(path)
    except OSError as error:
        raise UserError(f"The picture {path} cannot be read ({error.strerror or error}); name an image file.") from None


def parse(weight: Sequence[str] = (), keep: Sequence[str] = (), limit: Sequence[str] = (), schedule: Sequence[str] = (),
          toward: Sequence[str] = (), reference: Sequence[str] = (), reference_by: str = "moments", region: str = "",
          content: str = "global") -> Goals:
    """The goals that the command line's texts mean; UserError for the first that means nothing."""
    goals = Goals(
        tuple(pair for text in weight for pair in parse_weights(text)), tuple(parse_constraint(text) for text in (*keep, *limit)),
        tuple(entry for text in schedule for entry in parse_schedules(text)), tuple(parse_toward(text) for text in toward),
        tuple(parse_reference(text) for text in reference), _one_of(reference_by, BY, "way to compare references"),
        str(typed(region)) if region else "", _one_of(content, CONTENT, "way to compare content"))
    for what, names in (("weight", [name for name, _ in goals.weights]), ("schedule", [name for name, _ in goals.schedules]),
                        ("constraint", [f"{name}{side}" for name, side, _ in goals.constraints])):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"The {what} of {twice} is given twice; give it once.")
    if reference_by != "moments" and not goals.references:
        raise UserError("--reference-by says how references are compared, and there is none; add --reference PICTURE.")
    goals.described()  # a picture that is not there is found out here, before any work
    return goals


def parse_strength(text: str | None) -> float | str | None:
    """`auto`, or a number from 0 on; None where none is given."""
    if text is None or text.strip().lower() == "auto":
        return text and "auto"
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"The strength {text!r} is neither a number nor auto; give 0, 1 (a fifth of classifier-free guidance) or "
                        "more.") from None
    if not 0 <= value <= STRONGEST:
        raise UserError(f"A strength of {value:g} has no meaning; give 0, 1 (a fifth of classifier-free guidance) or more, up to "
                        f"{STRONGEST}.")
    return value


def check(steps: int | None, on_drift: str, watched: bool) -> None:
    """UserError for what can be seen to be wrong before anything is loaded."""
    if steps is not None and not 1 <= steps <= 1000:
        raise UserError(f"{steps} steps cannot be taken; choose from 1 to 1000.")
    _one_of(on_drift, REACTIONS, "reaction to drift")
    if on_drift != "warn" and not watched:
        raise UserError("--on-drift says what follows where something watched falls, and nothing is watched; add --watch referee.")


def measure(name: str) -> str:
    """The measure that a name means; UserError with the nearest where there is none."""
    return lookup({key: key for key in MEASURES}, name.strip(), "measure")


def parse_weights(text: str) -> list[tuple[str, float]]:
    """`style=1,period=.5` -> pairs."""
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(rf"([\w-]+)\s*=\s*({NUMBER})", part)
        if not match:
            raise UserError(f"The weight {part!r} is not written as style=1; several are style=1,period=.5.")
        value = float(match[2])
        if value < 0:
            raise UserError(f"The weight of {match[1]} is {value:g}; it has to be 0 (only watched) or more. --avoid and "
                            "--toward 'words:-1' push away.")
        pairs.append((measure(match[1]), value))
    if not pairs:
        raise UserError("The weights are empty; write them as style=1,period=.5.")
    return pairs


def parse_constraint(text: str) -> tuple[str, str, float]:
    """`content>=0.28` -> (content, >=, .28)."""
    match = re.fullmatch(rf"\s*([\w-]+)\s*(>=|<=|=>|=<|>|<|=|==)\s*({NUMBER})\s*", text)
    if not match or match[2] not in (">=", "<="):
        raise UserError(f"The constraint {text!r} is not written as content>=0.28 or artifacts<=0.2, in quotes, with a measure of "
                        f"{', '.join(MEASURES[:-1])}.")
    return measure(match[1]), match[2], float(match[3])


def parse_schedules(text: str) -> list[tuple[str, Points]]:
    """`style@0.9-0.3,content@1-0.5`: windows of noise levels; `style@1:0/.5:1/.2:0`: factors with straight lines between them."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, when = part.partition("@")
        points = [re.fullmatch(rf"({NUMBER}):({NUMBER})", point.strip()) for point in when.split("/")]
        window = re.fullmatch(r"(\d*\.?\d+)\s*-\s*(\d*\.?\d+)", when.strip())
        if window:
            found.append((measure(name), _window(float(window[1]), float(window[2]), part)))
        elif all(points) and points:
            found.append((measure(name), _points(tuple((float(p[1]), float(p[2])) for p in points), part)))
        else:
            raise UserError(f"The schedule {part!r} is not written as style@0.9-0.3 (from a noise level of 0.9 down to 0.3; 1 is nothing "
                            "but noise, 0 the picture) or style@1:0/0.5:1/0.2:0 (factors at noise levels).")
    if not found:
        raise UserError("The schedule is empty; write it as style@0.9-0.3.")
    return found


def _window(high: float, low: float, part: str) -> Points:
    if not 0 <= low < high <= 1:
        raise UserError(f"The schedule {part!r} runs from {high:g} to {low:g}; noise runs downward within 1 and 0: write style@0.9-0.3.")
    return (*(((high, 0.),) if high < 1 else ()), (high, 1.), (low, 1.), *(((low, 0.),) if low > 0 else ()))


def _points(points: Points, part: str) -> Points:
    levels = [level for level, _ in points]
    if any(not 0 <= level <= 1 for level in levels) or levels != sorted(levels, reverse=True):
        raise UserError(f"The schedule {part!r} has noise levels that do not run downward within 1 and 0; write style@1:0/0.5:1/0.2:0.")
    return points


def parse_toward(text: str) -> tuple[str, float]:
    """`warm light`, `warm light:2`, `people:-1` -> words and weight."""
    words, weight = _weighted(text)
    if not words:
        raise UserError(f"There are no words in {text!r}; write them as --toward 'warm light:2'.")
    if not weight:
        raise UserError(f"The words {words!r} have a weight of 0 and ask for nothing; leave them out, or give another.")
    return words, weight


def parse_reference(text: str) -> tuple[str, float]:
    """`painting.jpg`, `painting.jpg:.5` -> path and weight; a file whose name ends so is taken as it is."""
    path, weight = (text, 1.) if typed(text).is_file() else _weighted(text)
    if not weight > 0:
        raise UserError(f"The weight of the reference {path} is {weight:g}; it has to be above 0.")
    if not typed(path).is_file():
        raise UserError(f"There is no picture {path} to take the style from; name an image file, and its weight as painting.jpg:0.5.")
    return str(typed(path)), weight


def _weighted(text: str) -> tuple[str, float]:
    match = re.fullmatch(rf"(.*):\s*({NUMBER})\s*", text, re.DOTALL)
    return (match[1].strip(), float(match[2])) if match else (text.strip(), 1.)


def _one_of(name: str, known: Sequence[str], what: str) -> str:
    return lookup({key: key for key in known}, name, what)
