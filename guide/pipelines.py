"""Pipelines by name: the embedded one, a local diffusers folder, a model of configs/models or any other of the Hugging Face hub."""
from dataclasses import dataclass
from pathlib import Path

from probes.config import catalogue, lookup
from probes.errors import UserError
from probes.paths import typed

EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class Model:
    """A pipeline as configs/models tells it: where it is and what to call it with.

    `source`: "embedded", a folder or a hub id; `size`: the side in pixels it was made for; `strength`: the default for guidance;
    `guidance_rescale`: how far the guided prediction gets the spread of the prompt's own back (arXiv:2305.08891), 0 to 1;
    `tiny_decoder`: hub id of an AutoencoderTiny of the same latents, or its folder in guide/embedded; `gpu_memory`: GiB that it needs in
    half precision with guidance, 0 where that was not measured; `dtype`: precision on a GPU; `gated`: the hub asks for an account that
    accepted its licence; `read`: where the licence was read, "unverified" where it was not; `latents`: what turns its latents into pixels.
    """

    source: str
    about: str
    licence: str
    steps: int
    guidance_scale: float
    size: int
    names: tuple[str, ...] = ()
    revision: str = "main"
    variant: str = ""
    strength: float = 1.
    guidance_rescale: float = 0.
    tiny_decoder: str = ""
    gpu_memory: float = 0.
    dtype: str = "float16"
    gated: bool = False
    read: str = "unverified"
    latents: str = ""
    key: str = ""

    def __post_init__(self):
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"steps must be from 1 to 1000, not {self.steps}")
        if not 0 <= self.guidance_scale <= 100:
            raise ValueError(f"guidance_scale must be from 0 to 100, not {self.guidance_scale:g}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must be from 0 to 1, not {self.guidance_rescale:g}")
        if self.size < 0 or self.size % 8 or self.size > 8192:
            raise ValueError(f"size must be a multiple of 8 up to 8192 pixels, or 0 for the pipeline's own, not {self.size}")
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength must be 0 or more, not {self.strength:g}")


def models() -> dict[str, Model]:
    """The catalogue of models by key."""
    return catalogue("models", Model)


def find(name: str) -> Model:
    """The model that a name, a folder or a hub id means; what configs/models does not list gets plain settings. UserError for no such."""
    folder = typed(name)
    if (folder / "model_index.json").is_file():
        return Model(source=str(folder), about="a local folder", licence="unverified", steps=30, guidance_scale=5., size=0, key=name)
    entries = models()
    listed = next((model for model in entries.values() if model.source.lower() == name.lower()), None)
    if listed:
        return listed
    if folder.is_dir():
        raise UserError(f"The folder {name} holds no diffusers pipeline: model_index.json is missing; write one with save_pretrained().")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Model(source=name, about="a model of the hub", licence="unverified", steps=30, guidance_scale=5., size=0, key=name)
    return lookup(entries, name, "model")


def load(name: str = "embedded", device: str = "cpu", dtype=None):
    """The diffusers pipeline of a model, in evaluation mode on `device`, its own progress bar off.

    `dtype`: a torch dtype or its name; float32 on the CPU and the model's own on a GPU where not given. UserError where it cannot be had.
    """
    import torch
    from diffusers import DiffusionPipeline

    model = find(name)
    dtype = _dtype(dtype or ("float32" if torch.device(device).type == "cpu" else model.dtype))
    if model.source == "embedded" and not (EMBEDDED / "model_index.json").is_file():
        raise UserError("The embedded pipeline is missing from guide/embedded; install the package again or check out all files.")
    options = {"variant": model.variant} if model.variant else {}
    source = EMBEDDED if model.source == "embedded" else model.source
    pipeline = _fetched(model, lambda: DiffusionPipeline.from_pretrained(source, revision=model.revision, dtype=dtype, **options))
    pipeline.set_progress_bar_config(disable=True)
    if model.source == "embedded":
        pipeline.vae.to(memory_format=torch.channels_last)  # half again as fast on a CPU
    return pipeline.to(device)


def load_tiny(name: str, device: str = "cpu", dtype=None):
    """The tiny decoder that configs/models names for a model, or that in a folder or file of its own (see `guide.tiny`), for
    `guided(..., tiny=)`; None where a model has none."""
    import torch
    from diffusers import AutoencoderTiny

    from guide import tiny as files

    path = typed(name)
    if path.suffix in (".safetensors", ".pth", ".pt") or (path.is_dir() and not (path / "model_index.json").is_file()):
        return files.load(path, _dtype(dtype or "float32")).to(device, memory_format=torch.channels_last)
    model = find(name)
    if not model.tiny_decoder:
        return None
    dtype = _dtype(dtype or ("float32" if torch.device(device).type == "cpu" else model.dtype))
    source = str(EMBEDDED / model.tiny_decoder) if model.source == "embedded" else model.tiny_decoder
    tiny = _fetched(model, lambda: AutoencoderTiny.from_pretrained(source, dtype=dtype), source)
    return tiny.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # a third faster on a CPU


def _dtype(dtype):
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"{dtype!r} is not a precision; give float32, bfloat16 or float16.")
    return found


def _fetched(model: Model, load, source: str = ""):
    """What `load` returns; what the hub or the disk refuses, as one sentence that says which files and how to get them."""
    from diffusers.utils import logging
    from safetensors import SafetensorError

    source, verbosity = source or model.source, logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return load()
    except (OSError, ValueError, ImportError, AttributeError, RuntimeError, SafetensorError) as error:
        if source == "embedded" or Path(source).is_dir():
            raise UserError(f"The pipeline in {source} cannot be loaded ({_short(error)}); save or download it again.") from error
        account = " after accepting its licence there and `hf auth login`" if model.gated else ""
        cause = "it is not in the local cache and the hub gave no answer" if "cached" in str(error) else _short(error)
        raise UserError(
            f"{source} cannot be had from the Hugging Face hub ({cause}); where there is a network, run `hf download {source}`{account}, "
            "which fetches model_index.json and, for each part that it names, the configuration and the .safetensors weights, "
            "then carry over the cache (HF_HOME) or pass the folder as --model.") from error
    finally:
        logging.set_verbosity(verbosity)


def _short(error: Exception) -> str:
    told = " ".join(str(error).split())
    return f"{type(error).__name__}: {told[:160] + '...' if len(told) > 160 else told}".rstrip(".")


# Of prompts that are too long; of modules that a cast should leave in 32 bits, where there are none.
NOISE = "part of your input was truncated", "Token indices sequence length is longer", "should be kept in float32: []"


def hush() -> None:
    """Leave out the libraries' bars for reading files from disk, those of downloads stay; and what they say of nothing, or of prompts
    that are too long at every call anew: `guide.run.unread` tells it once."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.disable_propagation()  # where CI is set, what they say goes to the root logger besides
        for handler in library.utils.logging.get_logger(library.__name__).handlers:
            handler.addFilter(_tells_more)


def _tells_more(record) -> bool:
    return not any(words in record.getMessage() for words in NOISE)
