"""What a run is made of: inputs under names that stay theirs, mask and references, known by content when a folder is gone on with."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from guide import png, record
from probes.errors import UserError
from probes.paths import digest


@dataclass(frozen=True)
class Source:
    """A file that a run reads. `role`: input, reference or region; `name`: of an input, by which its pictures are called; `sha256`: of
    the file's bytes, "" where it could not be read, or where an earlier record does not say."""

    role: str
    path: str
    sha256: str
    name: str = ""


@dataclass(frozen=True)
class Sources:
    """`files`: of this run, inputs first, those of an earlier run in the same folder before new ones; `before`: of that earlier run."""

    folder: Path
    files: tuple[Source, ...]
    before: tuple[Source, ...] = ()
    ending: str = ""

    @classmethod
    def of(cls, folder: Path, inputs: Sequence[str], references: Iterable[str] = (), region: str = "", *, ending: str = "") -> "Sources":
        """`ending`: what the names of pictures in the folder have after their input's."""
        before = _earlier(folder, ending)
        hashes = {path: _hash(path) for path in inputs}
        kept = _matched([one for one in before if one.role == "input"], hashes)
        taken = {one.name for one in before}
        found = [Source("input", path, hashes[path], name) for path, name in kept.items()]
        for path in inputs:
            if path not in kept:
                found.append(Source("input", path, hashes[path], _free(path, taken)))
                taken.add(found[-1].name)
        others = chain((("reference", path) for path in references), (("region", path) for path in [region] if path))
        return cls(folder, (*found, *(Source(role, path, _hash(path)) for role, path in others)), before, ending)

    @property
    def inputs(self) -> dict[str, str]:
        """Paths by name."""
        return {one.name: one.path for one in self.files if one.role == "input"}

    def sha256(self, name: str) -> str:
        return next(one.sha256 for one in self.files if one.role == "input" and one.name == name)

    def check(self, *, anew: bool = False) -> None:
        """UserError where pictures in the folder would stand beside another file than they were made of, or would be lost from its
        report. `anew`: all pictures are made anew, so that a file may have changed."""
        known = {(one.role, one.name or one.path): one for one in self.files}
        made = [one for one in self.before if one.role != "input" or _made(self.folder, one.name, self.ending)]
        for then in made:
            now = known.get((then.role, then.name or then.path))
            if not anew and now and then.sha256 and now.sha256 != then.sha256:
                what = {"input": "photograph", "reference": "reference", "region": "region"}[then.role]
                raise UserError(f"The {what} {now.path} has changed since the pictures in {self.folder} were made of it; choose another "
                                "folder with --out.")
        if lost := sorted(one.path for one in made if one.role == "input" and ("input", one.name) not in known):
            raise UserError(f"The folder {self.folder} holds a run of other pictures ({', '.join(lost[:3])}), which its report would lose; "
                            "name them too, or choose another folder with --out.")


def _earlier(folder: Path, ending: str) -> tuple[Source, ...]:
    """Of the run whose pictures the folder holds. A record of before files were recorded named its inputs by their order; what they
    were, its pictures say themselves."""
    if not (folder / "record.json").is_file() or not any(folder.glob("seed-*.png")):
        return ()
    before = record.read(folder)
    if before.files:
        return tuple(Source(**one) for one in before.files)
    taken: set[str] = set()
    found = []
    for path in before.request.get("inputs") or ():
        name = _free(path, taken)
        taken.add(name)
        said = (png.parameters(file) or {} for file in sorted(_made(folder, name, ending)))
        found.append(Source("input", path, next((one["input_sha256"] for one in said if one.get("input_sha256")), ""), name))
    return tuple(found)


def _matched(before: Sequence[Source], hashes: dict[str, str]) -> dict[str, str]:
    """Names of an earlier run by path of this one, in the earlier order: the same content, first under the same path; else the path."""
    found: dict[str, str] = {}
    named: set[str] = set()
    same = (lambda one, path: one.path == path and one.sha256 == hashes[path], lambda one, path: one.sha256 == hashes[path] != "",
            lambda one, path: one.path == path)
    for alike in same:
        for one in before:
            path = next((path for path in hashes if path not in found and one.name not in named and alike(one, path)), None)
            if path is not None:
                found[path] = one.name
                named.add(one.name)
    order = {one.name: place for place, one in enumerate(before)}
    return dict(sorted(found.items(), key=lambda entry: order[entry[1]]))


def _free(path: str, taken: set[str]) -> str:
    """The file's stem, with a number where it is taken."""
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(path).stem)[:60] or "picture"
    return next(name for name in chain([stem], (f"{stem}-{number}" for number in count(2))) if name not in taken)


def _made(folder: Path, name: str, ending: str) -> list[Path]:
    """An input's pictures in a folder; `seed-0000-` is all that stands before a name, which may itself begin with numbers."""
    return [file for file in folder.glob(f"seed-*-{name}{ending}.png") if file.stem.split("-", 2)[2] == name + ending]


def _hash(path: str) -> str:
    try:
        return digest(path)
    except OSError:  # whoever opens it says why
        return ""
