"""What every head is: labels, or years, read from embeddings, with its calibration and how far to trust it."""
from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from probes.errors import UserError


class Head(Protocol):
    """Embeddings `(n, d)` of one encoder to k `labels`, differentiable; a frozen dataclass of tensors, saved by `card.save` under `kind`.

    `prototypes` says what stands for a label beside its images: `text`, `class means` where there was no text tower, or nothing.
    """

    kind: ClassVar[str]
    labels: tuple[str, ...]
    temperature: float
    reliability: str
    prototypes: str

    def logits(self, embeddings: Tensor) -> Tensor:
        """Calibrated logits `(n, k)`."""
        ...

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Calibrated probabilities `(n, k)`."""
        ...


class YearHead(Protocol):
    """Embeddings `(n, d)` of one encoder to years, differentiable."""

    kind: ClassVar[str]
    reliability: str

    def expected(self, embeddings: Tensor) -> Tensor:
        """The recalibrated year `(n,)`."""
        ...

    def span(self, embeddings: Tensor, share: float = .8) -> tuple[Tensor, Tensor]:
        """First and last year `(n,)` of the central `share` of what the head holds possible."""
        ...


def fitting(embeddings: Tensor, width: int) -> Tensor:
    """The embeddings, or a UserError where a head for embeddings `(n, width)` is given those of another encoder."""
    if embeddings.shape[-1] != width:
        raise UserError(f"the head reads embeddings of {width} values, not of {embeddings.shape[-1]}; take one fitted to this encoder.")
    return embeddings


def affine(embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`(n, d)` by weights `(k, d)` and `bias` `(k,)` to `(n, k)`, in fp64 where the encoder computes in that; see `fitting`."""
    kind = embeddings.dtype
    return fitting(embeddings, weight.shape[-1]) @ weight.to(kind).T + bias.to(kind)


def width(head: Head | YearHead) -> int:
    """How many values a head reads."""
    return next(getattr(head, name).shape[-1] for name in ("weight", "support", "positive", "keys") if hasattr(head, name))


def checked_labels(labels: tuple[str, ...], rows: int, temperature: float) -> None:
    """UserError unless there is a row for each of the distinct labels and the temperature is one."""
    if rows != len(labels) or not 0 < temperature < float("inf"):
        raise UserError(f"a head of {len(labels)} labels needs a weight row and a bias for each and a temperature above 0.")
    if len(set(labels)) < len(labels):
        raise UserError("a head names each of its labels once.")
