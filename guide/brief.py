"""What was asked for: a subject, styles with weights, styles to avoid, a period, a scene; and the words that ask a model for it."""
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import probes
from probes import genres
from probes.config import lookup, styles
from probes.errors import UserError

EARLIEST, LATEST = 1000, 2100


@dataclass(frozen=True)
class Brief:
    """`styles` are keys of configs/styles with weights that sum to 1; `period` is a span of years, both ends included.

    `scene` is one of `probes.genres.SCENES`; `origin` is person or model, as which the picture is to read. `name_style` False leaves
    style, period and genre out of the words, so that guidance alone has to bring them.
    """
    prompt: str = ""
    styles: tuple[tuple[str, float], ...] = ()
    avoid: tuple[str, ...] = ()
    period: tuple[int, int] | None = None
    name_style: bool = True
    scene: str = ""
    origin: str = ""

    def text(self) -> str:
        """The prompt, in a form that the embedded encoder was trained on: `baroque painting of lemons and a jug, 17th century`."""
        genre = genres.WORDS.get(self.scene, "") if self.name_style else ""
        if not (self.styles or self.period or genre) and self.prompt:
            return self.prompt
        kind = genre or "painting"
        if self.name_style and self.styles:
            head = " and ".join(_adjective(key) for key, _ in sorted(self.styles, key=lambda s: -s[1])) + f" {kind}"
        else:
            head = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        text = f"{head} of {self.prompt}" if self.prompt else head
        return f"{text}, {in_words(self.period)}" if self.name_style and self.period else text

    def negative(self) -> str:
        """The negative prompt: the avoided styles by name; empty where none is named."""
        return ", ".join(f"{_adjective(key)} painting" for key in self.avoid) if self.name_style else ""

    def slug(self) -> str:
        """A folder name: `baroque`, `baroque-ukiyo-e-lemons-and-a-jug`."""
        words = [key for key, _ in self.styles] + [self.scene] * bool(self.scene) + re.findall(r"[a-z0-9]+", self.prompt.lower())[:6]
        return "-".join(words)[:60].strip("-") or "painting"


def _adjective(key: str) -> str:
    return lookup(styles(), key, "style").adjective


def in_words(period: tuple[int, int]) -> str:
    """`painted in 1650` for one year, else the century of the span's middle."""
    low, high = period
    if low == high:
        return f"painted in {low}"
    century = ((low + high) // 2 - 1) // 100 + 1
    ending = "th" if 10 < century % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(century % 10, "th")
    return f"{century}{ending} century"


def per_prompt(brief: Brief, seeds: Sequence[int]) -> list[tuple[Brief, tuple[int, ...]]]:
    """The brief and its seeds; where it names neither subject nor scene, the first style's own prompts, cycled over the seeds by number."""
    prompts = lookup(styles(), brief.styles[0][0], "style").prompts if brief.styles and not brief.scene else ()
    if brief.prompt or not prompts:
        return [(brief, tuple(seeds))]
    groups = [(prompt, tuple(s for s in seeds if s % len(prompts) == i)) for i, prompt in enumerate(prompts)]
    return [(replace(brief, prompt=prompt), own) for prompt, own in groups if own]


def of_words(prompt: str, style: str, avoid: Sequence[str] | None, period: str, name_style: bool, scene: str = "",
             origin: str = "") -> Brief:
    """The brief of what was typed; "" and None for nothing. UserError where words are no text or contradict each other."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("The prompt is not text in UTF-8; type it again.") from None
    chosen, shunned = parse_styles(style) if style else (), parse_avoid(avoid or ())
    both = sorted({key for key, _ in chosen} & set(shunned))
    if both:
        raise UserError(f"The style {both[0]!r} is both asked for and avoided; leave it out of one of them.")
    return Brief(prompt.strip(), chosen, shunned, parse_period(period) if period else None, name_style,
                 parse_scene(scene) if scene else "", parse_origin(origin) if origin else "")


def parse_styles(text: str) -> tuple[tuple[str, float], ...]:
    """`baroque` or `baroque:.7,ukiyo-e:.3` -> keys with weights that sum to 1; parts without a weight count 1."""
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, weight = part.partition(":")
        try:
            value = float(weight) if weight else 1.
        except ValueError:
            raise UserError(f"The weight {weight.strip()!r} of style {name.strip()!r} is not a number; write it as baroque:.7.") from None
        if not 0 < value < float("inf"):
            raise UserError(f"The weight of style {name.strip()!r} is {weight.strip()}; it has to be above 0; --avoid pushes a style away.")
        key = lookup(styles(), name, "style").key
        if key in found:
            raise UserError(f"The style {key!r} is asked for twice; name it once, with the sum of its weights.")
        found[key] = value
    if not found:
        raise UserError(f"No style in {text!r}; write one as --style baroque, and `guide styles` lists them.")
    return tuple((key, value / sum(found.values())) for key, value in found.items())


def parse_avoid(texts: Sequence[str]) -> tuple[str, ...]:
    """`rococo,realism`, once or several times -> keys, each once."""
    names = (part.strip() for text in texts for part in text.split(","))
    return tuple(dict.fromkeys(lookup(styles(), name, "style").key for name in names if name))


def parse_period(text: str) -> tuple[int, int]:
    """`1650` -> (1650, 1650); `1600-1725` -> (1600, 1725)."""
    match = re.fullmatch(r"\s*(\d{3,4})\s*(?:[-\u2013]\s*(\d{3,4})\s*)?", text)
    if not match:
        raise UserError(f"The period {text!r} is neither a year nor a span of years; write 1650 or 1600-1725.")
    low, high = int(match[1]), int(match[2] or match[1])
    if not EARLIEST <= low <= high <= LATEST:
        raise UserError(f"The period {text!r} has to run forward within {EARLIEST}-{LATEST}; write 1650 or 1600-1725.")
    return low, high


def parse_scene(text: str) -> str:
    """`still life` -> still-life; also figures, no-figures, indoor and outdoor."""
    return genres.scene(text)


def parse_origin(text: str) -> str:
    """`person` or `model`."""
    return lookup({"person": "person", "model": "model"}, text, "origin")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-7`, `3,5,9` or both -> seeds in the order given, each once; at most 4096."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if not match:
            raise UserError(f"The seeds {text!r} are not whole numbers; write 0-7 or 3,5,9.")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low >= 4096:
            raise UserError(f"The seeds {part.strip()!r} have to run upward, at most 4096 of them; write 0-7.")
        seeds |= dict.fromkeys(range(low, high + 1))
    if len(seeds) > 4096:
        raise UserError(f"{len(seeds)} seeds are more than one run takes (4096); split them over several runs.")
    return tuple(seeds)


def parse_size(text: str) -> tuple[int, int]:
    """`128` or `128x160` (width x height, pixels) -> (width, height), multiples of 8 from 64 to 2048."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[xX\u00d7]\s*(\d{1,6})\s*)?", text)
    if not match:
        raise UserError(f"The size {text!r} is not a size in pixels; write 128 or 128x160 (width x height).")
    size = int(match[1]), int(match[2] or match[1])
    for side in size:
        if side % 8 or not 64 <= side <= 2048:
            near = min(2048, max(64, round(side / 8) * 8))
            raise UserError(f"The size {text!r} cannot be made: a side has to be a multiple of 8 from 64 to 2048, and {near} is near.")
    return size


def learned() -> frozenset[str]:
    """The styles that the embedded models learned: the labels of the embedded style head; none where it is missing."""
    card = Path(probes.__file__).parent / "embedded" / "heads" / "style.json"
    return frozenset(json.loads(card.read_text(encoding="utf-8"))["labels"]) if card.is_file() else frozenset()
