"""What a run was: the command as typed and as resolved, versions, commit, seeds, weights, costs. One record.json a run."""

import errno
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile

from probes.atomic import write_text
from probes.errors import UserError
from probes.plain import plain

__all__ = [
    "Record", "added", "commit", "earlier", "foreign", "now", "plain", "read", "together", "typed", "unchanged", "versions", "writable",
]  # fmt: skip

SCHEMA = 1
KINDS = ("generate", "compare", "transfer", "invert")
FREE = frozenset({"out", "seeds", "command", "batch", "device"})
PACKAGES = (
    "clip-guided-generation", "torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "numpy", "pandas", "pillow",
    "safetensors",
)  # fmt: skip


def typed() -> str:
    """The command line as typed, quoted so that a shell reads it back."""
    return shlex.join([Path(sys.argv[0]).stem.replace("cli", "guide"), *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a picture depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, str | bool] | None:
    """Commit and dirty flag of this project's own checkout; None where it runs installed, or without git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head, status = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": head, "dirty": bool(status)}


def now() -> str:
    """The time, UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Record:
    """One run. Everything but `request` has a sensible default; `write` may be called as often as the run moves on."""

    request: object
    """All arguments as resolved (a dataclass or a dict)."""
    command: str = field(default_factory=typed)
    kind: str = "generate"
    seeds: tuple[int, ...] = ()
    device: str = ""
    sampler: str = ""
    """The scheduler in words (`guide.samplers.described`); empty where a run has several or none."""
    weights: dict[str, str] = field(default_factory=dict)
    """sha256 of every set of weights used, by role; of a pipeline, its sampler's settings too."""
    files: list[dict] = field(default_factory=list)
    """Pictures that the run reads (`guide.transfer.sources.Source`): role, path, sha256 and, of an input, its name."""
    lineages: dict[str, object] = field(default_factory=dict)
    """Lineage by role: what steered and what judged."""
    costs: dict[str, float] = field(default_factory=dict)
    """Denoiser, encoder and decoder calls, seconds."""
    rows: list[dict] = field(default_factory=list)
    """One object per image."""
    tuning: dict = field(default_factory=dict)
    """How `--strength auto` was found: each strength that was tried, with the gains of referee and guide."""
    notes: list[str] = field(default_factory=list)
    """What did not go as asked: skipped steps, resized images, absent measures."""
    versions: dict[str, str] = field(default_factory=versions)
    git: dict | None = field(default_factory=commit)
    started: str = field(default_factory=now)
    finished: str | None = None
    complete: bool = False
    schema: int = SCHEMA

    def finish(self) -> None:
        """Mark the run as complete."""
        self.finished, self.complete = now(), True

    def write(self, path: str | Path) -> None:
        """Write record.json, whole or not at all."""
        write_text(path, json.dumps({f.name: plain(getattr(self, f.name)) for f in fields(self)}, indent=1, ensure_ascii=False) + "\n")


def read(path: str | Path) -> Record:
    """The record in a file, or in a run's folder; `request` comes back as a dict, tuples as lists."""
    path = Path(path)
    path = path / "record.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"There is no record at {path} ({error.strerror}); name the folder of a run.") from error
    except ValueError as error:
        raise UserError(f"The record {path} is not JSON ({error}); choose another --out, or remove the folder.") from error
    known = {f.name for f in fields(Record)}
    whole = isinstance(found, dict) and isinstance(found.get("request"), dict) and type(found.get("schema", 0)) is int
    if not whole or found.get("schema", 0) > SCHEMA or found.get("kind", "generate") not in KINDS:
        raise UserError(f"The record {path} is not one of this version; run the command again, or update the package.")
    return Record(**{key: value for key, value in found.items() if key in known})


def _difference(name: str, then: object, now: object) -> str:
    """`strength 10 instead of 20`: the first entry that differs, in the words of the command line where it has one."""
    if isinstance(then, dict) and isinstance(now, dict):
        key = next(key for key in {**then, **now} if then.get(key) != now.get(key))
        return _difference(key, then.get(key), now.get(key))
    between = {"period": "-", "size": "x"}.get(name, " and ")
    return f"another {name.replace('_', ' ')} ({_said(then, between)} instead of {_said(now, between)})"


def _said(value: object, between: str = " and ") -> str:
    """A value as a person would write it: `baroque 0.7 and ukiyo-e 0.3`, `1600-1700`, `a woman`."""
    if value in (None, "", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        parts = [" ".join(map(_said, one)) if isinstance(one, list) else _said(one) for one in value]
        parts = [part.removesuffix(" 1") for part in parts] if len(parts) == 1 else parts
        return between.join(parts)[:60]
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())[:60]
    return str(value)[:60]


def earlier(folder: str | Path, resolved: dict, kind: str, free: frozenset[str] = FREE) -> Record | None:
    """The record of a run begun in this folder, to go on with; None where there is no picture yet.

    UserError where the folder holds a run of another kind or one that was asked for something else, or pictures that no record explains.
    Entries of `resolved` named in `free` may differ: they do not change a picture.
    """
    pictures = any(Path(folder).glob("seed-*.png")) or any(Path(folder).glob("*/seed-*.png"))
    if not (Path(folder) / "record.json").is_file():
        if pictures:
            raise UserError(f"The folder {folder} holds pictures but no record.json that says what they are; choose another with --out.")
        return None
    before = read(folder)
    if before.kind != kind:
        raise UserError(f"The folder {folder} holds a run of `guide {before.kind}`, not of `guide {kind}`; choose another with --out.")
    if not pictures:
        return None
    for name in (name for name in resolved if name not in free):
        then, wanted = before.request.get(name), plain(resolved[name])
        if then != wanted:
            raise UserError(f"The folder {folder} holds a run with {_difference(name, then, wanted)}; choose another folder with --out.")
    return before


def together(before: Record | None, seeds: Sequence[int], made: Callable[[int], bool]) -> tuple[int, ...]:
    """The seeds of a run, and those of the run that it goes on with whose pictures are `made`: a report of fewer would lose them."""
    return tuple(dict.fromkeys((*(seed for seed in (before.seeds if before else ()) if seed in seeds or made(seed)), *seeds)))


def added(seeds: Sequence[int], together: Sequence[int]) -> list[str]:
    """A sentence where a report holds more seeds than were asked for; none where it does not."""
    more = [str(seed) for seed in together if seed not in seeds]
    return [f"The folder's earlier pictures stay in its report: seed{'s' if len(more) > 1 else ''} {', '.join(more)}."] if more else []


def unchanged(folder: str | Path, before: Record | None, weights: dict[str, str]) -> None:
    """UserError where the pictures that `earlier` found in the folder are of other weights than these, by role."""
    if before is not None and before.weights not in ({}, weights):
        raise foreign(folder)


def foreign(folder: str | Path) -> UserError:
    """What is raised where a folder's pictures are of other weights than those at hand."""
    return UserError(f"The folder {folder} holds pictures of other weights or another sampler; choose another folder with --out.")


def writable(folder: Path) -> None:
    """UserError before the work where nothing could be written after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
        if blocking := [name for name in ("trace.jsonl", "record.json", "report.csv", "sheet.png") if (folder / name).is_dir()]:
            raise IsADirectoryError(errno.EISDIR, f"{blocking[0]} is a folder there")
    except OSError as error:
        raise UserError(f"Cannot write into {folder}: {error.strerror or error}; choose another folder with --out.") from None
