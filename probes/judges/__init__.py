"""The judges' networks: two families that are not the guide's and not each other's.

Each maps images `(n, 3, h, w)` in [0, 1] to a dict of `style_logits (n, k)`, `year (n,)`, `genre_logits (n, g)`, `severity (n,)` in [0, 1]
(how damaged), `features (n, d)`.
"""

from collections.abc import Sequence

from torch import nn

from probes.judges.local import LocalJudge
from probes.judges.statistical import StatisticalJudge

NETWORKS = {"referee": LocalJudge, "verdict": StatisticalJudge}

STYLES = (
    "impressionism",
    "baroque",
    "romanticism",
    "art-nouveau",
    "symbolism",
    "post-impressionism",
    "rococo",
    "ukiyo-e",
    "expressionism",
    "pointillism",
    "cubism",
    "renaissance",
    "naive-art",
    "realism",
    "fauvism",
)
GENRES = ("portrait", "landscape", "genre-painting", "religious", "cityscape", "still-life", "illustration")


def build(name: str, styles: Sequence[str] = STYLES, genres: Sequence[str] = GENRES) -> nn.Module:
    """The named network, untrained."""
    return NETWORKS[name](len(styles), len(genres)).eval()
