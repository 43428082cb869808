"""Fit the heads that ship for OpenAI's CLIP ViT-L/14@336 to published features of real paintings and of pictures by models.

python -m recipes.expert_heads --data clip-features/ --out probes/embedded/heads/vit-l-14-336
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.labelled_features import Labelled, read
from probes import calibration, domain, reliability
from probes.evaluation import splits
from probes.heads import card, stacked
from recipes import options

ENCODER = "ViT-L-14-336:openai"
# The museum's words for styles, as the keys of configs/styles.
STYLES = {"Abstract Expressionist": "abstract-expressionism", "Baroque": "baroque", "Fauve": "fauvism", "Impressionist": "impressionism",
          "Minimalist": "minimalism", "Naive": "naive-art", "Post-Impressionist": "post-impressionism", "Realist": "realism",
          "Renaissance": "renaissance", "Rococo": "rococo", "Romantic": "romanticism"}
PAINTINGS = "the National Gallery of Art set"
PICTURES = "AI-Pastiche"
RATINGS = {"defects": ("without defects", "with defects"), "authenticity": ("by a model", "by a person"),
           "adherence": ("beside the prompt", "to the prompt")}
LICENCE = ("National Gallery of Art open data is CC0; AI-Pastiche is published as CC0; features from the companion material of "
           "arXiv:2505.05229")


def out_of_fold(labelled: Labelled, fit: Callable, labels: np.ndarray | None, folds: int) -> torch.Tensor:
    """Logits of each image by heads that have not seen its artist or prompt."""
    fold, logits = splits(labels, labelled.artist, folds, 0), {}
    for number in range(folds):
        held = np.flatnonzero(fold == number)
        logits |= dict(zip(held, fit(np.flatnonzero(fold != number)).logits(labelled.tensor[held]), strict=True))
    return torch.stack([logits[row] for row in range(len(fold))])


def cross_fitted(groups: tuple, fit: Callable, apply: Callable, count: int) -> np.ndarray:
    """What `apply(fit(rows), others)` gives of each half of the groups by the other half."""
    half = splits(None, groups, 2, 1)
    parts = {side: apply(fit(np.flatnonzero(half != side)), np.flatnonzero(half == side)) for side in (0, 1)}
    out = np.zeros((count, *parts[0].shape[1:]))
    for side, part in parts.items():
        out[half == side] = part
    return out


def classes(labelled: Labelled, fit: Callable, truth: np.ndarray, names: tuple[str, ...], held_out: str, data: str) -> tuple:
    """A calibrated head over labels and its card's figures; the temperature behind the figures comes from the other half of the groups."""
    logits, target = out_of_fold(labelled, fit, truth, 5), torch.from_numpy(truth)
    after = cross_fitted(labelled.artist, lambda rows: calibration.temperature(logits[rows], target[rows]),
                         lambda t, rows: (logits[rows] / t).softmax(-1).numpy(), len(truth))
    figures = reliability.of_labels(after, truth, names, labelled.artist, held_out=held_out, data=data,
                                    before=logits.softmax(-1).numpy())
    head = fit(np.arange(len(truth)))
    return replace(head, temperature=calibration.temperature(logits, target), labels=names), figures


def period(nga: Labelled) -> tuple:
    """A head over the spans that date the paintings, its mean stretched so that early years do not read late."""
    years, named = nga.years, nga.one_hot("style", 7)

    def fit(rows):
        head = stacked.fit_bins(nga.features[rows], years[rows], nga.groups(rows), companions=named[rows])
        if len(head.centres) < len(centres):  # a fold without the rarest span
            place = torch.searchsorted(centres, head.centres)
            weight = head.weight.new_zeros(len(centres), head.weight.shape[1]).index_copy(0, place, head.weight)
            bias = head.bias.new_full((len(centres),), -1e4).index_copy(0, place, head.bias)
            return replace(head, weight=weight, bias=bias, centres=centres)
        return head
    centres = torch.from_numpy(np.unique(years)).float()
    logits = out_of_fold(nga, fit, None, 10)
    mean = (logits.softmax(-1) @ centres).numpy()

    def stretch(rows):
        return np.polyfit(years[rows], mean[rows], 1)[0], mean[rows].mean()
    after = cross_fitted(nga.artist, stretch, lambda found, rows: found[1] + (mean[rows] - found[1]) / found[0], len(years))
    figures = reliability.of_numbers(after, years, nga.artist, held_out="artists", data=PAINTINGS, unit="years",
                                     steps=np.arange(1300, 2001, 100))
    figures["before the stretch"] = {"mae": float(np.abs(mean - years).mean()), "slope": float(np.polyfit(years, mean, 1)[0])}
    slope, middle = stretch(np.arange(len(years)))
    x = centres[[0, -1]]
    head = replace(fit(np.arange(len(years))), recalibration_x=x, recalibration_y=middle + (x - middle) / float(slope))
    return head, figures


def rating(made: Labelled, name: str) -> tuple:
    """A head that reads which share of people would say so."""
    known = {column: made.frame[column].to_numpy(float) for column in RATINGS}
    companions = np.concatenate([np.stack(list(known.values()), 1), made.one_hot("generative_model", 1)], 1)
    truth = known[name]
    shares = np.stack([1 - truth, truth], 1)

    def fit(rows):
        return stacked.fit(made.features[rows], shares[rows], RATINGS[name], made.groups(rows), companions=companions[rows], balance=0.,
                           pull=.3)
    after = out_of_fold(made, fit, None, 10).softmax(-1)[:, 1].numpy()
    figures = reliability.of_numbers(after, truth, made.artist, held_out="prompts", data=PICTURES, unit="of the votes", inside=made.artist)
    return fit(np.arange(len(truth))), figures


def main(data: Annotated[Path, typer.Option(help="Folder with nga.parquet and ai_pastiche.parquet.")],
         out: Annotated[Path, typer.Option(help="Where the heads go.")] = Path("work/heads/vit-l-14-336")):
    nga, made = read(data / "nga.parquet", "artist"), read(data / "ai_pastiche.parquet", "prompt")
    names, truth, rows = nga.classes("style", 15)
    known, dated = nga.take(rows), ((nga.years[rows] - nga.years[rows].mean()) / nga.years[rows].std())[:, None]

    def style(rows):
        return stacked.fit(known.features[rows], truth[rows], names, known.groups(rows), companions=dated[rows], influence=2.)
    both = nga.beside(made)
    whose = np.r_[np.zeros(len(nga.features), int), np.ones(len(made.features), int)]

    def origin(rows):
        return stacked.fit(both.features[rows], whose[rows], ("person", "model"), both.groups(rows), influence=2., pull=.1)
    found = {"style": classes(known, style, truth, tuple(STYLES[name] for name in names), "artists", PAINTINGS), "period": period(nga),
             "origin": classes(both, origin, whose, ("person", "model"), "artists and prompts", f"{PAINTINGS} and {PICTURES}"),
             **{name: rating(made, name) for name in RATINGS}}
    for name, (head, figures) in found.items():
        sentence = reliability.sentence(figures)
        if name in RATINGS:
            sentence += " a prompt: compare pictures of one prompt"
        head = replace(head, weight=head.weight.half(), reliability=sentence)
        card.save(out / name, head, {"encoder_name": ENCODER, "licence": LICENCE, "recipe": "python -m recipes.expert_heads",
                                     "metrics": figures})
        print(f"{name}: {sentence}")
    near = domain.fit(nga.tensor, nga.artist)
    said = "percentiles of paintings of the National Gallery of Art whose artists were held out"
    domain.save(out / "domain", near, {"encoder_name": ENCODER, "recipe": "python -m recipes.expert_heads", "reliability": said})
    print(f"domain: half of the pictures by models lie beyond {near.percentile(made.tensor).median():.0f} % of the held-out paintings")


if __name__ == "__main__":
    options.start(main)
