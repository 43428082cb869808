"""`guide plan`: seconds and memory of a run before anything is loaded."""
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import psutil
import torch

from guide import pipelines, strategies
from guide.brief import Brief
from guide.objectives import aimed
from guide.planning import counting, networks, tracing
from guide.planning.calibration import Machine
from probes import devices, encoders
from probes.errors import UserError
from probes.views import Views


@dataclass(frozen=True)
class Part:
    """One kind of work: rows of it per picture, seconds per row, the most bytes alive in it besides weights."""

    name: str
    rows: float
    seconds: float
    peak: int
    flops: float


@dataclass(frozen=True)
class Plan:
    """`seconds` per picture and `memory` in bytes, predicted; `weights` of it are parameters, `ground` the process before loading."""

    model: str
    strategy: str
    size: tuple[int, int]
    steps: int
    batch: int
    device: str
    dtype: str
    parts: list[Part]
    weights: int
    ground: int
    share_estimated: float
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(part.rows * part.seconds for part in self.parts)

    @property
    def memory(self) -> int:
        return self.ground + self.weights + max(part.peak for part in self.parts)

    @property
    def dominant(self) -> Part:
        return max(self.parts, key=lambda part: part.rows * part.seconds)


def plan(model: str = "embedded", strategy: str = "clean-image", size: tuple[int, int] | None = None, steps: int | None = None,
         seeds: int = 4, batch: int = 4, encoder: str = "embedded", device: str = "auto", dtype: str = "auto", decoder: str = "auto",
         budget: float = 8.) -> Plan:
    """The costs of one run at `strategy` (without the unguided pictures beside it, which are a run of their own)."""
    known = pipelines.find(model)
    here, notes = devices.select(device), []
    if device == "auto" and here == "mps":  # neither its clock nor its memory is read here
        here, notes = "cpu", ["Apple's Metal is not measured: these are figures of the processor."]
    device = here
    width, height = size or (known.size or 512, known.size or 512)
    steps, batch = steps or known.steps, min(batch, seeds)
    kind = getattr(torch, (("float32" if device == "cpu" else known.dtype) if dtype == "auto" else dtype), None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise UserError(f"{dtype!r} is not a precision; give float32, bfloat16 or float16.")
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"A plan measures the device's speed, and {device} is not here; plan on that machine, or with --device cpu.")
    chosen, doubled = strategies.load(strategy), networks.doubled(model)
    rows = counting.calls(chosen, steps, batch, doubled)
    # The embedded encoder is small, and what its probes add to it is known only from them: its objective is the real one.
    real = encoders.load("embedded", device) if encoder == "embedded" else None
    objective = aimed(Brief(prompt="a still life", styles=(("baroque", 1.),)), real) if real is not None else None
    with tracing.empty(device):
        nets = networks.load(model, tiny=decoder != "full")
        for module in (nets.denoiser, nets.vae, nets.tiny, *nets.texts):
            if module is not None:
                module.to(kind)
        weights = sum(map(networks.size, (nets.denoiser, nets.vae, nets.tiny, *nets.texts)))
        looking = real if real is not None else _encoder(encoder)
        weights += networks.size(looking) if real is None else 0
        traces = _traces(nets, looking, objective, batch, batch * (1 + doubled), height, width, kind, rows)
    machine, parts, guessed = Machine(device, budget), [], 0.
    for name, (trace, count, per_picture) in traces.items():
        seconds = machine.seconds(trace.ops) / count
        guessed += per_picture * machine.estimated / count
        parts.append(Part(name, per_picture, seconds, trace.peak, trace.flops / count))
    found = Plan(model, strategy, (width, height), steps, batch, device, str(kind).removeprefix("torch."), parts, weights,
                 _ground(device), 0., notes)
    if device == "cpu":
        notes.append("Measured on this CPU as it is now; on a GPU no prediction has been checked.")
    else:
        notes.append("No prediction for a GPU has been checked on one.")
    there = psutil.virtual_memory().total if device == "cpu" else torch.cuda.get_device_properties(device).total_memory
    if found.memory > there:
        notes.append(f"That is more than the {there / 2**30:.1f} GiB that are here: take a smaller --size, --dtype bfloat16 or another "
                     "machine.")
    return replace(found, share_estimated=guessed / found.seconds if found.seconds else 0.)


def _traces(nets, looking, objective, batch: int, rows: int, height: int, width: int, dtype: torch.dtype, counted) -> dict:
    """part -> (trace, its rows, rows of it per picture)."""
    latents, run = networks.inputs(nets, rows, height, width, dtype)
    eye = nets.tiny if nets.tiny is not None else nets.vae
    per = {name: count / batch for name, count in counted.items()}

    def slope(compute: Callable, like: torch.Tensor) -> None:
        with torch.enable_grad():
            x = like.clone().requires_grad_()
            out = compute(x)
            torch.autograd.grad(out, x, torch.ones_like(out))

    shape = (batch, nets.channels, height // nets.factor, width // nets.factor)
    z = torch.zeros(shape if not _frames(nets.vae) or nets.tiny is not None else (*shape[:2], 1, *shape[2:]), dtype=dtype)
    whole = z.unsqueeze(2) if _frames(nets.vae) and z.ndim == 4 else z

    def pixels(z):
        images = eye.decode(z, return_dict=False)[0]
        return (images[:, :, 0] if images.ndim == 5 else images).float().clamp(0, 1)

    def look(images):
        generators = [torch.Generator().manual_seed(0) for _ in images]
        return objective(images, generators).loss if objective is not None else looking(Views()(images, generators, looking.side)).sum(1)

    def guided_look() -> None:
        with torch.enable_grad():
            start = z.clone().requires_grad_()
            images = pixels(start)
            seen = images.detach().requires_grad_()
            (down,) = torch.autograd.grad(look(seen).sum(), seen)
            torch.autograd.grad(images, start, down)

    with torch.no_grad():
        made = {}
        if nets.texts:
            texts = tracing.traced(lambda: [networks.encode(text, rows) for text in nets.texts])
            made["text encoders"] = (texts, rows, rows / batch)
        made["denoiser"] = (tracing.traced(lambda: run(latents)), rows, per.get("denoiser", 0))
        if per.get("denoiser with gradient"):
            made["denoiser with gradient"] = (tracing.traced(lambda: slope(run, latents)), rows, per["denoiser with gradient"])
        if per.get("guided look"):
            made["decoder and encoder, with gradient"] = (tracing.traced(guided_look), batch, per["guided look"])
        if per.get("look"):
            made["decoder and encoder"] = (tracing.traced(lambda: look(pixels(z))), batch, per["look"])
        made["last decoding"] = (tracing.traced(lambda: nets.vae.decode(whole.to(dtype), return_dict=False)), batch, 1.)
    return made


def _frames(vae) -> bool:
    return type(vae).__name__ in ("AutoencoderKLQwenImage", "AutoencoderKLWan")


def _encoder(source: str):
    """The encoder's network without weights."""
    import logging

    import open_clip

    from probes.encoders import Encoder

    logging.getLogger().setLevel(logging.ERROR)  # that no weights were loaded is the point
    try:
        clip = open_clip.create_model(f"local-dir:{source}" if "/" in source else source.split(":")[0], load_weights=False)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise UserError(f"The configuration of the encoder {source} is not to be had ({' '.join(str(error).split())[:100]}).") from None
    return Encoder(clip, None, source=source)


def _ground(device: str) -> int:
    """What the process needs before it loads anything: on the CPU what this one, with the same libraries, holds now."""
    return psutil.Process().memory_info().rss if device == "cpu" else 0
