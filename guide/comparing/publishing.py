"""A comparison as a section of benchmarks/README.md: command, date, hardware, commit, what it comes to, tables."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from guide import record
from guide.comparing.plan import duration
from guide.comparing.rendering import escaped, table_lines
from guide.comparing.tables import tables
from probes.auditing.processes import Process
from probes.errors import UserError

if TYPE_CHECKING:
    from guide.comparing.results import Results


def machine(process: Process) -> dict[str, str | int]:
    """What pictures are made on: the processor or GPU by name, processes, threads of each."""
    if process.device.startswith("cuda"):
        return {"device": torch.cuda.get_device_name(process.device), "processes": process.count}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"device": processor(), "cores": cores, "processes": process.count, "threads": torch.get_num_threads()}


def processor() -> str:
    """The processor's name as Linux tells it, elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def section(results: "Results") -> str:
    """Markdown to be pasted: all tables but those that a terminal does not show, and every strength."""
    asked = results.asked
    name = f"--suite {asked.suite}" if asked.suite else f"--styles {','.join(asked.styles)}"
    lines = [f"## Comparison (`guide compare {name}`)", "", " ".join(_made(results)), "", "```", asked.command, "```", ""]
    lines += [f"- {escaped(sentence)}" for sentence in results.conclusions]
    for table in tables(results):
        if not table.detail or table.title.startswith("Every strength"):
            lines += ["", *table_lines(table, "###")]
    lines += ["", *(f"- {escaped(note)}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def _made(results: "Results") -> Iterator[str]:
    asked, report = results.asked, results.rows[results.rows["set"] == "report"]
    try:
        run = record.read(asked.out)
    except UserError:
        run = None
    told = _machine(asked.out)
    processes = int(told.get("processes", 1))
    where = f"{told['device']}" if "device" in told else "hardware not recorded"
    if "cores" in told:
        each = f"{processes} process{'es' * (processes > 1)} of {told['threads']} thread{'s' * (told['threads'] != 1)}"
        where = f"{each} on {told['cores']} core{'s' * (told['cores'] != 1)} of {where}"
    git = (run.git if run else None) or {}
    commit = f"commit {git['commit'][:7]}{' with changes' if git.get('dirty') else ''}" if git else "no commit recorded"
    date = (run.finished or run.started)[:10] if run else "no date recorded"
    torch_ = f", torch {run.versions['torch']}" if run and "torch" in run.versions else ""
    took = duration(results.rows["seconds"].sum() / processes)
    yield f"{date}, {commit}, {where}{torch_}; {took} for {len(results.rows)} pictures."
    counts = {"prompt": len(report[["style", "prompt"]].drop_duplicates()), "seed": report["seed"].nunique()}
    said = " and ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
    chosen = len(results.rows) - len(report)
    more = f"; {chosen} pictures at seeds of their own chose the strengths" if chosen else ""
    settings, styles = dict.fromkeys(e.setting for e in results.effects), dict.fromkeys(report["style"])
    yield f"{'; '.join(settings)}; {', '.join(styles)}; {said} report{more}."


def _machine(folder: Path) -> dict:
    """As plan.json has it, whose run measured on it."""
    try:
        return json.loads((folder / "plan.json").read_text(encoding="utf-8")).get("machine") or {}
    except (OSError, ValueError, AttributeError):
        return {}
