"""The scene head, over what the encoder's layers say: genres as catalogues give them, and what follows from them about figures."""

import numpy as np
import torch

from probes.genres import FIGURES, NO_FIGURES
from probes.heads.linear import Linear
from probes.judges import GENRES
from probes.scene import SceneProbe
from recipes.data import codes
from recipes.heads.content import auc
from recipes.heads.features import Paintings
from recipes.heads.style import calibrated, layered
from recipes.metrics import balanced_accuracy, by, over_artists, whose


def fit(paintings: Paintings) -> tuple[Linear, dict]:
    """The head, calibrated on half of the test artists, and its figures on the others; `figures` is the reliability of that reading."""
    head, logits, shrinkage = layered(paintings, "genre", GENRES)
    artists, held = paintings.tested["artist"], torch.from_numpy(paintings.told)
    head, figures = calibrated(paintings, head, logits, codes(paintings.tested["genre"], head.labels), "genres")

    genre = paintings.tested["genre"]
    shown, either = genre.isin(FIGURES).to_numpy(), ~genre.isin((*FIGURES, *NO_FIGURES)).to_numpy()
    told = ~either & ~paintings.half
    if not told.any():
        return head, {"metrics": {"genre": figures, "figures": {}}, "shrinkage": shrinkage}
    odds, positive = SceneProbe(paintings.encoder, head).figures(held).numpy()[told], shown[told]
    guess = (odds > 0).astype(np.int64)
    low, high = over_artists(artists[told], lambda rows: balanced_accuracy(positive[rows].astype(np.int64), guess[rows]))
    derived = {
        "images": int(told.sum()),
        **whose(artists[told]),
        "balanced_accuracy": balanced_accuracy(positive.astype(np.int64), guess),
        "interval": (low, high),
        "auc": auc(odds, positive),
        "figures": list(FIGURES),
        "none": list(NO_FIGURES),
    }
    said = (
        f"balanced accuracy {derived['balanced_accuracy']:.2f} (95 % over artists {low:.2f}-{high:.2f}) against what the catalogued genre "
        f"suggests, on {derived['images']} paintings {by(derived)}; nobody looked for figures in the paintings"
    )
    return head, {"metrics": {"genre": figures, "figures": derived}, "figures": said, "shrinkage": shrinkage}
