"""The origin head: people's pictures against models', judged on generators that were left out and on real paintings by unseen artists."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from probes.heads.linear import Linear
from probes.origin import LABELS
from recipes.heads.content import auc
from recipes.heads.features import Paintings
from recipes.heads.pictures import Pile
from recipes.heads.style import SCALE, tensor
from recipes.metrics import by, fit_temperature, over_artists, whose

UNSEEN = "unseen "
# How much of its class a pile of people's pictures weighs; people's pictures from the generators' own collections share the rest, since
# without them the head would tell collections apart and nothing else. All generators weigh alike.
SHARES = {"paintings": 0.4, "round trips": 0.15}
FEWEST = 20  # test paintings of a style, for its false alarms to be told


def fitted(piles: dict[str, Pile], rows: dict[str, slice], strength: float = 10.0) -> Linear:
    """Logistic regression on those rows of each pile; both classes weigh alike, whatever their sizes."""
    features, labels, weights = [], [], []
    people = [name for name in rows if not piles[name].model]
    rest = max(len(people) - len(SHARES), 1)
    for name, chosen in rows.items():
        found, model = piles[name].features[chosen], piles[name].model
        share = 1 / (len(rows) - len(people)) if model else SHARES.get(name, (1 - sum(SHARES.values())) / rest)
        features.append(found)
        labels.append(np.full(len(found), int(model)))
        weights.append(np.full(len(found), share / len(found)))
    weights = np.concatenate(weights) * sum(map(len, features)) / 2
    model = LogisticRegression(C=strength, max_iter=1000).fit(np.concatenate(features) * SCALE, np.concatenate(labels), weights)
    weight, bias = model.coef_[0] * SCALE / 2, model.intercept_[0] / 2
    return Linear(tensor(np.stack([-weight, weight])), tensor(np.array([-bias, bias])), LABELS)


def odds(head: Linear, features: np.ndarray) -> np.ndarray:
    """Log-odds `(n,)` of a model."""
    logits = head.logits(torch.from_numpy(features)).numpy()
    return logits[:, 1] - logits[:, 0]


def crossed(piles: dict[str, Pile], names: list[str]) -> dict[str, np.ndarray]:
    """Log-odds of each picture by a head that learned from the other half of its pile."""
    found = {name: np.zeros(len(piles[name].features)) for name in names}
    for first in (0, 1):
        head = fitted(piles, {name: slice(first, None, 2) if name not in SHARES else slice(None) for name in names})
        for name in names:
            found[name][1 - first :: 2] = odds(head, piles[name].features[1 - first :: 2])
    return found


def fit(paintings: Paintings, piles: dict[str, Pile]) -> tuple[Linear, dict]:
    """The head on everything but the unseen paintings, and its figures; its temperature comes from generators that were left out.

    A generator counts as recognised, and a painting as a false alarm, above a probability of one half.
    """
    names = [name for name in piles if not name.startswith(UNSEEN)]
    generators = [name for name in names if piles[name].model]
    people = [name for name in names if not piles[name].model and name not in SHARES]
    head = fitted(piles, dict.fromkeys(names, slice(None)))
    real = odds(head, piles[UNSEEN + "paintings"].features)
    halves = crossed(piles, names)
    left_out, scores = {}, {}
    for name in generators if len(generators) > 1 else ():
        # People's pictures train with one half, so that the other is as new to the head as the generator.
        other = fitted(piles, {n: slice(0, None, 2) if n in people else slice(None) for n in names if n != name})
        scores[name] = odds(other, piles[name].features)
        found = {"pictures": len(scores[name]), "recognised": share(scores[name]), "recognised when seen": share(halves[name])}
        found["auc against unseen paintings"] = separated(scores[name], odds(other, piles[UNSEEN + "paintings"].features))
        if people:
            held = np.concatenate([odds(other, piles[n].features[1::2]) for n in people])
            found["auc against people's pictures of the same collection"] = separated(scores[name], held)
        left_out[name] = found
    rows = piles[UNSEEN + "paintings"].rows
    table = paintings.table.iloc[rows]
    by_style = table["style"].value_counts()
    false = {
        "paintings": len(real),
        **whose(table["artist"]),
        "rate": share(real),
        "interval": over_artists(table["artist"], lambda chosen: share(real[chosen])),
        "rate on the files as they are": share(odds(head, paintings.held)),
        "by style": {style: round(share(real[(table["style"] == style).to_numpy()]), 3) for style, n in by_style.items() if n >= FEWEST},
        "through an autoencoder": share(odds(head, piles[UNSEEN + "round trips"].features)),
        "people's pictures of the generators' collections": {name: round(share(halves[name]), 3) for name in people},
    }
    unseen = list(scores.values()) or [halves[name] for name in generators]
    head = replace(head, temperature=temperature(real[paintings.half_of(rows)], unseen))
    head = replace(head, reliability=sentence(left_out, false, generators))
    return head, {"metrics": {"left out": left_out, "false alarms": false}, "generators": generators}


def temperature(real: np.ndarray, unseen: list[np.ndarray]) -> float:
    """As sure as unseen artists and unseen generators allow; both classes weigh alike, and so do the generators."""
    rng, size = np.random.default_rng(0), 4000
    drawn = [rng.choice(real, size)] + [rng.choice(scores, size // len(unseen)) for scores in unseen]
    scores = np.concatenate(drawn)
    labels = np.concatenate([np.zeros(size, np.int64), np.ones(len(scores) - size, np.int64)])
    return fit_temperature(np.stack([-scores / 2, scores / 2], 1), labels)


def share(scores: np.ndarray) -> float:
    """Taken for a model's."""
    return float((scores > 0).mean())


def separated(models: np.ndarray, people: np.ndarray) -> float:
    return auc(np.concatenate([models, people]), np.arange(len(models) + len(people)) < len(models))


def sentence(left_out: dict, false: dict, generators: list[str]) -> str:
    """The reliability as the card tells it."""
    seen = ", ".join(f"{name} {figures['recognised']:.0%}" for name, figures in left_out.items())
    known = f"of generators it has not seen it recognises {seen}" if left_out else f"learned from {generators[0]} alone, no other tried"
    low, high = false["interval"]
    same = false["people's pictures of the generators' collections"]
    own = ", ".join(f"{name} {rate:.0%}" for name, rate in same.items())
    return (
        f"{known}; false alarms on {false['paintings']} real paintings {by(false)} {false['rate']:.0%} (95 % over "
        f"artists {low:.0%}-{high:.0%}), through an autoencoder {false['through an autoencoder']:.0%}"
        + (f", on people's pictures from the generators' own collections: {own}" if same else "")
        + "; collection and origin are confounded"
    )
