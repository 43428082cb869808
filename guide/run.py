"""`guide generate`: the same seeds unguided and guided, images as they finish, then what the probes and the verdict say of them."""
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guide import pipelines, png, record, samplers, strategies, tuning, watching
from guide.brief import Brief, learned, per_prompt
from guide.context import begin
from guide.goals import Goals
from guide.loops.particles import Particles
from guide.loops.sample import Loop, Sampler
from guide.objectives import aimed
from guide.outcome import Result, outcome, picture
from guide.strategies import Strategy, Unguided
from guide.watch import Watch
from probes.config import lookup
from probes.encoders import Encoder
from probes.errors import UserError
from probes.image import load
from probes.objective import Objective
from probes.style import StyleProbe

FEWEST = 3  # steps of the embedded model from which on the referee sees what guidance brings ("Few steps", benchmarks/README.md)
Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What a pipeline is called with; `guidance_scale` is the classifier-free one, sizes are pixels, 0 the pipeline's own.

    `tiny`: the model in configs/models, or the file, whose tiny decoder guidance goes through, or empty; `guidance_rescale` as in
    arXiv:2305.08891; `spare`: a tiny decoder for when memory runs out.
    """
    steps: int
    guidance_scale: float
    width: int
    height: int
    tiny: str = ""
    guidance_rescale: float = 0.
    spare: str = ""

    @classmethod
    def of(cls, model: pipelines.Model, steps: int | None = None) -> "Settings":
        """The model's own, or other `steps`."""
        tiny = model.key if model.tiny_decoder else ""
        return cls(steps or model.steps, model.guidance_scale, model.size, model.size, tiny, model.guidance_rescale)


@dataclass(frozen=True)
class Request:
    """What one run of `guide generate` was asked for. None: the model's own value (configs/models); size is (width, height).

    `strength` "auto" is found by the gain of the referee; `watch`: judges and measures that are watched, `on_drift` what follows where
    one falls while the guide climbs; `decoder`: "auto" for the model's tiny one where it has one, "full", or a tiny decoder's file.
    """
    brief: Brief
    out: Path
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    model: str = "embedded"
    strategy: str = "clean-image"
    strength: float | str | None = None
    steps: int | None = None
    size: tuple[int, int] | None = None
    guidance_scale: float | None = None
    encoder: str = "embedded"
    judge: str = "verdict"
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 4
    command: str = ""
    decoder: str = "auto"
    goals: Goals = field(default_factory=Goals)
    watch: tuple[str, ...] = ()
    on_drift: str = "warn"

    def settings(self) -> Settings:
        """The request's values, and the model's where it names none."""
        model = pipelines.find(self.model)
        width, height = self.size or (model.size, model.size)
        steps = model.steps if self.steps is None else self.steps
        scale = model.guidance_scale if self.guidance_scale is None else self.guidance_scale
        if not 1 <= steps <= 1000:
            raise UserError(f"{steps} steps cannot be taken; choose from 1 to 1000.")
        if not 0 <= scale <= 100:
            raise UserError(f"A guidance scale of {scale:g} cannot be used; choose from 0 to 100.")
        if not 1 <= self.batch <= 256:
            raise UserError(f"{self.batch} pictures at a time cannot be made; choose from 1 to 256.")
        own = Settings.of(model)
        tiny = {"auto": own.tiny, "full": ""}.get(self.decoder, self.decoder)
        return replace(own, steps=steps, guidance_scale=scale, width=width, height=height, tiny=tiny, spare="" if tiny else own.tiny)

    def preset(self, name: str | None = None) -> Strategy:
        """The strategy by name (default: the request's) at the request's strength, or at the model's in the strategy's own unit, which
        "auto" starts from."""
        preset = lookup(strategies.presets(), name or self.strategy, "strategy")
        strength = None if self.strength == "auto" else self.strength
        if strength is None and preset.unit != "own":
            strength = pipelines.find(self.model).strength if preset.unit == "guidance" else self.settings().guidance_scale
        return strategies.load(preset.key, strength=strength)


def arguments(pipeline, brief: Brief, settings: Settings, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the pipeline is called with for this brief, of what it accepts; `more`: what else, as `eta`."""
    accepted = inspect.signature(pipeline.__call__).parameters
    # Guidance by a second pass, where the model takes no scale as an input (Qwen-Image), needs a negative prompt to happen at all.
    second = "true_cfg_scale" in accepted and not getattr(getattr(pipeline, "transformer", None), "config", {}).get("guidance_embeds", True)
    wishes = {"prompt": brief.text(), "negative_prompt": brief.negative() or (" " if second and settings.guidance_scale > 1 else None),
              "num_inference_steps": settings.steps, "true_cfg_scale" if second else "guidance_scale": settings.guidance_scale,
              "width": settings.width or None, "height": settings.height or None}
    if settings.guidance_rescale:
        wishes["guidance_rescale"] = settings.guidance_rescale
    return {name: value for name, value in (wishes | dict(more or {})).items() if name in accepted}


def sample(pipeline, brief: Brief, seeds: Sequence[int], strategy: Strategy, objective: Objective | None, settings: Settings,
           on_step: Callable[[], None] = lambda: None, watch: Sequence[Watch] = (), more: Mapping[str, Any] | None = None
           ) -> tuple[Tensor, list[dict], dict[str, float]]:
    """One batch of pictures of one brief, a seed each -> images (n, 3, h, w) in [0, 1] on the CPU, the trace per step, costs.

    `more`: what else the pipeline is called with, as `eta`.
    """
    tiny = _tiny(settings.tiny, str(pipeline.device), pipeline.dtype) if settings.tiny else None
    spare = partial(_tiny, settings.spare, str(pipeline.device), pipeline.dtype) if settings.spare else None
    sampler = Sampler(pipeline, arguments(pipeline, brief, settings, more), objective, tiny, on_step, tuple(watch), spare)
    return sampler(seeds, strategy)


def generate(request: Request, on_progress: Progress = lambda what, done, total: None, notice: Notice = lambda line: None) -> Result:
    """Make what the request asks for into its folder; a run that was interrupted goes on with what is missing.

    Writes a PNG for each picture as it finishes, trace.jsonl, record.json, report.csv, report.json and sheet.png.
    """
    settings, strategy = request.settings(), request.preset()
    variants = {"unguided": Unguided()} | ({} if isinstance(strategy, Unguided) else {"guided": strategy})

    def there(seed: int) -> bool:
        return all(picture(request.out, seed, variant).is_file() for variant in variants)

    context = begin(request, "generate", lambda: None, there, on_progress, notice,
                    settings=settings, preset=strategy, goals=request.goals.described())
    request, now, before = replace(request, seeds=context.seeds), context.record, context.before
    device, encoder, pipeline = context.device, context.encoder, opened(request, context.device)
    for brief, _ in per_prompt(request.brief, request.seeds)[:1]:  # what cannot be asked for is found out before a picture is made
        aimed(brief, encoder, replace(request.goals, content="global"))
    watch = watching.watches(request.watch, request.on_drift, request.brief, encoder, request.goals, device)
    needed, own = lookup(strategies.presets(), request.strategy, "strategy").sampler, pipeline.scheduler
    more = samplers.fitted(pipeline, needed)
    context.weigh(pipeline=fingerprint(pipeline))
    now.lineages |= watching.consulted(request, device)
    now.costs, now.tuning = (dict(before.costs), before.tuning) if before else ({}, {})
    if request.strength == "auto":
        found = tuning.restored(now.tuning) if now.tuning else tuning.of_request(
            request, strategy, partial(sample, pipeline, settings=settings, more=more), encoder, device, on_progress)
        now.tuning = record.plain(found)
        if "guided" in variants:
            variants["guided"] = replace(strategy, strength=found.strength)
        context.tell(str(found))
    context.tell(*remarks(request, pipeline, encoder))
    now.sampler = samplers.described(pipeline, needed)
    if more or pipeline.scheduler is not own:
        context.tell(f"{request.strategy} needs a {needed} sampler: all pictures are made by {now.sampler}.")
    context.write()
    jobs = list(_missing(request, variants))
    total, done = len(jobs) * settings.steps, 0

    def stepped() -> None:
        nonlocal done
        done += 1
        on_progress(f"{variant}, seed {', '.join(map(str, seeds))}", done, total)

    for brief, seeds, variant in jobs:
        objective = None if variant == "unguided" else _aimed(request, brief, seeds, encoder)
        images, trace, costs = sample(pipeline, brief, seeds, variants[variant], objective, settings, stepped, watch, more)
        for seed, image in zip(seeds, images, strict=True):
            made = {"seed": seed, "variant": variant, "strategy": request.strategy if variant == "guided" else variant}
            said = png.described(brief, settings, **made, strength=variants[variant].strength, model=request.model, encoder=request.encoder,
                                 sampler=now.sampler)
            said |= {"goals": record.plain(request.goals.described())} if request.goals and variant == "guided" else {}
            path = picture(request.out, seed, variant)
            if not path.is_file():
                png.save(image, path, said | {"size": f"{image.shape[2]}x{image.shape[1]}"})
        context.tell(*unlike(trace, now.notes))
        with (request.out / "trace.jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record.plain({"variant": variant, "seeds": seeds, **step})) + "\n" for step in trace)
        now.costs = dict(Counter(now.costs) + Counter({f"{variant} {name}": value for name, value in costs.items()}))
        context.write()
    on_progress("reading the pictures", total, total)
    result = outcome(request, tuple(variants), device, [lineage for role, lineage in now.lineages.items() if role != "verdict"])
    context.finish(result.report.rows.to_dict("records"))
    return result


def _aimed(request: Request, brief: Brief, seeds: Sequence[int], encoder: Encoder) -> Objective:
    """The objective of a batch; directional content measures changes from its unguided pictures, which are made first."""
    source = None
    if request.goals.content == "directional":
        source = torch.cat([load(picture(request.out, seed, "unguided")) for seed in seeds])
    return aimed(brief, encoder, request.goals, source)


def opened(request: Request, device: str):
    """The pipeline, with its tiny decoder where guidance looks through one."""
    pipeline = pipelines.load(request.model, device, None if request.dtype == "auto" else request.dtype)
    if tiny := request.settings().tiny:
        _tiny(tiny, str(pipeline.device), pipeline.dtype)
    return pipeline


@lru_cache(maxsize=1)
def _tiny(model: str, device: str, dtype: torch.dtype) -> nn.Module:
    return pipelines.load_tiny(model, device, dtype)


def remarks(request: Request, pipeline, encoder: Encoder) -> list[str]:
    """What this run cannot do as well as asked, one sentence each."""
    brief, lines = request.brief, []
    named = (*(key for key, _ in brief.styles), *brief.avoid)
    hub = min((m for key, m in pipelines.models().items() if key != "embedded"), key=lambda m: (m.size, m.steps)).key
    if request.model == "embedded" and (unknown := [key for key, _ in brief.styles if key not in learned()]):
        lines.append(f"The embedded model did not learn {', '.join(unknown)} and cannot be expected to paint it; a hub model can: "
                     f"--model {hub} --encoder ViT-B-32:laion2b_s34b_b79k.")
    if unknown := [key for key in named if not StyleProbe(encoder).knows(key)]:
        lines.append(f"The encoder that steers did not learn {', '.join(unknown)}: it goes by the words for it, and its readings are "
                     "not validated.")
    if brief.negative() and "negative_prompt" not in inspect.signature(pipeline.__call__).parameters:
        lines.append("This model takes no negative prompt, so that only guidance keeps away from what is avoided.")
    ends = [end for part, _ in per_prompt(brief, request.seeds) if (end := unread(pipeline, part.text()))]
    if ends:
        more = f" (nor the ends of {len(ends) - 1} other prompts)" if len(ends) > 1 else ""
        end = ends[0].split()
        said = " ".join(end if len(end) <= 20 else [*end[:10], "...", *end[-6:]])
        lines.append(f"The prompt is too long for the model, which does not read its end: {said!r}{more}.")
    preset = request.preset()
    if isinstance(preset, Particles) and request.settings().steps <= preset.every:
        lines.append(f"With so few steps {request.strategy} compares its {preset.n} particles at the end alone: it does what best-of does; "
                     f"give --steps {preset.every + 1} or more.")
    steered = (request.model, request.strategy) == ("embedded", "clean-image") and preset.strength > 0 and brief.styles
    if steered and request.settings().steps < FEWEST:
        lines.append(f"In fewer than {FEWEST} steps guidance moves the embedded model's pictures, but not toward the style in a judge's "
                     "eyes; give --steps 5 or more.")
    if request.watch and isinstance(preset, Loop):
        lines.append(f"{request.strategy} chooses among whole runs and steers none from inside, so that nothing is watched in its steps.")
    return lines


def unread(pipeline, text: str) -> str:
    """The end of a prompt that no text encoder of the pipeline reads, as its tokenizer spells it; empty where one of them reads it all."""
    ends = []
    for tokenizer in filter(None, (getattr(pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3"))):
        tokens, most = tokenizer(text, verbose=False).input_ids, tokenizer.model_max_length
        ends.append(tokenizer.decode(tokens[most - 1:-1]).strip() if len(tokens) > most else "")
    return min(ends, key=len, default="")


def unlike(trace: Sequence[dict], known: Sequence[str]) -> list[str]:
    """What a run did otherwise than asked, as its trace tells it, but for what is known already."""
    return [line for line in dict.fromkeys(line for row in trace for line in row.get("notices", ())) if line not in known]


def fingerprint(pipeline) -> str:
    """SHA-256 over the pipeline's weights, of tensors above a million entries every 97th so that large models take seconds, and over its
    sampler's kind and settings: pictures of another one are others."""
    scheduler = pipeline.scheduler
    settings = sorted((name, value) for name, value in scheduler.config.items() if not name.startswith("_"))
    digest = sha256(f"{type(scheduler).__name__} {settings}".encode())
    for name, part in sorted(pipeline.components.items()):
        for key, tensor in sorted(part.state_dict().items()) if isinstance(part, nn.Module) else ():
            flat = tensor.detach().flatten()
            digest.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
            digest.update((flat[::97] if flat.numel() > 1_000_000 else flat).cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _missing(request: Request, variants: dict[str, Strategy]) -> Iterator[tuple[Brief, tuple[int, ...], str]]:
    """(brief, seeds, variant) of each batch of which a picture is missing: whole batches, so that going on changes no digit."""
    for brief, seeds in per_prompt(request.brief, request.seeds):
        for start in range(0, len(seeds), request.batch):
            batch = seeds[start:start + request.batch]
            for variant in variants:
                if not all(picture(request.out, seed, variant).is_file() for seed in batch):
                    yield brief, batch, variant
