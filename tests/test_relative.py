"""Relative readings: what a subject says of a value is taken out, makers are told within a subject, slopes reach the embeddings."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.errors import UserError
from probes.heads import relative, stacked
from probes.reliability import within


def rated(prompts: int = 60, makers: int = 6, d: int = 16, seed: int = 0):
    """Pictures of every prompt by every maker: the subject rules the embedding and the value, the maker moves both a little."""
    rng = np.random.default_rng(seed)
    subject, hand, fault = rng.normal(size=(prompts, d)), rng.normal(size=(makers, d)), rng.normal(size=makers)
    p, m = (part.ravel() for part in np.meshgrid(range(prompts), range(makers), indexing="ij"))
    x = 3 * subject[p] + .6 * hand[m] + .1 * rng.normal(size=(len(p), d))
    y = 4 * subject[p, 0] + fault[m] + .1 * rng.normal(size=len(p))
    return torch.from_numpy(x).float(), y, [f"prompt {k}" for k in p], [f"maker {k}" for k in m]


def test_it_orders_unseen_prompts_by_what_the_makers_do():
    x, y, groups, makers = rated()
    seen = np.array([int(name.split()[1]) < 40 for name in groups])

    def of(rows, values):
        return [value for value, kept in zip(values, rows, strict=True) if kept]
    head = relative.fit(x[seen], y[seen], of(seen, groups), of(seen, makers))
    read = head.read(x[~seen], of(~seen, groups)).numpy()
    assert within(y[~seen], read, of(~seen, groups)) > .9
    plain = np.linalg.lstsq(x[seen].numpy(), y[seen] - y[seen].mean(), rcond=None)[0]
    assert within(y[~seen], x[~seen].numpy() @ plain, of(~seen, groups)) < .9
    means = torch.from_numpy(np.array([read[np.array(of(~seen, groups)) == name].mean() for name in set(of(~seen, groups))]))
    assert means.abs().max() < 1e-5  # relative to the others of the prompt


def test_the_order_of_pictures_and_a_shift_of_a_prompt_change_nothing():
    x, y, groups, makers = rated(20)
    head = relative.fit(x, y, groups, makers)
    read, order = head.read(x, groups), torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.read(x[order], [groups[k] for k in order]), read[order], atol=1e-4, rtol=1e-4)
    moved = x + 5 * torch.tensor([float(name.split()[1]) for name in groups])[:, None]
    torch.testing.assert_close(head.read(moved, groups), read, atol=1e-3, rtol=1e-3)


def test_slopes_are_those_of_finite_differences():
    x, y, groups, makers = rated(8)
    share = np.stack([1 - np.clip(y / 20 + .5, 0, 1), np.clip(y / 20 + .5, 0, 1)], 1)
    own = stacked.fit(x, share, ("no", "yes"), groups, balance=0.)
    head = relative.fit(x.double(), y, groups, makers, own=replace(own, weight=own.weight.double(), bias=own.bias.double()))
    some, names = x[:12].double().requires_grad_(), groups[:12]
    assert torch.autograd.gradcheck(lambda seen: head.read(seen, names), some, atol=1e-4)


def test_a_single_picture_and_one_maker_are_named():
    x, y, groups, makers = rated(6)
    with pytest.raises(UserError, match="two makers"):
        relative.fit(x, y, groups, ["one"] * len(x))
    head = relative.fit(x, y, groups, makers)
    with pytest.raises(UserError, match="two pictures"):
        head.read(x[:1], groups[:1])
    with pytest.raises(UserError, match="groups"):
        head.read(x, groups[1:])
    x[3] = float("nan")
    with pytest.raises(UserError, match="finite"):
        relative.fit(x, y, groups, makers)
