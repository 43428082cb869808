"""A picture that is to be audited: where its bytes are, and what a table, a tar or a run says of it."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from probes.auditing.intention import Intention
from probes.errors import UserError
from probes.paths import printable

COLUMNS = {  # what a table's columns are called: ours first, then the names that other tools give them
    "file": ("file_name", "image", "path", "file", "filename"),
    "style": ("style", "intended_style", "style_target"),
    "period": ("period", "intended_period", "year"),
    "prompt": ("prompt", "subject", "caption", "text"),
    "strategy": ("strategy",),
    "generator": ("generator", "model"),
    "group": ("group", "artist"),
    "variant": ("variant",),
    "seed": ("seed",),
}
NOTHING: Mapping = MappingProxyType({})


def _nothing() -> Mapping:
    """One and the same for all pictures of which nothing was said."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: `name` as it is shown, where its bytes are, and what was said of it outside the file.

    `source`: a file, a tensor (3, h, w), or a tar with `offset` and `size` of the member; files by their path as text, which for a
    million is a third of the memory of a million Path objects. `intention` is None where nothing was said.
    `trouble`: why there is nothing to read. `cells` has group, seed, variant, ratings (`rating`, `rating_*`, `human_*`) and notes.
    """

    name: str
    source: str | Path | Tensor
    intention: Intention | None = None
    cells: Mapping = field(default_factory=_nothing)
    offset: int = 0
    size: int = -1
    trouble: str = ""

    def read(self) -> bytes:
        """The file's bytes; UserError where there is none."""
        if self.trouble:
            raise UserError(self.trouble)
        try:
            if not stat.S_ISREG(os.stat(self.source).st_mode):
                raise UserError("it is a folder, a pipe or a device, not a file")
            with open(self.source, "rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except FileNotFoundError:
            broken = os.path.islink(self.source)
            raise UserError("it is a link to a file that is not there" if broken else "there is no such file") from None
        except (OSError, ValueError) as error:
            raise UserError(f"it cannot be read: {getattr(error, 'strerror', None) or error}".rstrip(".")) from None


def told(said: dict[str, str], ratings: dict) -> tuple[Intention | None, dict]:
    """Intention and cells from what is said of a picture, by the keys of COLUMNS, and from what people gave it."""
    intention, notes = Intention.stated(said)
    cells = {name: printable(said[name]) for name in ("group", "variant", "strategy", "generator") if said.get(name)}
    seed = said.get("seed", "").removesuffix(".0")
    cells |= {"seed": int(seed)} if seed.isdecimal() and len(seed) < 19 else {}
    cells |= {"notes": notes} if notes else {}
    return intention if intention != Intention() else None, cells | {name: value for name, value in ratings.items() if value != ""}
