"""Which share of the work is this process's, where `accelerate launch` or `torchrun` started several."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch

from probes import devices

PATIENCE = timedelta(days=30)  # one process may have read its share of a million pictures days before another has


@dataclass(frozen=True)
class Process:
    """Number `index` of `count` processes, and the device that it has for itself; `wait` returns when all have come to it."""

    index: int
    count: int
    device: str
    wait: Callable[[], None]


def joined(device: str = "auto") -> Process:
    """This process among those that were launched together, by their environment; alone where there is one.

    `device` auto and cuda become a GPU of its own each, anything else stays. Processes on CPUs talk over gloo.
    """
    plain = devices.select(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Process(0, 1, plain, lambda: None)
    cuda = plain == "cuda" and torch.cuda.is_available()
    if device == "auto" and not cuda:
        plain = "cpu"  # one Metal device is not for several processes
    from accelerate import PartialState

    state = PartialState(cpu=not cuda, timeout=PATIENCE)
    own = f"cuda:{state.local_process_index}" if cuda else plain
    return Process(state.process_index, state.num_processes, own, state.wait_for_everyone)
