"""Reads `configs/` for both packages: TOML into frozen dataclasses, where an unknown key is an error that names the nearest known one."""
import difflib
import functools
import tomllib
import types
import typing
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from probes.errors import UserError

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Style:
    """A style as `configs/styles/<key>.toml` tells it. `names`: the display name, then aliases; `years`: first and last."""

    names: tuple[str, ...]
    adjective: str
    years: tuple[int, int]
    prompts: tuple[str, ...]
    genres: tuple[str, ...] = ()
    region: str = ""
    about: str = ""
    key: str = ""

    def __post_init__(self):
        if not self.names:
            raise ValueError("names must hold at least the display name")
        if self.years[0] > self.years[1]:
            raise ValueError(f"years must run from the earlier to the later, not from {self.years[0]} to {self.years[1]}")


def configs() -> Path:
    """The folder of configurations: inside the package once installed, beside it in a checkout."""
    inside = Path(__file__).parent / "_configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def read(path: Path | str, cls: type[Entry]) -> Entry:
    """The TOML file `path` as the dataclass `cls`; a field named `key` takes the file's stem. UserError for whatever does not fit."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    return _build(table, cls, str(path), {"key": path.stem})


@functools.cache
def catalogue(kind: str, cls: type[Entry]) -> dict[str, Entry]:
    """Every `configs/<kind>/*.toml` by its file stem, in alphabetical order."""
    return {path.stem: read(path, cls) for path in sorted((configs() / kind).glob("*.toml"))}


def styles() -> dict[str, Style]:
    """The catalogue of styles by key."""
    return catalogue("styles", Style)


def lookup(entries: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry that `name` means: by key, name, alias or adjective, whatever its case, spaces and hyphens.

    UserError with the nearest names where there is none. A key goes before another entry's alias, an alias before an adjective.
    """
    aliases = [(key, key) for key in entries]
    aliases += [(alias, key) for key, entry in entries.items() for alias in getattr(entry, "names", ())]
    aliases += [(getattr(entry, "adjective", ""), key) for key, entry in entries.items()]
    known: dict[str, str] = {}
    for alias, key in aliases:
        known.setdefault(_plain(alias), key)
    known.pop("", None)
    wanted = _plain(name)
    if wanted in known:
        return entries[known[wanted]]
    # One letter of four is a quarter of the word: "nope" is not "none".
    close = [known[plain] for plain in difflib.get_close_matches(wanted, known, n=8, cutoff=.6 if len(wanted) > 4 else .76)]
    raise UserError(f"there is no {what} {name!r}{offer(list(dict.fromkeys(close))[:3] or list(entries), complete=not close)}.")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that resemble `name`, the nearest first."""
    plain = {_plain(other): other for other in names}
    return [plain[match] for match in difflib.get_close_matches(_plain(name), plain, n=count, cutoff=.5)]


def offer(names: list[str], complete: bool = False) -> str:
    """The end of a sentence that offers `names`: `; the nearest known: a or b` or, for a complete list, `; known are a, b and c`."""
    if not names:
        return ""
    if len(names) > 12:
        listed = ", ".join(names[:12]) + f" and {len(names) - 12} more"
    else:
        listed = ", ".join(names[:-1]) + (" and " if complete else " or ") * (len(names) > 1) + names[-1]
    return f"; {'known are' if complete else 'the nearest known:'} {listed}"


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", str(name)).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def _build(table: Mapping[str, Any], cls: type[Entry], where: str, given: Mapping[str, Any] = types.MappingProxyType({})) -> Entry:
    known = {field.name: field for field in fields(cls) if field.init and field.name not in given}
    hints = typing.get_type_hints(cls)
    values = {name: value for name, value in given.items() if name in hints}
    for name, value in table.items():
        if name not in known:
            close = nearest(name, known, 1)
            raise UserError(f"{where} has an unknown key {name!r}{offer(close) if close else offer(sorted(known), complete=True)}.")
        values[name] = _convert(value, hints[name], f"{where}: {name}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where} lacks the required key {name!r}.")
    try:
        return cls(**values)
    except (ValueError, UserError) as error:
        raise UserError(f"{where}: {str(error).rstrip('.')}.") from None


def _convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as the annotation `kind` wants it: lists become tuples, tables dataclasses, whole numbers floats where one is asked for."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    wrong = UserError(f"{where} must be {_say(kind)}, not {value!r}.")
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in inner if option is not type(None)]  # TOML has no null
        if len(options) == 1:
            return _convert(value, options[0], where)
        for option in options:
            try:
                return _convert(value, option, where)
            except UserError:
                continue
        raise wrong
    if origin is typing.Literal:
        if value in inner:
            return value
        raise wrong
    if origin is tuple:
        if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise wrong
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_convert(item, one, where) for item, one in zip(value, kinds, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise wrong
        return {key: _convert(item, inner[1], f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(value, kind, where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind or (kind is dict and isinstance(value, dict)):
        return value
    raise wrong


def _say(kind: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is tuple:
        return f"a list of {_say(inner[0])}" if inner[-1] is Ellipsis else f"a list of {len(inner)} values"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_say(option) for option in inner if option is not type(None))
    return words.get(kind, "a table" if origin is dict or is_dataclass(kind) else getattr(kind, "__name__", str(kind)))
