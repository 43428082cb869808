"""What a judge that is a network says of its features: style, year, genre, severity."""

import torch
from torch import nn

YEAR_CENTRE, YEAR_SPREAD = 1850.0, 80.0  # so that the linear readout works near zero


class Readout(nn.Module):
    """Linear readings of features `(n, d)`."""

    def __init__(self, dim: int, styles: int, genres: int):
        super().__init__()
        self.style, self.genre = nn.Linear(dim, styles), nn.Linear(dim, genres)
        self.year, self.severity = nn.Linear(dim, 1), nn.Linear(dim, 1)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "style_logits": self.style(features),
            "year": YEAR_CENTRE + YEAR_SPREAD * self.year(features)[:, 0],
            "genre_logits": self.genre(features),
            "severity": self.severity(features)[:, 0].sigmoid(),
            "features": features,
        }
