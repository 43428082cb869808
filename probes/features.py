"""What an encoder sees on the way to its embedding: feature maps of early and middle stages, tapped from the one pass that embeds."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probes.errors import UserError
from probes.image import wide
from probes.layers import statistics


@dataclass(frozen=True, eq=False)
class Features:
    """`embeddings` `(n, dim)`, L2-normalised, and `maps`: by the name of the stage `(n, c, h', w')` in fp32, both with gradient."""

    embeddings: Tensor
    maps: dict[str, Tensor]

    @property
    def described(self) -> Tensor:
        """Embeddings and, after them, what `layers` says of the maps: `(n, dim + s)`."""
        return torch.cat([self.embeddings, statistics(self.maps)], 1)

    def __getitem__(self, places: slice) -> Features:
        """Those of some of the images."""
        return Features(self.embeddings[places], {stage: held[places] for stage, held in self.maps.items()})


def stages(visual: nn.Module, name: str) -> dict[str, nn.Module]:
    """The modules of open_clip's image tower that end a stage, by name, from the pixels on.

    `conv1`, `conv3` (both before the stem pools), `stem`, `layer1` to `layer4` of a ModifiedResNet; `block1` and so on of a
    VisionTransformer. UserError for any other class: `name` is the encoder's name in it.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer
    if isinstance(visual, ModifiedResNet):
        layers = {f"layer{k}": getattr(visual, f"layer{k}") for k in range(1, 5)}
        return {"conv1": visual.act1, "conv3": visual.act3, "stem": visual.avgpool} | layers
    if isinstance(visual, VisionTransformer):
        return {f"block{k}": block for k, block in enumerate(visual.transformer.resblocks, 1)}
    raise UserError(f"the encoder {name} gives no feature maps: its image tower is a {type(visual).__name__}; "
                    "take one whose tower is open_clip's ModifiedResNet or VisionTransformer, such as embedded or ViT-L-14-336:openai.")


def convolutional(visual: nn.Module) -> bool:
    """Whether the stages read images of any size, not only of the one that the embedding needs."""
    from open_clip.modified_resnet import ModifiedResNet
    return isinstance(visual, ModifiedResNet)


class _Enough(Exception):
    """Leaves a pass after the last stage that was wanted."""


@contextmanager
def tapped(visual: nn.Module, wanted: Sequence[str], name: str, *, only: bool = False) -> Iterator[dict[str, Tensor]]:
    """What the wanted stages put out in the tower's pass inside the block; it computes nothing that it would not anyway.

    `only`: the pass ends after the last of them, and the block with it. UserError for a stage that the tower has not.
    """
    known, held = stages(visual, name), {}
    unknown = [stage for stage in wanted if stage not in known]
    if unknown:
        raise UserError(f"the encoder {name} has no stage {unknown[0]!r}; it has {', '.join(known)}.")

    def keep(stage: str):
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            held[stage] = wide(_grid(output, visual) if output.ndim == 3 else output)
            if only and len(held) == len(set(wanted)):
                raise _Enough
        return hook

    handles = [known[stage].register_forward_hook(keep(stage)) for stage in dict.fromkeys(wanted)]
    try:
        with suppress(_Enough):
            yield held
    finally:
        for handle in handles:
            handle.remove()


def _grid(tokens: Tensor, visual: nn.Module) -> Tensor:
    """Patch tokens, after the class token, as a map `(n, width, rows, columns)`."""
    tokens = tokens if visual.transformer.batch_first else tokens.transpose(0, 1)
    rows, columns = visual.grid_size
    return tokens[:, -rows * columns:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
