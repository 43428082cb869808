"""Files that are either whole or absent: written beside their place, then moved into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` and move it there when the block ends without an error.

    Folders on the way are made. A folder that cannot be written raises UserError; it names no option, since command lines call their
    folders differently. The file gets the usual permissions of a new file (the ones of `tempfile` would shut everybody else out).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:80]}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        usual = temporary.stat().st_mode
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}; choose another folder.") from error
    try:
        yield temporary
        temporary.chmod(usual)  # safetensors puts a file of its own there, which it shuts everybody else out of
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}; free some space or choose another folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
