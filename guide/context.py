"""What runs that generate, repaint and invert begin with alike: a folder that goes on, device, encoder, verdict, and their record."""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from guide import record
from probes import devices, encoders, judge
from probes.encoders import Encoder
from probes.judge import Judge

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]
FREE = record.FREE | {"inputs", "film"}
LATER = ("goals", "watch")  # records of before these were asked for have none


class Asked(Protocol):
    """What a request of these runs has in common."""

    out: Path
    command: str
    seeds: tuple[int, ...]
    encoder: str
    judge: str
    device: str


@dataclass(frozen=True, eq=False)
class Context:
    """A run that has begun: `record` is written to as it moves on, `before` is that of an interrupted one, None where there is none."""

    out: Path
    record: record.Record
    before: record.Record | None
    device: str
    encoder: Encoder
    verdict: Judge
    seeds: tuple[int, ...]
    """Those asked for, and those whose pictures the folder holds already."""
    notice: Notice

    def tell(self, *lines: str) -> None:
        """Sentences for the record and for whoever started the run."""
        for line in lines:
            self.record.notes.append(line)
            self.notice(line)

    def weigh(self, **more: str) -> None:
        """Name the weights of the run, with `more` by role. UserError where the folder's pictures were made with other ones."""
        self.record.weights = {"encoder": self.encoder.fingerprint, "verdict": self.verdict.lineage.weights} | more
        record.unchanged(self.out, self.before, self.record.weights)

    def write(self) -> None:
        self.record.write(self.out / "record.json")

    def finish(self, rows: list[dict]) -> None:
        """The record as that of a whole run, with a row per picture."""
        self.record.rows = rows
        self.record.finish()
        self.write()


def begin(request: Asked, kind: str, check: Callable[[], None], made: Callable[[int], bool], on_progress: Progress,
          notice: Notice, **resolved: Any) -> Context:
    """Everything that can refuse cheaply refuses first: the folder's own record, the folder itself, `check`; then weights are read.

    `made`: whether the folder holds pictures of a seed. `resolved`: what the record keeps of the request besides, or in place of its own.
    """
    resolved = record.plain({**vars(request), **resolved})
    resolved = {name: value for name, value in resolved.items() if value or name not in LATER}
    before = record.earlier(request.out, resolved, kind, FREE)
    seeds = record.together(before, request.seeds, made)
    resolved["seeds"] = record.plain(seeds)
    now = record.Record(resolved, command=request.command or record.typed(), kind=kind, seeds=seeds)
    record.writable(request.out)
    check()
    on_progress("loading", 0, 0)
    now.device = devices.select(request.device)
    encoder, verdict = encoders.load(request.encoder, now.device), judge.load(request.judge, now.device)
    verdict.check([encoder.lineage])
    now.lineages = {"encoder": encoder.lineage, "verdict": verdict.lineage}
    context = Context(request.out, now, before, now.device, encoder, verdict, seeds, notice)
    context.tell(*record.added(request.seeds, seeds))
    return context
