"""Suites of configs/suites, and how a command line, a suite and the project's defaults become one request, in that order."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from guide.brief import parse_avoid, parse_period, parse_seeds, parse_size
from guide.comparing.asked import SOURCES, Asked
from probes.config import catalogue, lookup
from probes.errors import UserError


@dataclass(frozen=True)
class Suite:
    """A file of configs/suites: a comparison with a name. Text is as on the command line; what is empty is the project's default."""

    about: str
    styles: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: str
    choice_seeds: str = ""
    strengths: tuple[str, ...] = ()
    style_from: tuple[str, ...] = SOURCES
    best_of: tuple[int, ...] = ()
    budget: str = ""
    crossed: int = 0
    steps: str = ""
    guidance_scale: str = ""
    models: tuple[str, ...] = ("embedded",)
    batch: int = 4
    prompt_only: bool = True
    key: str = ""


DEFAULTS = {"styles": "baroque", "strategies": "unguided,clean-image", "seeds": "0-7"}


def suites() -> dict[str, Suite]:
    """The catalogue of suites by key."""
    return catalogue("suites", Suite)


def resolved(out: Path, suite: str | None = None, **typed: Any) -> Asked:
    """What was typed, over the suite, over the defaults. Entries of `typed` that are None were not typed; all are text but the flags."""
    told: dict[str, Any] = dict(DEFAULTS)
    if suite is not None:
        found = lookup(suites(), suite, "suite")
        told |= {
            f.name: getattr(found, f.name)
            for f in fields(found)
            if f.name not in ("about", "key") and getattr(found, f.name) not in ("", ())
        }
        told["suite"] = found.key
    told |= {name: value for name, value in typed.items() if value is not None}
    asked = {name: value for name, value in told.items() if name in Asked.__dataclass_fields__}
    for name in ("styles", "strategies", "models", "judges", "style_from"):
        if name in told:
            asked[name] = _listed(told[name])
    asked |= {"out": out, "seeds": parse_seeds(told["seeds"])}
    if choice := told.get("choice_seeds"):
        asked["choice_seeds"] = () if choice == "none" else parse_seeds(choice)
    if "strengths" in told:
        asked["strengths"] = tuple(told["strengths"])
    asked |= _numbers(told, "steps", int) | _numbers(told, "best_of", int)
    asked |= {"guidance_scales": scales["guidance_scale"]} if (scales := _numbers(told, "guidance_scale", float)) else {}
    if size := told.get("size"):
        asked["size"] = parse_size(size)
    if period := told.get("period"):
        asked["period"] = parse_period(period)
    asked["avoid"] = parse_avoid(told.get("avoid") or ())
    return Asked(**asked)


def _listed(value: Any) -> tuple[str, ...]:
    """`a,b` or a list of such -> each once, in order."""
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))


def _numbers(told: Mapping[str, Any], name: str, kind: type) -> dict[str, tuple]:
    value = told.get(name)
    if value in (None, "", ()):
        return {}
    try:
        return {name: tuple(dict.fromkeys(kind(part) for part in (value.split(",") if isinstance(value, str) else value)))}
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"--{name.replace('_', '-')} {value!r} are not {what}; write them as 10,25.") from None
