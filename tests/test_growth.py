"""A larger network does what the small one does, and learns on from there."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional as F

from probes.errors import UserError
from recipes.denoiser import CONFIG, PRESETS
from recipes.growth import grown

SMALL = CONFIG | {
    "block_out_channels": (16, 40, 40),
    "attention_head_dim": (2, 2, 2),
    "transformer_layers_per_block": (1, 1, 1),
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "projection_class_embeddings_input_dim": 6 * 8 + 8,
    "time_embedding_dim": None,
}
ATTENTION = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
WIDER = {"block_out_channels": (32, 40, 40), "attention_head_dim": (4, 2, 2), "time_embedding_dim": 64}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return UNet2DConditionModel(**SMALL).eval()


def inputs(count: int = 4) -> dict:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(count, 7, 16, generator=generator), torch.randn(count, 8, generator=generator)
    return {
        "sample": torch.randn(count, 8, 16, 16, generator=generator),
        "timestep": torch.randint(1000, (count,), generator=generator),
        "encoder_hidden_states": text[0],
        "added_cond_kwargs": {"text_embeds": text[1], "time_ids": torch.full((count, 6), 128.0)},
    }


@pytest.mark.parametrize("change", [{"transformer_layers_per_block": (1, 3, 2)}, ATTENTION], ids=["layers", "attention"])
def test_what_is_new_in_depth_changes_nothing_and_learns(small, change):
    large = grown(small, SMALL | change)
    torch.testing.assert_close(large(**inputs()).sample, small(**inputs()).sample)
    large(**inputs()).sample.square().mean().backward()
    new = {name: value for name, value in large.named_parameters() if name not in small.state_dict()}
    assert new
    assert any(value.grad.abs().max() > 0 for value in new.values())


def test_twice_as_many_channels_begin_near_the_small_network_and_each_learns_by_itself(small):
    large = grown(small, SMALL | WIDER)
    a, b = large(**inputs()).sample, small(**inputs()).sample
    assert F.mse_loss(a, b) < 0.05 * b.var()
    fresh = UNet2DConditionModel(**(SMALL | WIDER))(**inputs()).sample
    assert F.mse_loss(a, b) < 0.1 * F.mse_loss(fresh, b)
    large(**inputs()).sample.square().mean().backward()
    learnt = large.conv_in.weight.grad
    assert not torch.allclose(learnt[::2], learnt[1::2])
    assert torch.equal(large.conv_in.weight[::2], large.conv_in.weight[1::2])  # the same until the first step


def test_a_pair_gives_together_what_one_gave(small):
    large = grown(small, SMALL | WIDER)
    first = [network.down_blocks[0].resnets[0].conv1 for network in (small, large)]
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(first[1](x.repeat_interleave(2, 1))[:, ::2], first[0](x), atol=1e-5, rtol=1e-4)
    times = torch.arange(0, 1000, 100)
    embedded = [network.time_embedding(network.time_proj(times)) for network in (small, large)]
    torch.testing.assert_close(*embedded, atol=1e-5, rtol=1e-4)


def test_the_same_size_stays_the_same_network_for_pictures_of_any_side(small):
    large = grown(small, SMALL | {"sample_size": 24})
    assert large.config.sample_size == 24
    assert all(torch.equal(value, large.state_dict()[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": (16, 80, 40)},
        {"block_out_channels": (48, 40, 40), "time_embedding_dim": 64},
        {"block_out_channels": (8, 40, 40), "time_embedding_dim": 64},
        {"block_out_channels": (24, 40, 40)},
        {"time_embedding_dim": 160},
        {"layers_per_block": 2},
        {"cross_attention_dim": 32},
        {"norm_num_groups": 4},
        {"attention_head_dim": 4},
        {"down_block_types": ("DownBlock2D",) * 3},
    ],
    ids=str,
)
def test_another_network_is_refused_with_a_remedy(small, change):
    with pytest.raises(UserError, match="leave --start out"):
        grown(small, SMALL | change)


def test_the_preset_for_gpus_does_not_grow_from_the_small_one():
    small = UNet2DConditionModel(**CONFIG)
    with pytest.raises(UserError, match="--preset"):
        grown(small, CONFIG | PRESETS["gpu"]["config"])
