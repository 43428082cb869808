"""Measure the judges on artists that no model here has seen; their cards, into `work/<name>/model/card.json`.

python -m recipes.measure_judges --data paintings/ --work work/
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from probes.atomic import write_text
from probes.errors import UserError
from probes.image import resize
from probes.judges import GENRES, STYLES, build
from recipes import data, options
from recipes.corruptions import CORRUPTIONS, corrupt
from recipes.metrics import artist_halves, ece, ece_of_perfect, fit_temperature, softmax, style_figures, whose, year_figures

OBJECTIVES = {"referee": "cross-entropy", "verdict": "kernel ridge regression"}
ARCHITECTURES = {"referee": "bag of local features", "verdict": "fixed statistics of colour and texture"}


@torch.no_grad()
def opinions(model, images, rows, device, generator=None, larger=False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The judge's outputs over `rows`, and the severity of the damage done to them (0 without a generator).

    It sees their central 128 pixels, as many as the pictures of the embedded pipeline have; with `larger` the whole painting, enlarged
    twice, which it shrinks itself as it does any file of an audit.
    """
    outputs, severities = [], []
    for index in track(range(0, len(rows), 128), description="judging"):
        pixels = data.batch(images, rows[index : index + 128], device)
        pixels = resize(pixels, 2 * pixels.shape[-1]) if larger else data.centre_crop(pixels, 128)
        severity = torch.zeros(len(pixels))
        if generator is not None:
            pixels, severity = corrupt(pixels, generator)
        outputs.append({name: value.float().cpu() for name, value in model(pixels).items()})
        severities.append(severity)
    return {name: torch.cat([out[name] for out in outputs]).numpy() for name in outputs[0]}, torch.cat(severities).cpu().numpy()


def genres(logits: np.ndarray, tested: pd.DataFrame, half: np.ndarray, fitted: bool) -> tuple[float, dict]:
    """A temperature of the genre logits `(n, g)` from the paintings of `half`, 1 unless `fitted`, and figures with it on all paintings.

    Those hold, where it was fitted, `other half`: the ECE on the rest, beside that of the plain logits.
    """
    labels = pd.Categorical(tested["genre"].where(tested["genre"].isin(GENRES)), GENRES).codes
    known = labels >= 0
    temperature = fit_temperature(logits[known & half], labels[known & half]) if fitted else 1.0
    figures = style_figures(softmax(logits[known] / temperature), labels[known], tested["artist"][known], GENRES)
    rest = known & ~half
    if fitted and rest.any():
        probabilities = softmax(logits[rest] / temperature)
        figures["other half"] = {
            "images": int(rest.sum()),
            **whose(tested["artist"][rest]),
            "ece": ece(probabilities, labels[rest]),
            "ece_of_perfect": ece_of_perfect(probabilities),
            "ece without temperature": ece(softmax(logits[rest]), labels[rest]),
        }
    return temperature, figures


def card(name: str, work: Path, images, table: pd.DataFrame, device) -> tuple[dict, np.ndarray]:
    """The card's content and the style guesses on all test paintings of known style."""
    weights = work / name / "model" / "model.safetensors"
    options.needed(weights, name)
    model = build(name).to(device)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
    test = np.flatnonzero((table["split"] == "test") & table["style"].isin(STYLES))
    if not len(test):
        raise UserError(f"No image of split test has a style that the judges know ({', '.join(STYLES)}): there is nothing to measure on.")
    tested = table.iloc[test]
    labels = pd.Categorical(tested["style"], STYLES).codes
    out, _ = opinions(model, images, test, device)
    half = artist_halves(tested["artist"])
    temperature = fit_temperature(out["style_logits"][half], labels[half])
    probabilities = softmax(out["style_logits"] / temperature)
    everything = style_figures(probabilities, labels, tested["artist"], STYLES)
    calibrated = style_figures(probabilities[~half], labels[~half], tested["artist"][~half], STYLES)
    years = tested["year"].to_numpy(np.float64)
    dated = ~np.isnan(years)
    # A line from reading to truth on the half that also gave the temperature; the error is measured on the other.
    known = dated & half
    slope, offset = np.polyfit(out["year"][known], years[known], 1) if len(set(out["year"][known])) > 1 else (1.0, 0.0)
    read = dated & ~half
    # What cross-entropy trained needs none: the referee's came to 1.04 and left its ECE on the other half where it was (.084, then .091).
    genre_temperature, genre = genres(out["genre_logits"], tested, half, OBJECTIVES[name] != "cross-entropy")
    rows = test[::3]
    damaged, severity = opinions(model, images, rows, device, torch.Generator().manual_seed(7))
    metrics = {
        "style": everything,
        "ece_other_half": calibrated.get("ece"),
        "year": year_figures(slope * out["year"][read] + offset, years[read], tested["artist"][read]),
        "genre": genre,
        "severity": {
            "images": len(rows),
            "kinds": sorted(CORRUPTIONS),
            "spearman": float(spearmanr(damaged["severity"], severity).statistic),
            "mean on undamaged": float(out["severity"].mean()),
        },
    }
    whole, _ = opinions(model, images, test, device, larger=True)
    metrics["whole files"] = {
        "read from": f"{2 * images.shape[1]} pixels",
        "style": style_figures(softmax(whole["style_logits"] / temperature), labels, tested["artist"], STYLES),
        "year": year_figures(slope * whole["year"][read] + offset, years[read], tested["artist"][read]),
        "severity": {"mean on undamaged": float(whole["severity"].mean())},
    }
    training = json.loads((work / name / "model" / "training.json").read_text())
    return {
        "labels": list(STYLES),
        "genre_labels": list(GENRES),
        "temperature": temperature,
        "genre_temperature": genre_temperature,
        "year_map": [float(slope), float(offset)],
        "recall": everything["recall"],
        "side": model.side,
        "lineage": {"data": "judge", "architecture": ARCHITECTURES[name], "objective": OBJECTIVES[name]},
        "training": training,
        "metrics": metrics,
    }, probabilities.argmax(1)


def main(folder: options.Data, work: options.Work = Path("work"), device: options.Device = "auto"):
    device = options.device(device)
    images, table = data.paintings(folder, work)
    cards, guesses = {}, {}
    for name in OBJECTIVES:
        cards[name], guesses[name] = card(name, work, images, table, device)
    kappa = float(cohen_kappa_score(guesses["referee"], guesses["verdict"]))
    for name, content in cards.items():
        content["metrics"]["agreement of the two judges (kappa)"] = kappa
        write_text(work / name / "model" / "card.json", json.dumps(content, indent=1))


if __name__ == "__main__":
    options.start(main)
