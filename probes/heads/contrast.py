"""Log-odds between two groups of a head's labels: what a yes-or-no question comes to, whatever the labels behind it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from probes.errors import UserError
from probes.heads.head import Head


@dataclass(frozen=True, eq=False)
class Contrast:
    """`log sum p(wanted) - log sum p(against)`, from logits, so that it does not saturate; labels in neither group do not count."""

    head: Head
    wanted: tuple[str, ...]
    against: tuple[str, ...]

    def __post_init__(self):
        unknown = sorted({*self.wanted, *self.against} - {*self.head.labels})
        if unknown or not self.wanted or not self.against or {*self.wanted} & {*self.against}:
            known = ", ".join(self.head.labels)
            raise UserError(f"a contrast needs two groups of labels that the head knows ({known}), with nothing in both.")

    @classmethod
    def rest(cls, head: Head, wanted: tuple[str, ...]) -> Contrast:
        """Some labels against all others: for one label the log-odds `log p / (1 - p)`."""
        return cls(head, wanted, tuple(label for label in head.labels if label not in wanted))

    @cached_property
    def index(self) -> tuple[list[int], list[int]]:
        return tuple([self.head.labels.index(label) for label in group] for group in (self.wanted, self.against))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Embeddings `(n, d)` to log-odds `(n,)`."""
        logits = self.head.logits(embeddings)
        wanted, against = (logits[:, group].logsumexp(-1) for group in self.index)
        return wanted - against

    def probability(self, embeddings: Tensor) -> Tensor:
        """Share `(n,)` of the wanted group in both groups together."""
        return self(embeddings).sigmoid()
