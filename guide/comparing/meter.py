"""What a batch of pictures costs, counted where it is spent: images through denoiser, decoder and encoder, seconds, peak memory."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

COSTS = ("seconds", "compute_seconds", "denoiser_calls", "decodes", "encoder_calls", "peak_memory")
RESET = Path("/proc/self/clear_refs")


@dataclass
class Meter:
    """`per_picture(n)` of what was counted while it was on: denoiser, decoder and encoder in images that went through (one evaluation of
    the conditional and one of the unconditional prediction are two; a replay counts again), seconds, and peak memory in GiB of the whole
    process, not of one picture. What is spent backward through them is not counted, but takes its seconds.

    `seconds` are the clock's; `compute` those of the processor that this process had, over all its threads, which other work on the machine
    does not add to; on an accelerator they are the clock's too.
    """

    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    compute: float = 0.0
    peak: float = float("nan")

    def per_picture(self, pictures: int) -> dict[str, float]:
        shared = {name: self.counts[name] / pictures for name in ("denoiser_calls", "decodes", "encoder_calls")}
        clocks = {"seconds": self.seconds / pictures, "compute_seconds": self.compute / pictures}
        return {**clocks, **shared, "peak_memory": self.peak}


@contextmanager
def metered(pipeline: Any, encoder: Any, decoders: Sequence[nn.Module] = ()) -> Iterator[Meter]:
    """Listens to the networks for the length of a `with` block."""
    meter, device = Meter(), torch.device(pipeline.device)
    denoiser = next(part for part in (getattr(pipeline, name, None) for name in ("unet", "transformer")) if part is not None)
    ears = [("denoiser_calls", denoiser)]
    ears += [("decodes", part) for part in (getattr(vae, "decoder", None) for vae in (pipeline.vae, *decoders)) if part is not None]
    ears += [("encoder_calls", encoder.clip.visual)] if encoder is not None else []

    def heard(name: str):
        def hook(module: nn.Module, arguments: tuple, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) else getattr(output, "sample", output)
            meter.counts[name] += first.shape[0]

        return hook

    with ExitStack() as stack:
        for name, module in ears:
            stack.callback(module.register_forward_hook(heard(name)).remove)
        _reset(device)
        began, worked = time.perf_counter(), time.process_time()
        try:
            yield meter
        finally:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            meter.seconds, meter.peak = time.perf_counter() - began, _peak(device)
            meter.compute = time.process_time() - worked if device.type == "cpu" else meter.seconds


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    else:
        try:
            RESET.write_text("5")  # the peak of the resident set, proc(5)
        except OSError:
            return


def _peak(device: torch.device) -> float:
    """GiB: allocated on the GPU, or resident in memory where the system tells its peak; nan elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resident_peak()
    return float("nan") if peak is None else peak / 2**20


def resident_peak(process: int | str = "self") -> int | None:
    """The most memory in kB that a process has had resident since it began or was reset; None where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return None
