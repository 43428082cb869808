"""The device that "auto" stands for, told in one place."""
import torch


def select(name: str = "auto") -> str:
    """The device by its name; `auto` is the first accelerator of this machine (CUDA, then Apple's Metal), else the processor."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
