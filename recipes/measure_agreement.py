"""Let the CLIP and both judges read the same pictures: their figures side by side, and how often they agree, on real and on generated ones.

    python -m recipes.measure_agreement --data paintings/ --work work/

Reads what is installed in `probes/embedded`; generated pictures are those of `recipes/samples.py`. Into `work/agreement.json`.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import typer
from rich.progress import track
from sklearn.metrics import cohen_kappa_score

from probes import encoders, judge
from probes.atomic import write_text
from probes.judges import STYLES
from probes.style import StyleProbe
from recipes import data, options, samples
from recipes.metrics import artist_halves, balanced_accuracy, family_figures, gain_figures


@torch.no_grad()
def readings(batches: Iterable[torch.Tensor], device: str) -> dict[str, np.ndarray]:
    """Style probabilities `(n, 15)` in the order of STYLES by the CLIP's head and by the judges."""
    encoder = encoders.load("embedded", device)
    probe, judges = StyleProbe(encoder), {name: judge.load(name, device) for name in ("referee", "verdict")}
    said: dict[str, list] = {"clip": [], **{name: [] for name in judges}}
    for images in batches:
        images = images.to(device)
        said["clip"].append(ordered(probe.read(encoder.describe(images))["style_probabilities"], probe.labels))
        for name, network in judges.items():
            said[name].append(ordered(network(images).styles, network.labels))
    return {name: torch.cat(parts).float().numpy() for name, parts in said.items()}


def ordered(probabilities: torch.Tensor, labels: Sequence[str]) -> torch.Tensor:
    """Columns `(n, 15)` in the order of STYLES; 0 for a style that is not among `labels`: a head learns those of its paintings alone."""
    found = probabilities.new_zeros(len(probabilities), len(STYLES))
    for index, style in enumerate(STYLES):
        if style in labels:
            found[:, index] = probabilities[:, labels.index(style)]
    return found.cpu()


def agreement(said: dict[str, np.ndarray], labels: np.ndarray) -> dict:
    """Cohen's kappa and share of equal first guesses for each pair, and how well each guesses what was painted or asked for."""
    first = {name: probabilities.argmax(1) for name, probabilities in said.items()}
    pairs = {
        f"{a}, {b}": {"kappa": float(cohen_kappa_score(first[a], first[b])), "same": float((first[a] == first[b]).mean())}
        for a, b in combinations(first, 2)
    }
    right = {name: balanced_accuracy(labels, guess) for name, guess in first.items()}
    return {"images": len(labels), "pairs": pairs, "balanced_accuracy": right}


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    device: options.Device = "auto",
    most: samples.Most = samples.MOST,
    fewest: samples.Fewest = samples.FEWEST,
    steps: samples.Steps = None,
):
    device = str(options.device(device))
    images, table = data.paintings(folder, work)
    test = np.flatnonzero((table["split"] == "test") & table["style"].isin(STYLES))
    tested = table.iloc[test]
    labels = tested["style"].map(STYLES.index).to_numpy()
    parts = track(np.array_split(test, -(-len(test) // 128)), description="reading paintings")
    real = readings((data.batch(images, rows) for rows in parts), device)  # whole, as the heads and the baseline are measured
    figures = {
        "real": agreement(real, labels),
        "families": {name: family_figures(said, labels, tested["artist"]) for name, said in real.items()},
    }
    # The CLIP's temperature comes from one half of the artists; its comparisons are on the other.
    other = ~artist_halves(tested["artist"])
    judged = work / "baseline" / "test.npz"
    if judged.exists():
        with np.load(judged) as kept:
            place = {row: index for index, row in enumerate(kept["rows"].tolist())}
            baseline = kept["probabilities"][[place[row] for row in test]]
        guesses = (said.argmax(1)[other] for said in (real["clip"], baseline))
        figures["clip against the baseline"] = gain_figures(*guesses, labels[other], tested["artist"][other])
    wishes = samples.of_titles(table, most, fewest)
    made = samples.tensor(samples.Studio(work, device=device, steps=steps).paint(wishes))
    figures["generated"] = agreement(readings(made.split(128), device), np.array([STYLES.index(wish.style) for wish in wishes]))
    write_text(work / "agreement.json", json.dumps(figures, indent=1))
    typer.echo(json.dumps({name: figures[name]["pairs"] for name in ("real", "generated")}, indent=1))


if __name__ == "__main__":
    options.start(main)
