"""Judges: networks of other families than the encoder that steers, which give an opinion and refuse where they would be partial."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from probes import judges
from probes.errors import UserError
from probes.image import check
from probes.lineage import Lineage, same_family

FOLDER = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class Opinion:
    """What a judge says of n images; None is what it does not read. The judges that ship read all but the preference."""

    styles: Tensor | None
    """(n, k) calibrated probabilities, in the order of `Judge.labels`."""
    years: Tensor | None
    """(n,) year of making."""
    genres: Tensor | None
    """(n, g) calibrated probabilities, in the order of `Judge.genre_labels`."""
    severity: Tensor | None
    """(n,) how damaged, 0 (clean) to 1."""
    features: Tensor
    """(n, d) L2-normalised features, for distances."""
    preference: Tensor | None = None
    """(n,) how well people would like it for its prompt; comparable within one prompt only."""


class Judge(nn.Module):
    """A network with its card: label names, temperatures, recall on real paintings, lineage. It never gives a gradient."""

    def __init__(self, name: str, network: nn.Module, card: dict, weights: str):
        super().__init__()
        self.name, self.network, self.card = name, network.eval().requires_grad_(False), card
        self.labels, self.genre_labels = tuple(card["labels"]), tuple(card["genre_labels"])
        self.temperature: float = card.get("temperature", 1.0)
        self.genre_temperature: float = card.get("genre_temperature", 1.0)
        self.recall: dict[str, float] = card.get("recall", {})
        self.year_map: tuple[float, float] = tuple(card.get("year_map", (1.0, 0.0)))  # slope, offset
        lineage = card.get("lineage", {})
        self.lineage = Lineage(weights, lineage.get("data", ""), lineage.get("architecture", ""), lineage.get("objective", ""))

    @property
    def identity(self) -> str:
        """What tells this judge's readings from another's: a hash."""
        return self.lineage.weights

    def fit(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w), floats or 8-bit, as the network sees them; what it gives passes through it unchanged."""
        return self.network.fit(images)

    @torch.no_grad()
    def forward(self, images: Tensor, prompts: Sequence[str] = ()) -> Opinion:
        """Images (n, 3, h, w) in [0, 1], any size from 32 pixels; what they were made for matters to other judges than these."""
        said = self.network(check(images).to(next(self.network.parameters()).dtype))
        return Opinion(
            styles=(said["style_logits"].float() / self.temperature).softmax(-1),
            years=self.year_map[0] * said["year"].float() + self.year_map[1],
            genres=(said["genre_logits"].float() / self.genre_temperature).softmax(-1),
            severity=said["severity"].float(),
            features=nn.functional.normalize(said["features"].float(), dim=-1),
        )

    def check(self, steered_by: Iterable[Lineage]) -> None:
        """UserError where this judge is of the same family as anything that steered or tuned what it is to judge."""
        for lineage in steered_by:
            if clash := same_family(self.lineage, lineage):
                whose = f"The judge {self.name!r} cannot give a verdict on what its own family steered or tuned"
                raise UserError(f"{whose}: {clash}; choose another with --judge.")

    def log_odds(self, opinion: Opinion, styles: Sequence[tuple[str, float]], avoid: Sequence[str] = ()) -> Tensor:
        """(n,) what the style probe's measure says, in this judge's eyes; nan where the judge does not know one of the styles.

        The weighted sum of each wanted style's log-odds against the styles outside the mixture, minus the mean of the avoided ones'
        against all others.
        """
        return self.odds(opinion.styles.cpu(), styles, avoid)

    def odds(self, probabilities: Tensor, styles: Sequence[tuple[str, float]], avoid: Sequence[str] = ()) -> Tensor:
        """As `log_odds`, from the probabilities (n, k) of an opinion."""
        names = [name for name, _ in styles]
        if not set(self.labels).issuperset([*names, *avoid]):
            return torch.full((len(probabilities),), torch.nan)

        def against(name: str, excluded: Sequence[str]) -> Tensor:
            others = [k for k, label in enumerate(self.labels) if label not in excluded]  # their sum is exact where 1 - p is not
            return probabilities[:, self.labels.index(name)].clamp(min=1e-30).log() - probabilities[:, others].sum(1).clamp(min=1e-30).log()

        wanted = sum((weight * against(name, names) for name, weight in styles), torch.zeros(len(probabilities)))
        return wanted - sum(against(name, [name]) for name in avoid) / max(len(avoid), 1)


@lru_cache(maxsize=4)
def load(name: str = "verdict", device: str = "cpu", heads: tuple[str | Path, ...] = ()) -> Judge:
    """A judge that ships: `referee` (may tune a strength or stop a run) or `verdict` (influences nothing); or one of a hub.

    Those are presets of `configs/judges`, or a TOML file as there; `heads`: files made by `guide probe fit` for its features.
    """
    if name not in judges.NETWORKS:
        from probes.judges import hub, presets  # they read encoders and heads, which the judges that ship do not need

        return hub.load(name, *presets.find(name, tuple(judges.NETWORKS)), device, heads)
    if heads:
        raise UserError(f"The judge {name!r} reads with heads of its own; leave out --judge-head, or choose a judge of configs/judges.")
    folder = FOLDER / name
    weights, card = folder / "model.safetensors", folder / "card.json"
    if not (weights.is_file() and card.is_file()):
        raise UserError(f"The weights of the judge {name!r} are missing from {folder}; reinstall the package, or train them with recipes/.")
    try:
        read = json.loads(card.read_text(encoding="utf-8"))
        network = judges.build(name, read["labels"], read["genre_labels"])
        network.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    except (ValueError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(f"The judge {name!r} in {folder} cannot be loaded ({cause}); reinstall the package.") from error
    return Judge(name, network, read, sha256(weights.read_bytes()).hexdigest()).to(device)
