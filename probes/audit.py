"""Reads any pictures with the probes and a judge that did not steer them: a row each, and what it comes to."""

import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType

from torch import Tensor

from probes import devices, encoders
from probes import judge as judges
from probes.auditing import columns, doubt, flags, inputs, likeness, pairing
from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.ledger import Ledger
from probes.auditing.reading import Picture, Reading
from probes.auditing.reference import distance
from probes.auditing.report import Report
from probes.auditing.summary import summarise, told_apart
from probes.errors import UserError
from probes.lineage import Lineage
from probes.paths import printable
from probes.probe import Intent

BLOCK = 128  # pictures that are written, and dealt to processes, together
AHEAD = 4  # pictures a worker may be ahead of the networks


@contextmanager
def _hushed() -> Iterator[None]:
    """Without Pillow's warnings of large and odd pictures: their rows say what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@_hushed()
def audit(
    images: Tensor | str | Path | Sequence[str | Path],
    *,
    intent: Intent | Sequence[Intent] | None = None,
    encoder: str = "embedded",
    judge: str | None = "verdict",
    judge_heads: Sequence[str | Path] = (),
    steered_by: Iterable[str | Lineage] = (),
    device: str = "cpu",
    batch: int = 16,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    baseline: str | Path | None = None,
    reference: str | Path | None = None,
    folder: str | Path | None = None,
    gallery: bool = False,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Report:
    """Pictures -> a Report, a row per picture in order, also for those that cannot be read, with the reason.

    `images`: a folder (with its subfolders, and its `metadata.csv` or `.jsonl`), a glob, a tar, a CSV, JSONL or Parquet table, a run's
    `record.json`, a list of files, or a tensor (n, 3, h, w) in [0, 1]. `intent`: what all of them, or each, were meant to be; where it is
    silent a table counts, and where both are, the parameters inside a file. `judge`: one that ships, a preset of `configs/judges`, or a
    TOML file as there; `judge_heads`: heads for its features, where it has none of its own. `steered_by`: what steered or tuned them
    (encoder sources or lineages) besides what a run's record names: a judge of one of their families refuses with a UserError.

    `baseline`: pictures of the same seeds and prompts, or names, without what is to be measured. `reference`: pictures as they should be,
    to measure the distance of the two sets, and to find copies. `folder`: where parts are kept, so that a later call goes on from there,
    and so that `shard` = (k, n) lets n processes read every n-th block each; a call without `shard` then finds everything read.
    `gallery`: keep thumbnails for `Report.to_html`. `workers`: threads that decode, one per core by default.
    One pass of the encoder serves all probes. Of a picture that was read, its row stays in memory, as columns, and nothing else.
    """
    device = devices.select(device)
    steerers = [entry if isinstance(entry, Lineage) else _steerer(entry, judge, device) for entry in steered_by]
    reader, verdict = encoders.load(encoder, device), judges.load(judge, device, tuple(judge_heads)) if judge else None
    found, recorded = inputs.items(images)
    steerers += recorded
    if verdict:
        verdict.check(steerers)
    before, beside = (inputs.items(other)[0] if other is not None else [] for other in (baseline, reference))
    pairing.refuse_itself(before, found)
    # Beyond what a page shows, thumbnails of the pictures that it chooses are made in the end.
    reading = Reading(reader, verdict, thumbnails=gallery and len(found) <= columns.SHOWN)
    ledger, total = Ledger(Path(folder) / "parts" if folder else None), len(found) + len(before) + len(beside)
    workers = workers or os.cpu_count() or 1

    def read(some: list[Item], intents: list[Intention | None], done: int) -> list[bytes]:
        return list(_read(reading, ledger, some, intents, batch, workers, shard, lambda count: on_progress(done + count, total)))

    meant = _intents(intent, found)
    keys = read(found, meant, 0)
    other = read(before, pairing.intents(before, found, meant), len(found)) if before else []
    real = read(beside, [item.intention for item in beside], len(found) + len(before)) if beside else []
    for source in ledger.steered(keys):
        steerers += filter(None, [reader.lineage if source == encoder else encoders.named_lineage(source)])
    if verdict:
        verdict.check(steerers)  # again: of pictures without a record only the files themselves say what steered them
    rows = columns.completed(ledger.frame(keys))
    likeness.mark(rows)
    if before:
        pairing.pair(rows, columns.completed(ledger.frame(other)))
        pairing.note_unpaired(rows)
    else:
        pairing.pair_variants(rows)
    flags.flag(rows)
    doubt.mark(rows)
    doubt.accuse(rows, reading.origin.head.reliability)
    eyes = verdict.name if verdict else reader.name
    summary = summarise(rows, reader, verdict, ledger.trust(keys), reading.unasked(), steered=reader.lineage in steerers,
                        alarms=reading.alarms() if reading.artifacts else None, baseline=len(before),
                        left_out=inputs.left_out(images, found),
                        diversity=likeness.diversity(told_apart(rows), ledger.features(keys)),
                        reference=_beside(rows, keys, real, ledger, eyes) if beside else None)  # fmt: skip
    sources = {"images": images, "baseline": baseline, "reference": reference}
    summary["data"] = {name: source if source is None else _named(source) for name, source in sources.items()}
    summary["heads"] = reading.heads()
    errors = rows["error"].ne("").to_numpy()

    def pictures(chosen: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        kept = ledger.pictures(keys[k] for k in chosen)
        with ThreadPoolExecutor(workers, "thumbnails") as pool:
            yield from pool.map(lambda k, one: (one[0] or (b"" if errors[k] else reading.thumbnail(found[k])), one[1]), chosen, kept)

    return Report.finished(rows, summary, pictures if gallery and shard == (0, 1) else None)


def _steerer(source: str, judge: str | None, device: str) -> Lineage:
    """Where an encoder that steered comes from. UserError where it is no encoder, or the judge itself."""
    if source == judge:
        raise UserError(f"The judge {judge!r} steered these pictures itself, says --steered-by, so that it gives no verdict on them; "
                        "choose another with --judge, or name the encoder that steered.")
    try:
        return encoders.load(source, device).lineage
    except UserError as error:
        raise UserError(f"--steered-by names no encoder that can be loaded, {source!r}: {error}") from None


def _named(source: Tensor | str | Path | Sequence[str | Path]) -> str:
    """What was audited, for the record: a path as it was given, or how many pictures were handed in."""
    return printable(source) if isinstance(source, str | Path) else f"{len(source)} pictures handed in"


def _beside(rows, keys: list[bytes], real: list[bytes], ledger: Ledger, features: str) -> dict:
    """The audited pictures beside the reference: their distance, and how many repeat one of it."""
    known = columns.completed(ledger.frame(real))
    likeness.mark_reference(rows, known)
    kid, floor = distance(ledger.features(keys), (len(keys), len(real)), ledger.features(real))
    return {"images": len(known), "read": int((known["error"] == "").sum()), "kid": kid, "floor": floor, "features": features,
            "copies": int((rows["reference_match"] != "").sum())}  # fmt: skip


def _intents(intent: Intent | Sequence[Intent] | None, found: list[Item]) -> list[Intention | None]:
    intents = list(intent) if isinstance(intent, Sequence) else [intent] * len(found)
    if len(intents) != len(found):
        raise UserError(f"There are {len(found)} images and {len(intents)} intentions; give one for each image, or one for all.")
    same: dict[int, Intention] = {}
    given = [same.setdefault(id(entry), Intention.of(entry)) if entry is not None else Intention() for entry in intents]
    return inputs.merged(found, given)


def _read(reading: Reading, ledger: Ledger, items: list[Item], intents: list[Intention | None], batch: int, workers: int,
          shard: tuple[int, int], on_progress: Callable[[int], None]) -> Iterator[bytes]:  # fmt: skip
    """Keys of the items of this shard, in order; those whose rows the ledger lacks are read, a block at a time.

    Batches end with their block, so that no digit depends on how many processes share the blocks.
    """
    index, count = shard
    both = list(zip(items, intents, strict=True))
    mine = [both[start : start + BLOCK] for start in range(index * BLOCK, len(both), count * BLOCK)]
    done = 0
    with ThreadPoolExecutor(workers, "decode") as pool:
        tasks = (pair for block in mine for pair in block)
        ahead = _ahead(pool, lambda pair: reading.prepare(*pair, ledger), tasks, AHEAD * workers + batch)
        for block in mine:
            keys, entries, missing = [], [], []
            for picture in islice(ahead, len(block)):
                keys.append(picture.key)
                done += 1
                if picture.key not in ledger:
                    missing.append(picture)
                if len(missing) == batch:
                    entries += reading.entries(missing)
                    missing = []
                    on_progress(done)
            entries += reading.entries(missing)
            if entries:
                ledger.append(f"{index}-of-{count}-{entries[0].key.hex()}", entries)
            on_progress(done)
            yield from keys


def _ahead(pool: ThreadPoolExecutor, work: Callable, tasks: Iterable, window: int) -> Iterator[Picture]:
    """Results in order, with at most `window` of them begun."""
    tasks, begun = iter(tasks), deque()
    begun.extend(pool.submit(work, task) for task in islice(tasks, window))
    try:
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(work, task) for task in islice(tasks, 1))
    finally:
        for future in begun:
            future.cancel()


class _Audit(ModuleType):
    """This module, which may itself be called: `from probes import audit; audit("folder").rows` is a DataFrame."""

    def __call__(self, *arguments, **options) -> Report:
        return self.audit(*arguments, **options)


sys.modules[__name__].__class__ = _Audit
