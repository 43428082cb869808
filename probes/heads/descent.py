"""Training of the few-shot heads that are trained: AdamW over batches of examples, at a cosine rate."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BATCH = 256


def descend(start: Sequence[Tensor], loss: Callable[..., Tensor], count: int, *, epochs: int, learning_rate: float, eps: float,
            weight_decay: float, seed: int) -> list[Tensor]:
    """The parameters after `epochs` over `count` examples, from `start`; `loss(rows, *parameters)` is a mean over `rows` `(b,)`.

    The order of the batches depends on `seed` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        parameters = [value.detach().clone().requires_grad_() for value in start]
        optimizer = torch.optim.AdamW(parameters, learning_rate, eps=eps, weight_decay=weight_decay)
        steps = max(1, epochs * -(-count // BATCH))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for rows in torch.randperm(count, generator=generator).to(parameters[0].device).split(BATCH):
                optimizer.zero_grad()
                loss(rows, *parameters).backward()
                optimizer.step()
                schedule.step()
    return [value.detach() for value in parameters]
