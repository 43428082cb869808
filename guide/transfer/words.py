"""What the probes are to read of a picture: style and period through heads, the rest through words, as a change from the photograph."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guide.brief import Brief
from probes.config import lookup, styles
from probes.content import ContentProbe, DirectionalMeasure
from probes.encoders import Encoder
from probes.objective import Objective, Term, Values
from probes.period import PeriodProbe
from probes.style import StyleProbe
from probes.views import Views

SOURCE = "a photograph"
VIEWS = Views(count=2, smallest=.5, noise=.03)
PATCHES = Views(count=12, smallest=.25, noise=0., whole=False)
REACHED = .7  # a patch whose change points so far toward the words is left alone (arXiv:2112.00374, threshold rejection)
ENOUGH = 6.  # log-odds: a style that reads so clearly needs no more of what may only please the head
# Of the period beside the style. Brushwork, which has no part in pictures made from noise, stands beside both here; at the 8 of those a
# period outweighs it, and takes the style with it: "Years within a style" in benchmarks/README.md.
PERIOD = .5


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchDirection(DirectionalMeasure):
    """The directional cosine of each patch, cut off at REACHED, so that patches that have arrived drop out of the mean's gradient.

    Departs from the paper in that the rejected keep their value instead of becoming 0: the mean then still says how far they have come.
    """

    name: str = "patches"

    def score(self, embeddings: Tensor) -> Tensor:
        return super().score(embeddings).clamp(max=REACHED)


@dataclass(frozen=True, eq=False)
class Objectives:
    """Several with views of their own, as one."""

    several: Sequence[Objective]

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Values:
        found = [one(images, generators) for one in self.several]
        return Values(sum(values.loss for values in found), {name: score for values in found for name, score in values.terms.items()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for one in self.several for name in one.names)


def objective(brief: Brief, encoder: Encoder, photo: Tensor, learned: bool) -> Objectives | None:
    """None where the brief asks nothing of a probe. `learned`: typical paintings stand for the styles, so that words need not."""
    wholes, patches = [], []
    style, period = StyleProbe(encoder).aim(brief), PeriodProbe(encoder).aim(brief)
    wholes += [Term(style, 1., ENOUGH)] if style else []
    wholes += [Term(period, PERIOD)] if period else []
    words = brief.prompt or (f"a {adjective(brief)} painting" if brief.styles and not learned else "")
    if words and encoder.has_text:
        aimed = ContentProbe(encoder, "directional", photo, SOURCE).aim(Brief(prompt=words))
        wholes.append(Term(aimed, 1.))
        given = {name: getattr(aimed, name) for name in ("encoder", "target", "source", "scale", "reliability")}
        patches.append(Term(PatchDirection(**given), 1.))
    parts = ([Objective(wholes, VIEWS)] if wholes else []) + ([Objective(patches, PATCHES)] if patches else [])
    return Objectives(parts) if parts else None


def adjective(brief: Brief) -> str:
    """`ukiyo-e and cubist`, the heaviest first."""
    return " and ".join(lookup(styles(), key, "style").adjective for key, _ in sorted(brief.styles, key=lambda entry: -entry[1]))
