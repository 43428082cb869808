"""The period head: a softmax over bins of years, its temperature, and a monotone recalibration on artists it has not seen.

The logits of the embedding and those of what the layers say are added: together they order years a little better than either, and steering
reaches light and brushwork through the layers.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from probes.errors import UserError
from probes.heads import ordinal
from probes.heads.ordinal import Ordinal
from recipes.heads import discriminant
from recipes.heads.features import Paintings
from recipes.metrics import by, softmax, year_figures

CENTRES = np.arange(1450.0, 1941.0, 35.0)  # of the bins
NEVER = -30.0  # log-odds of a bin that no painting falls into
LEAST_SLOPE = 0.5  # of the recalibration: where it is flat, a period hardly pulls beside a style
WIDTH = 60.0  # half-width in years of a painting's soft label: a neighbouring bin is half right
FEWEST = 40  # dated test paintings of a style, by three artists or more, for the order of its years to be told


def within(guess: np.ndarray, years: np.ndarray, table: pd.DataFrame) -> dict[str, dict]:
    """Rank correlation of reading and year inside each style: what is left of a year once the style is known."""
    found = {}
    for style in sorted(set(table["style"])):
        rows = (table["style"] == style).to_numpy()
        if rows.sum() >= FEWEST and table["artist"][rows].nunique() >= 3 and len(set(guess[rows])) > 1:
            found[style] = {
                "images": int(rows.sum()),
                "spearman": round(float(spearmanr(guess[rows], years[rows]).statistic), 2),
                "spread in years": round(float(years[rows].std())),
            }
    return found


def layered(paintings: Paintings, years: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Weight `(m, described)` and bias `(m,)` over the bins by discriminant analysis of what the layers say, and its shrinkage, by the rank
    correlation of the judge split's years."""
    described, rows = paintings.described
    soft = np.clip(1 - np.abs(np.nan_to_num(years, nan=-1e5)[:, None] - CENTRES) / WIDTH, 0, None)
    soft /= np.maximum(soft.sum(1, keepdims=True), 1e-12)
    judged = years[paintings.rows("judge")]
    known = ~np.isnan(judged)
    found = discriminant.fits(described, soft[rows], discriminant.evened(paintings.table["artist"], soft)[rows])

    def ordered(logits: np.ndarray) -> float:
        return float(spearmanr(softmax(logits) @ CENTRES, judged[known]).statistic)

    shrinkage, (weight, bias) = discriminant.best(found, paintings.choosing[known] if known.any() else paintings.choosing[:0], ordered)
    return weight, np.where(soft[rows].sum(0) > 0, bias, NEVER).astype(np.float32), shrinkage


def fit(paintings: Paintings) -> tuple[Ordinal, dict]:
    """The head, calibrated on half of the test artists, and its figures on the others."""
    features, rows = paintings.fitted
    table_years = paintings.table["year"].to_numpy(np.float64)
    years = table_years[rows]
    readable = (years > CENTRES[0] - WIDTH) & (years < CENTRES[-1] + WIDTH)  # False for NaN
    if len(set(years[readable])) < 2:
        raise UserError("The guide split has not two images of different years: a head of years has nothing to learn from.")
    head = ordinal.fit(features[readable], years[readable], centres=CENTRES, width=WIDTH, pull=1.0)
    years = paintings.tested["year"].to_numpy(np.float64)
    dated, artists = ~np.isnan(years), paintings.tested["artist"]
    first, other = dated & paintings.half, dated & ~paintings.half
    if first.sum() < 2 or other.sum() < 2:
        raise UserError(
            f"A head of years is calibrated on one half of the test artists and measured on the other: of their images {first.sum()} and "
            f"{other.sum()} have a year, two each are needed."
        )
    held, told = torch.from_numpy(paintings.held), torch.from_numpy(paintings.told)
    alone, shrinkage = ordinal.recalibrate(head, held[first], years[first]), None
    figures = {"embedding alone": year_figures(alone.expected(held[other]).numpy(), years[other], artists[other])}
    if told.shape[1] > held.shape[1]:
        # Both calibrated before they are added, as if they were independent; the temperature of the sum mends that they are not.
        weight, bias, shrinkage = layered(paintings, table_years)
        beside = replace(alone, weight=torch.from_numpy(weight), bias=torch.from_numpy(bias), temperature=1.0)
        beside = ordinal.recalibrate(beside, told[first], years[first])
        weight = beside.weight / beside.temperature
        weight[:, : held.shape[1]] += alone.weight / alone.temperature
        head = replace(alone, weight=weight, bias=beside.bias / beside.temperature + alone.bias / alone.temperature, temperature=1.0)
        head = replace(head, recalibration_x=told.new_zeros(0), recalibration_y=told.new_zeros(0))
        held = told
    figures["before temperature and recalibration"] = year_figures(head.expected(held[other]).numpy(), years[other], artists[other])
    head = ordinal.recalibrate(head, held[first], years[first], least_slope=LEAST_SLOPE)
    low, high = (edge.numpy() for edge in head.span(held[other]))
    figures |= year_figures(head.expected(held[other]).numpy(), years[other], artists[other])
    figures["years inside the 80 % span"] = float(((low <= years[other]) & (years[other] <= high)).mean())
    inside = within(head.expected(held[dated]).numpy(), years[dated], paintings.tested[dated])
    figures["within a style"] = inside
    low, high = figures["interval"]
    reliability = (
        f"mean error {figures['mae']:.0f} years on {figures['images']} dated paintings {by(figures)} "
        f"(95 % over artists {low:.0f}-{high:.0f}; guessing the median errs {figures['mae_of_median']:.0f}), "
        f"rank correlation {figures['spearman']:.2f}"
    )
    if inside:
        mean = np.average([style["spearman"] for style in inside.values()], weights=[style["images"] for style in inside.values()])
        reliability += f", {mean:.2f} within a style"
    return replace(head, reliability=reliability), {"metrics": figures, "shrinkage": shrinkage}
