"""The heads by name: ways to fit one to labelled embeddings, and the classes that a card can name."""
from probes.heads import ape, gda, nearest_mean, prototype_linear, tip_adapter, zero_shot
from probes.heads.ape import Ape
from probes.heads.kernel_ridge import KernelRidge
from probes.heads.linear import Linear
from probes.heads.ordinal import Ordinal
from probes.heads.tip_adapter import TipAdapter
from probes.heads.zero_shot import Antonyms

# Each is `fit(features (n, d), labels (n,), names, *, text (k, d) or None, **options) -> head`.
HEADS = {
    "zero-shot": zero_shot.fit,
    "nearest-mean": nearest_mean.fit,
    "gda": gda.fit,
    "linear": prototype_linear.fit,
    "tip-adapter": tip_adapter.fit,
    "tip-adapter-f": tip_adapter.fit_keys,
    "ape": ape.fit,
    "ape-t": ape.fit_residuals,
}
KINDS = {head.kind: head for head in (Linear, TipAdapter, Ape, Antonyms, Ordinal, KernelRidge)}
