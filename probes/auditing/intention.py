"""What a picture was meant to be, as a brief, a table or the picture's own parameters say it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from probes.config import lookup, nearest, styles
from probes.errors import UserError
from probes.paths import printable
from probes.probe import Intent

MOST, HEAVIEST = 9999, 1e6  # years and weights that a picture may claim for itself
YEARS = re.compile(r"\s*(\d{1,4})(?:\.0+)?\s*(?:(?:-|\N{EN DASH}|to)\s*(\d{1,4})(?:\.0+)?)?\s*$")


@dataclass(frozen=True)
class Intention:
    """What a picture was meant to be: the attributes of a brief that the probes read."""

    prompt: str = ""
    styles: tuple[tuple[str, float], ...] = ()
    avoid: tuple[str, ...] = ()
    period: tuple[int, int] | None = None

    @classmethod
    def of(cls, brief: Intent) -> "Intention":
        return cls(brief.prompt, tuple((_key(name), weight) for name, weight in brief.styles), tuple(map(_key, brief.avoid)), brief.period)

    @classmethod
    def written(cls, parameters: dict) -> "Intention":
        """What a picture's own parameters say; where they make no sense, only its subject."""
        subject, known = printable(str(parameters.get("subject") or "")), styles()
        try:
            wanted = tuple((str(name), float(weight)) for name, weight in parameters.get("styles") or ())
            avoid, period = tuple(map(str, parameters.get("avoid") or ())), tuple(map(int, parameters.get("period") or ()))
        except (TypeError, ValueError, OverflowError):
            return cls(subject)
        names = [*(name for name, _ in wanted), *avoid]
        sensible = len(set(names)) == len(names) and known.keys() >= set(names) and all(0 < weight <= HEAVIEST for _, weight in wanted)
        dated = len(period) == 2 and -MOST <= period[0] <= period[1] <= MOST
        if not sensible or (period and not dated):
            return cls(subject)
        return cls(subject, wanted, avoid, period or None)

    @classmethod
    def stated(cls, cells: Mapping[str, str]) -> tuple["Intention", list[str]]:
        """From the cells `prompt`, `style` (`baroque`, or `baroque:.7,ukiyo-e:.3`) and `period` (`1650`, `1600-1725`) of a table.

        Also what of them could not be understood, in words: one odd cell of a table must not end an audit.
        """
        notes, wanted, period = [], [], None
        for part in filter(None, (part.strip() for part in cells.get("style", "").split(","))):
            name, _, weight = part.partition(":")
            try:
                found = lookup(styles(), name.strip(), "style").key, float(weight or 1)
            except (UserError, ValueError):
                near = nearest(name.strip(), styles(), 1)
                notes.append(f"the intended style {part!r} is not known" + (f"; did you mean {near[0]}?" if near else ""))
                continue
            if found[0] in (key for key, _ in wanted) or not 0 < found[1] <= HEAVIEST:
                notes.append(f"the intended style {part!r} makes no sense")
            else:
                wanted.append(found)
        if text := cells.get("period", "").strip():
            years = YEARS.match(text)
            period = (int(years[1]), int(years[2] or years[1])) if years else None
            if period is None or period[0] > period[1]:
                period, notes = None, [*notes, f"the intended period {text!r} is no year and no span of years; write 1650 or 1600-1725"]
        return cls(cells.get("prompt", "").strip(), tuple(wanted), (), period), notes

    def or_else(self, other: "Intention") -> "Intention":
        """This one, with what it leaves open taken from the other."""
        said = {name: value for name, value in vars(self).items() if value}
        return replace(other, **said)

    @property
    def target(self) -> str:
        """`baroque`, or `baroque:0.7,ukiyo-e:0.3`."""
        return self.styles[0][0] if len(self.styles) == 1 else ",".join(f"{name}:{weight:g}" for name, weight in self.styles)

    @property
    def middle(self) -> float:
        """The middle of the span that was meant; nan without one."""
        return sum(self.period) / 2 if self.period else math.nan


def _key(name: str) -> str:
    """A style's key by any of its names; a name that only the head may know stays as it is."""
    try:
        return lookup(styles(), name, "style").key
    except UserError:
        return name
