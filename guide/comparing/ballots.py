"""Votes of people between pictures: blind pairs, a line of JSON for each vote, and how often each judge agrees."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import nan
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from guide.statistics import Interval, mean_difference
from probes.errors import UserError

CHOICES = ("left", "right", "equal")
FILE = "votes.jsonl"
KEYS = ["model", "setting_steps", "guidance_scale", "style", "named", "prompt", "seed"]


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt and seed; `left` and `right` are rows of the results, on sides that a hash of the pair decides."""

    key: str
    style: str
    left: pd.Series
    right: pd.Series


def pairs(rows: pd.DataFrame) -> list[Pair]:
    """Every guided picture that reports beside its baseline's, in an order that a hash decides: the same for everybody, and blind."""
    report = rows[rows["set"] == "report"]
    plain = {(*(row[name] for name in KEYS), row["arm"]): row for _, row in report[report["strategy"] == "unguided"].iterrows()}
    found = []
    for _, row in report[report["strategy"] != "unguided"].iterrows():
        other = plain.get((*(row[name] for name in KEYS), row["baseline"]))
        if other is not None:
            digest = blake2b(f"{row['image']}\0{other['image']}".encode(), digest_size=12).hexdigest()
            sides = (row, other) if int(digest[-1], 16) % 2 else (other, row)
            found.append(Pair(digest, row["style"], *sides))
    return sorted(found, key=lambda pair: pair.key)


class Box:
    """The votes of a run in a file that only grows: written through to the disk before a vote is confirmed, so that none is lost."""

    def __init__(self, path: Path):
        self.path, self.lock = path, Lock()
        self.votes = dict(_read(path))

    def put(self, voter: str, pair: str, choice: str) -> None:
        """One voter's choice between a pair; the same again changes nothing, another one replaces it."""
        with self.lock:
            if self.votes.get((voter, pair)) == choice:
                return
            line = json.dumps({"voter": voter, "pair": pair, "choice": choice}) + "\n"
            with self.path.open("ab") as file:
                if file.tell() and not _ends(self.path):
                    file.write(b"\n")  # of a line that a crash cut off
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            self.votes[voter, pair] = choice


def _ends(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            vote = json.loads(line)
            if vote["choice"] in CHOICES:
                yield (str(vote["voter"]), str(vote["pair"])), vote["choice"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that a crash cut off


def agreement(folder: Path) -> dict[str, Any] | None:
    """How often the guide and each judge prefer the picture that people do, of a run with votes; None where there are none.

    Ties of people are left out. An interval is clustered by prompt, or by pair of pictures where there is one prompt; chance is .5.
    `people`: how often voters agree with each other on pairs that several saw.
    """
    votes = dict(_read(folder / FILE))
    if not votes or not (folder / "results.parquet").is_file():
        return None
    rows = pd.read_parquet(folder / "results.parquet")
    known = {pair.key: pair for pair in pairs(rows)}
    votes = {key: choice for key, choice in votes.items() if key[1] in known}
    judges = [name.removesuffix("_log_odds") for name in rows.columns if name.endswith("_log_odds")]
    found = {
        "votes": len(votes),
        "voters": len({voter for voter, _ in votes}),
        "ties": sum(c == "equal" for c in votes.values()),
        "judges": {},
        "arms": {},
    }
    decided = [(known[pair], choice) for (_, pair), choice in votes.items() if choice != "equal"]
    prompts: list = [tuple(pair.left[name] for name in KEYS[:-1]) for pair, _ in decided]
    if len(set(prompts)) == 1:
        prompts = [pair.key for pair, _ in decided]  # votes on one pair of pictures are no more independent than those of one prompt
    for judge in judges:
        column = f"{judge}_log_odds"
        lean = np.array(
            [np.sign(pair.left[column] - pair.right[column]) * (1 if choice == "left" else -1) for pair, choice in decided], float
        )
        found["judges"]["guide" if judge == "style" else judge] = _share(lean / 2, prompts)
    for arm in dict.fromkeys(_guided(pair)["arm"] for pair, _ in decided):
        some = [(pair, choice, prompt) for (pair, choice), prompt in zip(decided, prompts, strict=True) if _guided(pair)["arm"] == arm]
        won = np.array([0.5 if (pair.left["strategy"] != "unguided") == (choice == "left") else -0.5 for pair, choice, _ in some])
        found["arms"][arm] = _share(won, [prompt for *_, prompt in some])
    found["people"] = _people(votes)
    return found | {"sentences": list(_sentences(found))}


def _guided(pair: Pair) -> pd.Series:
    return pair.left if pair.left["strategy"] != "unguided" else pair.right


def _share(values: np.ndarray, prompts: list) -> Interval:
    one = mean_difference(values, prompts, bounds=(-0.5, 0.5))
    return Interval(one.mean + 0.5, one.low + 0.5, one.high + 0.5, one.pairs, one.clusters, one.method, one.p)


def _people(votes: dict[tuple[str, str], str]) -> float:
    """Share of equal choices among pairs of voters who saw the same pair of pictures; nan where none did."""
    by_pair: dict[str, list[str]] = {}
    for (_, pair), choice in votes.items():
        by_pair.setdefault(pair, []).append(choice)
    agreed = [a == b for some in by_pair.values() for i, a in enumerate(some) for b in some[i + 1 :]]
    return float(np.mean(agreed)) if agreed else nan


def _sentences(found: dict[str, Any]) -> Iterator[str]:
    voters, ties = found["voters"], found["ties"]
    yield f"{found['votes']} votes by {voters} {'person' if voters == 1 else 'people'}, {ties} of them found no difference."
    for judge, one in found["judges"].items():
        if one.pairs:
            yield f"The {judge} prefers what people prefer in {_told(one)} of {one.pairs} votes (chance 50 %)."
    for arm, one in found["arms"].items():
        yield f"People prefer {arm} to the plain pipeline in {_told(one)} of {one.pairs} votes."
    if found["people"] == found["people"]:
        yield f"Two people who saw the same pair agree in {found['people']:.0%}."


def _told(one: Interval) -> str:
    return f"{one.mean:.0%}" + ("" if one.low != one.low else f" [{one.low:.0%}, {one.high:.0%}]")


def load_rows(folder: Path) -> pd.DataFrame:
    """The results of a finished run. UserError where there are none."""
    path = folder / "results.parquet"
    if not path.is_file():
        raise UserError(f"There are no results in {folder}; finish the run with `guide compare` first.")
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError):
        raise UserError(f"{path} cannot be read as a table; the command that made the run writes it again.") from None
    if lacking := [name for name in ("set", "arm", "baseline", "image", *KEYS) if name not in rows]:
        raise UserError(f"{path} has no column {lacking[0]}; name the folder of a run of `guide compare`.")
    return rows
