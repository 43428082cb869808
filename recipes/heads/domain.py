"""How far a picture lies from the paintings that the heads learned from, against paintings that the encoder has not seen."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from probes import domain, image, layers
from probes.domain import FARTHEST, Domain
from probes.encoders import Encoder
from recipes.heads.features import Paintings

STAGE = "layer2"  # earlier ones take coarse noise for paint, later ones fine noise
COUNT, SIDE = 48, 128
WORDS = ["the", "a", "of", "light", "canvas", "museum", "oil", "figure", "with", "landscape", "and", "portrait", "number"]


def fit(paintings: Paintings) -> tuple[Domain, dict]:
    """The domain of the guide split; its percentiles are those of the judge split, by artists that neither encoder nor heads have seen."""
    rows, encoder = paintings.rows("guide"), paintings.encoder
    features, unseen = paintings.described[0][: len(rows)], paintings.choosing if len(paintings.choosing) else None
    groups = [name or str(row) for name, row in zip(paintings.table["artist"].iloc[rows], rows, strict=True)]
    with torch.no_grad():
        maps = encoder.features(torch.zeros(1, 3, encoder.side, encoder.side), layers.SPREAD).maps
    columns, spreads = layers.places(maps, STAGE, encoder.dim)
    found = domain.fit(torch.from_numpy(features), groups, rank=None, columns=columns, spreads=spreads,
                       unseen=None if unseen is None else torch.from_numpy(unseen))  # fmt: skip
    real = found.percentile(torch.from_numpy(paintings.told)).numpy()
    beyond = {"unseen paintings": float(np.mean(real >= FARTHEST))} | strange(found, encoder)
    pictures = ", ".join(f"{share:.0%} of {name}" for name, share in beyond.items() if name != "unseen paintings")
    said = (
        f"percentiles of paintings by artists that neither encoder nor heads have seen; from {FARTHEST} % on lie "
        f"{beyond['unseen paintings']:.1%} of {len(real)} more of them, and {pictures}"
    )
    return found, {"reliability": said, "metrics": {"from the farthest percentile on": beyond, "median of unseen": float(np.median(real))}}


@torch.no_grad()
def strange(found: Domain, encoder: Encoder) -> dict[str, float]:
    """Of pictures that are no paintings, by kind, the share from the farthest percentile on."""
    return {name: float((found.percentile(encoder.describe(images)) >= FARTHEST).float().mean()) for name, images in pictures().items()}


def pictures() -> dict[str, Tensor]:
    """Pictures that nobody painted, by kind: `(n, 3, h, w)` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(COUNT, *shape, generator=generator)

    colours = drawn(3, 1, 1).expand(-1, -1, SIDE, SIDE)
    return {
        "noise": drawn(3, SIDE, SIDE),
        "grey noise": drawn(1, SIDE, SIDE).expand(-1, 3, -1, -1),
        "faint noise": (0.5 + 0.1 * torch.randn(COUNT, 3, SIDE, SIDE, generator=generator)).clamp(0, 1),
        "large pictures of noise": torch.rand(COUNT // 6, 3, 4 * SIDE, 4 * SIDE, generator=generator),
        "coloured squares": F.interpolate(drawn(3, 16, 16), scale_factor=SIDE // 16),
        "one colour": colours,
        "black and white": torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(-1, 3, SIDE, SIDE),
        "smooth gradients": colours * torch.linspace(0, 1, SIDE),
        "pages of text": torch.cat([page(seed) for seed in range(COUNT)]),
    }


def page(seed: int) -> Tensor:
    """A printed page `(1, 3, h, w)`."""
    rng = np.random.default_rng(seed)
    size, paper = int(rng.integers(10, 26)), [(255, 255, 255), (246, 240, 225)][seed % 2]
    sheet = Image.new("RGB", (600, 720), paper)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for line in range(30, 690, int(1.4 * size)):
        pen.text((30, line), " ".join(rng.choice(WORDS, 1200 // (6 * size))), fill=(20, 20, 20), font=font)
    return image.from_pil(sheet)
