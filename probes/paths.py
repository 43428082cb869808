"""Paths as a user types them."""
import hashlib
import os
from pathlib import Path

from probes.errors import UserError


def typed(text: str | Path) -> Path:
    """The path with its `~` expanded. UserError where no file could have it: too long, a null character, the home of nobody."""
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except RuntimeError:
        raise UserError(f"the path {text} begins with the home of a user whom this machine does not know; write it out.") from None
    except (OSError, ValueError) as error:
        shown = str(text) if len(str(text)) <= 80 else f"{str(text)[:80]}..."
        raise UserError(f"{shown!r} cannot be a path ({getattr(error, 'strerror', None) or error}); choose another.") from None
    return path


def named(text: str | Path) -> Path:
    """`typed`, and a UserError for an empty text, which would mean the current folder: often a variable of a script that is not set."""
    if not str(text).strip():
        raise UserError("a path is empty; name the folder or the file, and write . for the current folder.")
    return typed(text)


def digest(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits. OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(text: str | Path) -> str:
    """Text that any terminal and any UTF-8 file can hold: bytes of a file name that are no UTF-8 become replacement characters."""
    return os.fsencode(str(text)).decode("utf-8", "replace") if isinstance(text, Path) else str(text).encode("utf-8", "replace").decode()


def complaint(name: str, error: str) -> str:
    """Why a file was not read, legible, with its name where the error does not say it."""
    return legible(error if name in error else f"{name}: {error}")


def legible(text: str | Path) -> str:
    """Text without characters that would move a terminal's cursor or break its lines, as names of files may hold them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))
