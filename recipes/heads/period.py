"""The period head: a softmax over bins of years, its temperature, and a monotone recalibration on artists it has not seen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from probes.heads import ordinal
from probes.heads.ordinal import Ordinal
from recipes.heads.features import Paintings
from recipes.metrics import year_figures

CENTRES = np.arange(1450.0, 1941.0, 35.0)  # of the bins
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


def fit(paintings: Paintings) -> tuple[Ordinal, dict]:
    """The head, calibrated on half of the test artists, and its figures on the others."""
    features, rows = paintings.fitted
    years = paintings.table["year"].to_numpy(np.float64)[rows]
    readable = (years > CENTRES[0] - WIDTH) & (years < CENTRES[-1] + WIDTH)  # False for NaN
    head = ordinal.fit(features[readable], years[readable], centres=CENTRES, width=WIDTH, pull=1.0)
    years = paintings.tested["year"].to_numpy(np.float64)
    dated, artists = ~np.isnan(years), paintings.tested["artist"]
    first, other = dated & paintings.half, dated & ~paintings.half
    held = torch.from_numpy(paintings.held)
    figures = {"before recalibration": year_figures(head.expected(held[other]).numpy(), years[other], artists[other])}
    head = ordinal.recalibrate(head, held[first], years[first])
    low, high = (edge.numpy() for edge in head.span(held[other]))
    figures |= year_figures(head.expected(held[other]).numpy(), years[other], artists[other])
    figures["years inside the 80 % span"] = float(((low <= years[other]) & (years[other] <= high)).mean())
    inside = within(head.expected(held[dated]).numpy(), years[dated], paintings.tested[dated])
    figures["within a style"] = inside
    low, high = figures["interval"]
    reliability = (
        f"mean error {figures['mae']:.0f} years on {figures['images']} dated paintings by {figures['artists']} unseen artists "
        f"(95 % over artists {low:.0f}-{high:.0f}; guessing the median errs {figures['mae_of_median']:.0f}), "
        f"rank correlation {figures['spearman']:.2f}"
    )
    if inside:
        mean = np.average([style["spearman"] for style in inside.values()], weights=[style["images"] for style in inside.values()])
        reliability += f", {mean:.2f} within a style"
    return replace(head, reliability=reliability), {"metrics": figures}
