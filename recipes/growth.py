"""Give a trained network to a larger one of the same kind: it goes on from what the small one does instead of from noise.

After Net2Net (arXiv 1511.05641): channels are doubled in pairs that share what goes out of them unevenly, so that the sum is the same and
the two learn apart; what is new in depth ends in zeros, so that its residual adds nothing yet. Where the wider level's skip connections
are concatenated before a group norm, groups fall otherwise than before: there the larger network begins near the small one, not at it.
"""

import torch
from diffusers import UNet2DConditionModel

from probes.errors import UserError

SPLIT = 0.25  # how unevenly a pair's weights are shared, in standard deviations of the weights
ENDS = "to_out.0", "ff.net.2", "proj_out"  # through which the residual of an attention, of its layers and of their feed-forward parts comes
GROWS = "block_out_channels", "attention_head_dim", "transformer_layers_per_block", "down_block_types", "up_block_types"
FREE = "sample_size", "time_embedding_dim"  # no weights depend on the one; the other is looked up in the networks, where it is never None


def grown(small: UNet2DConditionModel, config: dict) -> UNet2DConditionModel:
    """The network of `config`, which does what `small` does as nearly as its shape allows: exactly so where only depth differs.

    `config` may have a first level of twice as many channels, more layers in transformers, and transformers where there were none.
    Raises `UserError` where it differs in anything else.
    """
    large = UNet2DConditionModel(**config)
    before, after = small.state_dict(), large.state_dict()
    if differing := _differing(small, large, config) + sorted(before.keys() - after.keys()):
        raise UserError(
            f"--start holds a network that cannot grow into this one ({differing[0]} differs): "
            "give the --preset that it was trained with, or leave --start out."
        )
    for name, new in after.items():
        if name in before:
            new.copy_(_widened(before[name], new.shape, sinusoids=name == "time_embedding.linear_1.weight"))
        elif name.rpartition(".")[0].endswith(ENDS):
            new.zero_()
    return large  # a state dict's tensors are the network's own


def _differing(small: UNet2DConditionModel, large: UNet2DConditionModel, config: dict) -> list[str]:
    """What of `config` may not differ and does."""
    fixed = [key for key in config if key not in (*GROWS, *FREE) and large.config[key] != small.config[key]]
    deeper = [key for key in GROWS[:2] if _levels(large, key)[1:] != _levels(small, key)[1:]]
    widths = {
        "block_out_channels": [network.conv_in.out_channels for network in (small, large)],
        "time_embedding_dim": [network.time_embedding.linear_2.out_features for network in (small, large)],
    }
    return fixed + deeper + [key for key, (old, new) in widths.items() if new not in (old, 2 * old)]


def _levels(network: UNet2DConditionModel, key: str) -> tuple[int, ...]:
    """The sizes of all levels: a configuration of diffusers may have one number for all of them."""
    value = network.config[key]
    return (value,) * len(network.config.block_out_channels) if isinstance(value, int) else tuple(value)


def _widened(old: torch.Tensor, shape: torch.Size, sinusoids: bool) -> torch.Tensor:
    for axis, size in enumerate(shape):
        extra = size - old.shape[axis]
        if not extra:
            continue
        if sinusoids and axis == 1:  # of twice as many, every other one has the frequency of an old one
            wide = old.new_zeros(len(old), size)
            wide[:, ::2] = old
            old = wide
            continue
        # Wider is the last of what is concatenated, the skip connection; or all there is.
        copies = torch.ones(old.shape[axis], dtype=torch.long)
        copies[-extra:] = 2
        uneven = old.std() * SPLIT
        old = old.repeat_interleave(copies, axis)
        if axis == 1:
            pairs = old[:, -2 * extra :] / 2
            apart = uneven * torch.randn_like(pairs[:, ::2])
            old[:, -2 * extra :: 2], old[:, -2 * extra + 1 :: 2] = pairs[:, ::2] + apart, pairs[:, 1::2] - apart
    return old
