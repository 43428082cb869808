"""What `guide probe` does with labelled data: its features, a head and card of it, a table of how well heads read it, an explanation."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes import diagrams, explain, fitting, labelled, reliability
from probes.atomic import replacing, write_text
from probes.config import offer, styles
from probes.embeddings import default_cache, embed
from probes.errors import UserError
from probes.fitting import Unseen
from probes.heads import card
from probes.heads.head import Head, YearHead, width
from probes.heads.head import fitting as fitted_to
from probes.heads.zero_shot import prototypes
from probes.labelled import Labelled
from probes.overview import available, bare, fitted
from probes.plain import plain
from probes.probe import stages_of

if TYPE_CHECKING:
    from probes.encoders import Encoder

UNKNOWN = "the card names no works that the head was fitted to: the figures hold where none of these is among them"
TEMPLATES = ("a {}", "a {} painting", "a painting: {}")


@dataclass(frozen=True, eq=False)
class Results:
    """What was checked on `data`: a table's titles and rows, and the files that hold it."""

    data: Labelled
    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]
    files: list[Path]


def labelled_features(source: str, label: str, group: str, column: str, where: Iterable[str], encoder: Callable[[], Encoder],
                      bar: Callable[[str], AbstractContextManager[Callable[[int, int], None]]],
                      cache: bool, head_file: str = "") -> tuple[Labelled, Encoder | None]:
    """Labelled data with features: as they are in a table of them, then without encoder; else embedded by `encoder()`.

    `head_file`: a head that is to read them: where it reads the encoder's layers too, the features are those of `Encoder.describe`.
    Pictures that cannot be read are left out and noted; UserError where none can.
    """
    found = labelled.read(source, label, group=group, column=column, where=where)
    if found.features is not None:
        return found, None
    reader = encoder()
    layers = bool(head_file) and bool(stages_of(reader, fitted(head_file, reader).head))
    with bar("embedding") as on_progress:
        seen = embed(found.files, reader, cache=default_cache() if cache else None, layers=layers, on_progress=on_progress)
    if not len(seen.rows):
        raise UserError(f"none of the {len(found)} pictures of {source} can be read; the first: {seen.errors[0]}")
    return found.seen(seen.features, seen.rows, *seen.notes), reader


def text_of(encoder: Encoder | None, data: Labelled, wanted: bool) -> Tensor | None:
    """Prototypes `(k, d)` of the labels in words, in alphabetical order, or None where they are not wanted."""
    if not wanted:
        return None
    if encoder is None:
        raise UserError("a table of features has no encoder to read words with; give pictures, or leave out --words and zero-shot.")
    known = styles()
    words = [known[name].adjective.lower() if name in known else name.replace("-", " ").replace("_", " ") for name in sorted(data.classes)]
    return prototypes(encoder, [[template.format(word) for template in TEMPLATES] for word in words]).cpu()


def save(stem: Path, head: Head | YearHead, data: Labelled, encoder: Encoder | None, source: str, reliability: str, metrics: dict,
         chosen: str, figures: dict[str, float]) -> None:
    """The head and its card: encoder, label, how it was checked and on what."""
    reader = {"encoder": encoder.fingerprint, "encoder_name": encoder.source} if encoder else {"encoder_name": _named(source)}
    table = reader | {"label": data.label, "fitted_by": chosen, "candidates": figures, "group": data.group, "notes": list(data.notes),
                      "seen_groups": sorted(set(data.groups.tolist())) if data.group else [],
                      "metrics": plain(metrics)}
    card.save(stem, replace(head, reliability=reliability), table)


def evaluated(data: Labelled, names: Sequence[str], encoder: Encoder | None, head_file: str, words: bool, folds: int,
              folder: Path, name: str) -> Results:
    """A table of heads on the data called `name`, in a folder too: `metrics.json`, `metrics.csv`, `readings.csv` and diagrams.

    `head_file`: that head alone, as it is; else every head of `names`, fitted in each fold, and where there are several, the choice among
    them, made in each fold without its groups.
    """
    if head_file:
        stem = bare(head_file)
        head = fitted(stem, encoder).head if encoder else card.load(stem)
        fitted_to(torch.from_numpy(data.features[:1]), width(head))
        table = card.read(stem)
        data = _not_seen(data, table["seen_groups"] or ()) if "seen_groups" in table else replace(data, notes=(*data.notes, UNKNOWN))
        if hasattr(head, "expected"):
            data = data.dated()
            years = head.expected(torch.from_numpy(data.features)).double().cpu().numpy()
            return _years({stem.name: years}, data, folder, name)
        data = _known(head, data)
        return _labels({stem.name: _as_it_is(head, data)}, data, folder, name)
    if names[0] in fitting.YEAR_HEADS:
        return _years({names[0]: fitting.unseen_years(data, names[0], folds)}, data, folder, name)
    found = {head: fitting.unseen(data, [head], text_of(encoder, data, words or head == "zero-shot"), folds) for head in names}
    if len(names) > 1:
        found[f"best of {len(names)}, nested"] = fitting.unseen(data, names, text_of(encoder, data, words), folds)
    return _labels(found, data, folder, name)


def explained(picture: Path, encoder: Encoder, probe: str, label: str, stems: Sequence[Path], method: str,
              near: Labelled | None) -> explain.Explanation:
    """The explanation of what one of the encoder's probes, or a head from a file, says of a picture."""
    probes = available(encoder, stems)
    if probe not in probes:
        raise UserError(f"there is no probe {probe!r}{offer(list(probes), complete=True)}.")
    if probe == "content":
        if not label:
            raise UserError("content is read against words; give them with --label.")
        return explain.explain(picture, encoder, lambda seen: explain.words(encoder, label, seen, card.reliability(
            card.shipped("content", encoder))), method=method, labelled=near)
    if hasattr(probes[probe], "look"):
        if label:
            raise UserError("the artifact probe maps damage of every kind, so there is no label to explain; leave it out.")
        if method != "occlusion":
            raise UserError(f"the artifact probe draws its own map of damage, so there is no method {method} of it; leave it out.")
        return explain.damage(picture, probes[probe])
    head = getattr(probes[probe], "head", None)
    if head is None:
        raise UserError(f"the probe {probe} has no head over embeddings to explain; choose another.")
    if label in getattr(probes[probe], "derived", ()):
        aim = probes[probe].derived[label]()
        said = probes[probe].reliabilities[label]
        return explain.explain(picture, encoder, lambda seen: explain.contrast(probe, label, aim, seen, said), method=method, labelled=near,
                               layers=bool(stages_of(encoder, aim.head)))
    return explain.explain(picture, encoder, lambda seen: explain.target(probe, head, seen, label), method=method, labelled=near,
                           layers=bool(stages_of(encoder, head)))


def _labels(found: dict[str, Unseen], data: Labelled, folder: Path, name: str) -> Results:
    metrics = {head: unseen.metrics(data.group, name) for head, unseen in found.items()}
    last = list(found.values())[-1]
    titles = ("head", "accuracy", "balanced accuracy", "ECE", "kappa")
    rows = [(head, _span(m["accuracy"]), _span(m["balanced_accuracy"]), f"{m['calibrated']['ece']:.3f}", f"{m['kappa']:.2f}")
            for head, m in metrics.items()]
    read = [last.names[k] for k in last.probabilities.argmax(1)]
    table = _readings(data, [last.names[k] for k in last.truth], {"read_as": read, "probability": last.probabilities.max(1)})
    files = _write(folder, metrics, table)
    for name, figure in (("confusion", diagrams.confusion(last.confusion(), last.names)),
                         ("reliability", diagrams.reliability(last.probabilities.max(1), last.right))):
        diagrams.save(figure, folder / f"{name}.png")
        files.append(folder / f"{name}.png")
    return Results(_doubted(data, metrics), titles, rows, files)


def _doubted(data: Labelled, metrics: dict[str, dict]) -> Labelled:
    """With a note for each head that reads no better than chance."""
    return replace(data, notes=(*data.notes, *(f"{head} reads {data.label} {said}" for head, m in metrics.items()
                                               if (said := reliability.by_chance(m)))))


def _years(found: dict[str, np.ndarray], data: Labelled, folder: Path, name: str) -> Results:
    metrics = {head: fitting.year_metrics(years, data, name) for head, years in found.items()}
    titles = ("head", "mean error", "of the median", "rank corr.", "slope")
    rows = [(head, _span(m["mae"], ".1f"), f"{m['mae_of_median']:.1f}", f"{m['spearman']:.3f}", f"{m['slope']:.3f}")
            for head, m in metrics.items()]
    read = list(found.values())[-1]
    table = _readings(data, data.labels, {"read_as": read})
    files = _write(folder, metrics, table)
    diagrams.save(diagrams.years(data.years(), read), folder / "years.png")
    return Results(_doubted(data, metrics), titles, rows, [*files, folder / "years.png"])


def _readings(data: Labelled, truth: Sequence, read: dict[str, Sequence]) -> pd.DataFrame:
    """A row for each example: its name and group, its label under the label's own name (`true_...` where that is taken), what was read."""
    kept = {"name": data.names, "group": data.groups}
    label = f"true_{data.label}" if data.label in {*kept, *read} else data.label
    return pd.DataFrame(kept | {label: truth} | read)


def _write(folder: Path, metrics: dict[str, dict], readings: pd.DataFrame) -> list[Path]:
    write_text(folder / "metrics.json", json.dumps(plain(metrics), indent=1, ensure_ascii=False) + "\n")
    flat = pd.json_normalize([{"head": head} | m for head, m in metrics.items()]).drop(columns="confusions", errors="ignore")
    for name, table in (("metrics", flat), ("readings", readings)):
        with replacing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    return [folder / name for name in ("metrics.json", "metrics.csv", "readings.csv")]


def _not_seen(data: Labelled, groups: Sequence[str]) -> Labelled:
    """The rows of groups that a head was not fitted to: on the others it would look better than it is."""
    seen = np.isin(data.groups, list(groups)) if data.group else np.zeros(len(data), bool)
    if seen.all():
        raise UserError(f"the head was fitted to every {data.group} of these pictures, so they say nothing of others; give pictures that "
                        "it has not seen, or check how it is fitted with --head.")
    return data.take(~seen, f"left out, the head was fitted to their {data.group}: {seen.sum()} pictures") if seen.any() else data


def _known(head: Head, data: Labelled) -> Labelled:
    """The rows whose labels the head knows."""
    known = np.isin(data.labels, head.labels)
    strange = sorted(set(data.labels[~known].tolist()))
    if len(set(data.labels[known].tolist())) < 2:
        raise UserError(f"a head is checked on two of its labels or more ({', '.join(head.labels)}); "
                        f"these are {', '.join(data.classes[:8])}.")
    return data.take(known, f"left out, labels that the head does not know: {', '.join(strange)}") if strange else data


def _as_it_is(head: Head, data: Labelled) -> Unseen:
    """Readings by a head of rows whose labels it knows; those of its labels that no row has come last."""
    there = [label for label in head.labels if label in set(data.labels.tolist())]
    with torch.no_grad():
        probabilities = head.probabilities(torch.from_numpy(data.features)).double().cpu().numpy()
    order = [*(head.labels.index(label) for label in there), *(k for k, label in enumerate(head.labels) if label not in there)]
    names = tuple(head.labels[k] for k in order)
    truth = np.array([names.index(label) for label in data.labels])
    return Unseen(probabilities[:, order], truth, data.groups, names, ())


def _named(source: str) -> str:
    """Features in a table come from nobody knows which encoder, unless it is named."""
    return "" if source == "embedded" else source


def _span(interval: dict, form: str = ".3f") -> str:
    return f"{interval['value']:{form}} ({interval['low']:{form}}-{interval['high']:{form}})"
