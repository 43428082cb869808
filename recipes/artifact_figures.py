"""What an artifact head is worth on artists that no model here has seen: the order of severities, the place, codecs and false alarms."""

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Generator, Tensor

from probes.heads.patch import EDGE, Patch
from recipes import data
from recipes.corruptions import LEAST, VARIANTS, Kind, change, inject, patches, region
from recipes.metrics import by, hands, over_artists, whose
from recipes.round_trips import Trip

LEVELS = 5
CLEAN_PER_STYLE = 24


@torch.no_grad()
def read(head: Patch, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores `(n,)`, maps `(n, h, w)` and the likeliest kind `(n,)`."""
    score, severity, kinds = head.look(pixels)
    return score, severity, kinds.argmax(1)


def stepwise(clean: Tensor, name: str, kind: Kind, mask: Tensor, seed: int) -> Tensor:
    """The same damage at `LEVELS` strengths, `(LEVELS, 3, h, w)`."""
    if name == "adversarial":  # proportional to its strength, and a gradient apiece is dear
        full = kind(clean, 1.0, mask, Generator().manual_seed(seed))
        kind = lambda x, s, _mask, _generator: torch.lerp(x, full, s)  # noqa: E731
    return torch.cat([inject(clean, kind, (step + 1) / LEVELS, mask, Generator().manual_seed(seed)) for step in range(LEVELS)])


def localisation(truth: Tensor, found: Tensor) -> float:
    """Area under the ROC curve of one map against the patches hit and spared; NaN where there are none of either."""
    known = ~truth.isnan()
    hit = truth[known] > 0
    return float(roc_auc_score(hit, found[known])) if hit.any() and not hit.all() else float("nan")


def series(head: Patch, clean: Tensor, name: str, kind: Kind, mask: Tensor, seed: int) -> dict:
    """What one painting says about one kind of damage: a row."""
    levels = stepwise(clean, name, kind, mask, seed)
    changed = change(clean.expand_as(levels), levels, mask)
    visible, truth = changed >= LEAST, patches(clean, levels, mask, EDGE)
    scores, maps, likeliest = read(head, levels)
    areas = [localisation(truth[level], maps[level]) for level in range(LEVELS) if visible[level]]
    areas = [area for area in areas if area == area]
    rank = spearmanr(changed[visible], scores[visible]).statistic if int(visible.sum()) > 2 else float("nan")
    named = [head.kinds[int(number)] == name for number in likeliest[visible]]
    return {"spearman": rank, "auc": np.mean(areas) if areas else float("nan"), "left out": int((~visible).sum()),
            "named": np.mean(named) if named else float("nan"), "severe": float(scores[-1]),
            "alarmed": float(scores[-1] > head.alarm)}  # fmt: skip


def one(head: Patch, clean: Tensor, every: dict[str, Kind], through: dict[str, Trip], seed: int) -> tuple[list, list]:
    """What one painting says about each kind of damage and its variants, and about each round trip: two lists of rows."""
    mask = region(head.side, head.side, Generator().manual_seed(seed))
    told = {"clean": float(read(head, clean)[0])}
    rows = [told | {"kind": name, "variant": ""} | series(head, clean, name, kind, mask, seed) for name, kind in every.items()]
    for name in filter(VARIANTS.__contains__, every):
        for variant, kind in VARIANTS[name].items():
            rows.append(told | {"kind": name, "variant": variant} | series(head, clean, name, kind, mask, seed))
    generator, tripped = Generator().manual_seed(seed), []
    name = list(every)[seed % len(every)]
    severe = stepwise(clean, name, every[name], mask, seed)[-1:]
    for trip, way in through.items():
        both = torch.cat([clean, severe])
        before, after = (read(head, pixels)[0] for pixels in (both, way(both, generator)))
        tripped.append({"trip": trip, "clean": float(after[0] - before[0]), "severe": float(after[1] - before[1])})
    return rows, tripped


def figures(head: Patch, every: dict[str, Kind], images, table: pd.DataFrame, through: dict[str, Trip],
            tested: int, seed: int) -> dict:  # fmt: skip
    """Everything on the card; intervals from a bootstrap over artists."""
    rng, test = np.random.default_rng(seed + 7), np.flatnonzero(table["split"] == "test")
    hand = hands(table["artist"])  # a painting has several rows here, and an unnamed hand keeps them together
    chosen, rows, tripped = rng.choice(test, min(tested, len(test)), replace=False), [], []
    for number, painting in enumerate(track(chosen, description="measuring")):
        clean = data.centre_crop(data.batch(images, np.array([painting])), head.side)
        who = {"artist": hand.iloc[painting]}
        by_kind, by_trip = one(head, clean, every, through, 1000 * seed + number)
        rows += [who | row for row in by_kind]
        tripped += [who | row for row in by_trip]
    measured = pd.DataFrame(rows)
    found, variants = measured[measured["variant"] == ""], measured[measured["variant"] != ""]
    span = max(float((found["severe"] - found["clean"]).mean()), 1e-6)
    moves = pd.DataFrame(tripped)
    return {
        "paintings": len(chosen), **whose(table["artist"].iloc[chosen]), "levels": LEVELS,
        "left out below 2/255": int(found["left out"].sum()), "of": len(found) * LEVELS, "all": _figures(found),
        "kinds": {name: _figures(found[found["kind"] == name]) for name in every}, "clean to severe": span,
        "variants": {name: {variant: _figures(part) for variant, part in rows.groupby("variant", sort=False)}
                     for name, rows in variants.groupby("kind")},
        "round trips": {name: _tripped(moves[moves["trip"] == name], span) for name in through},
        "false alarms": _alarms(head, images, table, test, rng),
    }  # fmt: skip


def _figures(found: pd.DataFrame) -> dict:
    """Shares and means with 95 % intervals over artists."""
    ranked, placed = found.dropna(subset=["spearman"]), found.dropna(subset=["auc"])
    out = {"series": len(ranked)}
    if len(ranked):
        rising = (ranked["spearman"] > 0).to_numpy()
        out |= {"rising": float(rising.mean()), "rising interval": over_artists(ranked["artist"], lambda rows: rising[rows].mean())}
    if len(placed):
        area = placed["auc"].to_numpy()
        out |= {"auc": float(area.mean()), "auc interval": over_artists(placed["artist"], lambda rows: area[rows].mean())}
    return out | {"named": float(found["named"].mean()), "alarmed at severest": float(found["alarmed"].mean()),
                  "clean": float(found["clean"].mean()), "severest": float(found["severe"].mean())}


def _tripped(moves: pd.DataFrame, span: float) -> dict:
    """How far one round trip moves the score, up or down, in shares of the mean clean-to-severe range."""
    moved = moves["clean"].abs().to_numpy() / span
    interval = over_artists(moves["artist"], lambda rows: moved[rows].mean())
    return {"paintings": len(moves), "clean": float(moved.mean()), "clean interval": interval,
            "clean, 95 % below": float(np.quantile(moved, 0.95)), "severest": float(moves["severe"].abs().mean() / span)}


def _alarms(head: Patch, images, table: pd.DataFrame, test: np.ndarray, rng: np.random.Generator) -> dict:
    """By style, how many clean paintings were tested, the share above the alarm, and the kind that most of those are taken for."""
    out = {}
    for style, rows in table.iloc[test].groupby("style").indices.items():
        chosen = rng.choice(test[rows], min(CLEAN_PER_STYLE, len(rows)), replace=False)
        scores, _, kinds = read(head, data.centre_crop(data.batch(images, chosen), head.side))
        loud = scores > head.alarm
        mistaken = head.kinds[int(kinds[loud].mode().values)] if loud.any() else ""
        share, mean = float(loud.float().mean()), float(scores.mean())
        out[style] = {"paintings": len(chosen), "alarmed": share, "mean": mean, "mistaken for": mistaken}
    return out


def sentence(figures: dict) -> str:
    """The card's sentence on how far to trust the reading."""
    every, areas = figures["all"], {name: found["auc"] for name, found in figures["kinds"].items() if "auc" in found}
    trips = [found["clean"] for found in figures["round trips"].values() if "clean" in found]
    parts = [f"injected damage on {figures['paintings']} paintings {by(figures)}"]
    if "auc" in every and "rising" in every:
        low, high = every["auc interval"]
        parts.append(f"localisation AUC {every['auc']:.2f} (95 % over artists {low:.2f}-{high:.2f})")
        parts.append(f"rises with severity on {every['rising']:.0%} of images")
    for word, least, most in (("finds", 0.85, 1.01), ("hardly", 0.0, 0.7)):
        kinds = [name for name, area in areas.items() if least <= area < most]
        parts += [f"{word} {', '.join(kinds)}"] if kinds else []
    for name, variants in figures.get("variants", {}).items():
        missed = [variant for variant, found in variants.items() if found.get("auc", 1.0) < 0.85]
        parts += [f"of {name} less well {', '.join(missed)}"] if missed else []
    if trips:
        parts.append(f"a round trip moves a clean image by {max(trips):.2f} of the clean-to-severe range")
    return "; ".join(parts)
