"""What `guide transfer` was asked for, read from the command line's words."""
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guide.brief import Brief
from guide.transfer.content import NAMES, SCALES
from guide.transfer.statistics import KINDS
from probes import image
from probes.config import lookup, offer
from probes.errors import UserError
from probes.paths import typed
from probes.provenance import parameters

ENGINES = ("pixels", "diffusion")
FILMS = ("", "gif", "mp4")
KEEP = (("structure", .2),)
SIDE = 512  # pixels of the longer side, where no size is asked for
LARGEST = 8192


@dataclass(frozen=True)
class Request:
    """`inputs`: photographs; `references`: pictures and weights; `keep`: the largest distance allowed, by name; `size`: pixels of the
    longer side, None for the photograph's own up to SIDE. `strength`: of the style, 0 the photograph, 1 the target's own brushwork.
    """

    brief: Brief
    out: Path
    inputs: tuple[str, ...]
    references: tuple[tuple[str, float], ...] = ()
    keep: tuple[tuple[str, float], ...] = KEEP
    engine: str = "pixels"
    strength: float | None = None
    steps: int | None = None
    seeds: tuple[int, ...] = (0,)
    size: int | None = None
    preserve_color: bool = False
    region: str = ""
    statistics: str = "moments"
    video: bool = False
    film: str = ""
    model: str = "embedded"
    invert: bool = False
    guidance: float | None = None
    encoder: str = "embedded"
    judge: str = "verdict"
    device: str = "auto"
    dtype: str = "auto"
    command: str = ""

    def __post_init__(self):
        if not (self.brief.styles or self.brief.prompt or self.brief.period or self.references):
            raise UserError("Nothing is asked for; name a --style, a --reference picture, a --period or a --prompt.")
        if self.strength is not None and not 0 <= self.strength <= 2:
            raise UserError(f"A strength of {self.strength:g} cannot be used; choose from 0 (the photograph) over 1 to 2 (exaggerated).")
        if self.guidance is not None and not 0 <= self.guidance <= 10_000:
            raise UserError(f"A guidance of {self.guidance:g} cannot be used; choose 0 (plain image to image) or more.")
        if self.steps is not None and not 1 <= self.steps <= 5000:
            raise UserError(f"{self.steps} steps cannot be taken; choose from 1 to 5000.")
        if self.size is not None and not 32 <= self.size <= LARGEST:
            raise UserError(f"A longer side of {self.size} pixels cannot be made; choose from 32 to {LARGEST}.")
        diffusing = {"--invert": self.invert, "--guidance": self.guidance is not None, "--dtype": self.dtype != "auto"}
        if self.engine == "pixels" and any(diffusing.values()):
            option = next(name for name, given in diffusing.items() if given)
            raise UserError(f"{option} belongs to diffusion; add --engine diffusion, or leave it out.")
        if shut := [name for name, bound in self.keep if bound <= 0 and name != "artifacts"]:
            raise UserError(f"Only the photograph itself keeps {shut[0]} <= 0; allow more, in steps of about {SCALES[shut[0]]:g}, or leave "
                            "the bound out.")
        if self.statistics == "gram" and (self.brief.styles or not self.references):
            raise UserError("Gram matrices are of references alone, typical paintings have moments; name --reference and no --style, or "
                            "take --statistics moments.")
        for value, known, what in ((self.engine, ENGINES, "engine"), (self.statistics, KINDS, "statistics"), (self.film, FILMS, "film")):
            if value not in known:
                raise UserError(f"There is no {what} {value!r}{offer([name for name in known if name], complete=True)}.")


def parse_references(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`a.jpg` or `a.jpg:2` -> paths and weights that sum to 1; a colon that belongs to the path stays where such a file is."""
    found = []
    for text in texts:
        path, _, weight = text.rpartition(":")
        if not path or typed(text).is_file() or not re.fullmatch(r"\d*\.?\d+(e[+-]?\d+)?|\d+\.", weight):
            path, weight = text, "1"
        if not 0 < float(weight) < float("inf"):
            raise UserError(f"The weight of reference {path!r} is {weight}; it has to be above 0; leave out what should not count.")
        if text.count(":") and not typed(path).is_file() and typed(text.rpartition(":")[0]).is_file():
            raise UserError(f"The weight {text.rpartition(':')[2]!r} of a reference is no number above 0; write it as "
                            f"{text.rpartition(':')[0]}:2, or leave it out.")
        if not typed(path).is_file():
            raise UserError(f"There is no reference picture {path}; name a file.")
        found.append((str(typed(path)), float(weight)))
    total = sum(weight for _, weight in found)
    return tuple((path, weight / total) for path, weight in found)


def parse_keep(texts: Sequence[str], *, name: str = "keep") -> tuple[tuple[str, float], ...]:
    """`structure<=.2` (also written `structure=.2`) -> distances and the largest value allowed; `none` for no constraint at all."""
    found: dict[str, float] = {}
    example = "artifacts<=0.1" if name == "limit" else "structure<=0.2"
    if [text.strip().lower() for text in texts] == ["none"]:
        return ()
    for text in (part.strip() for entry in texts for part in entry.split(",")):
        match = re.fullmatch(r"([a-z-]+)\s*(?:<=|<|=|:)\s*(\d*\.?\d+)", text, re.IGNORECASE)
        if not match:
            raise UserError(f"--{name} {text!r} is not a distance and its largest value; write it as --{name} \"{example}\"; "
                            f"there are {', '.join(NAMES)}.")
        key = lookup({known: known for known in NAMES}, match[1], "distance")
        if key in found:
            raise UserError(f"The distance {key!r} is bounded twice; name it once.")
        if float(match[2]) > (2 if key in ("structure", "content") else 1):
            raise UserError(f"A {key} distance cannot be as large as {match[2]}; choose less, in steps of about {SCALES[key]:g}.")
        found[key] = float(match[2])
    return tuple(found.items())


def inputs(texts: Sequence[str], out: Path | None = None) -> tuple[str, ...]:
    """Files, folders and patterns -> files, each once, in natural order within each. What a run wrote into its folder `out` is none of
    its inputs, unless it is named itself."""
    found = [(text, file) for text in texts for file in image.find(text)]
    if out:
        own = typed(out).resolve()
        found = [(text, file) for text, file in found if typed(text) == file or file.resolve().parent != own or not _written(file)]
    return tuple(dict.fromkeys(str(file) for _, file in found))


def _written(file: Path) -> bool:
    """Whether a run wrote it: its sheet, a picture that says so, or the film beside such a one."""
    if file.name == "sheet.png":
        return file.with_name("record.json").is_file()
    picture = file.with_suffix(".png")
    return file.name.startswith("seed-") and picture.is_file() and bool(parameters(picture))


def bounds(keep: Sequence[str] | None, limit: Sequence[str] | None) -> tuple[tuple[str, float], ...]:
    """What --keep and --limit allow together; KEEP where nothing is said."""
    kept = dict(parse_keep(keep) if keep else KEEP)
    return tuple((kept | dict(parse_keep(limit, name="limit") if limit else ())).items())


def slug(brief: Brief, files: Sequence[str]) -> str:
    """A folder name: `ukiyo-e-photo`."""
    words = [key for key, _ in brief.styles] + re.findall(r"[a-z0-9]+", brief.prompt.lower())[:6] + [Path(files[0]).stem[:30]]
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in "-".join(words))[:80]
