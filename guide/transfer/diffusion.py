"""The engine *diffusion*: image to image, or DDIM inversion and back, of any diffusers pipeline under `guided()`."""
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from guide import pipelines, prediction, samplers, strategies
from guide.guided import guided
from guide.run import Settings, arguments, fingerprint
from guide.seeds import generators
from guide.transfer import content, statistics, words
from guide.transfer.inversion import Backward
from guide.transfer.pixels import Pixels, composed, held
from guide.transfer.request import Request
from guide.transfer.target import Target, shrunk
from probes import image
from probes.constraints import Constraint
from probes.encoders import Encoder
from probes.errors import UserError
from probes.objective import Values

NOISE, STEPS = .6, 30  # the share of the schedule that is run where nothing is asked for, and its length
BRUSHWORK = 20.  # what a unit of brushwork distance counts beside a log-odd


@dataclass(frozen=True, eq=False)
class Held:
    """Readings and brushwork to be reached, distances to be held: an objective of `guided()`, whose multipliers it carries on by `at`."""

    readings: Callable | None
    target: Target | None
    encoder: Encoder
    constraints: Mapping[str, Constraint]
    multipliers: Mapping[str, Tensor] = field(default_factory=dict)

    steers = True

    def at(self, noise: float | None, multipliers: Mapping[str, Tensor] = MappingProxyType({})) -> "Held":
        return replace(self, multipliers=multipliers)

    def climbed(self, values: "Found", share: float) -> dict[str, Tensor]:
        return {name: constraint.climbed(self._multiplier(name, values.loss), values.violations[name], share)
                for name, constraint in self.constraints.items()}

    def __call__(self, images: Tensor, views: Sequence[torch.Generator]) -> "Found":
        found = self.readings(images, views) if self.readings else Values(images.sum((1, 2, 3)) * 0, {})
        loss, terms, violations = found.loss, dict(found.terms), {}
        if self.target is not None:
            brush = torch.stack([self._brushwork(one[None]) for one in images])
            loss, terms["brushwork"] = loss + BRUSHWORK * brush, brush.detach()
        for name, constraint in self.constraints.items():
            score = constraint.measure(images)
            violation = constraint.violation(score)
            loss = loss + constraint.loss(violation, self._multiplier(name, loss))
            terms[name], violations[name] = score.detach(), violation.detach()
        return Found(loss, terms, violations)

    def _multiplier(self, name: str, like: Tensor) -> Tensor:
        return self.multipliers.get(name, torch.zeros_like(like.detach()))

    def _brushwork(self, picture: Tensor) -> Tensor:
        weights, small = statistics.stages(self.encoder), shrunk(picture, 144)
        wanted, spread = self.target.at(min(small.shape[-2:]))
        return statistics.distance(statistics.measured(self.encoder, small, list(weights), gram=self.target.gram), wanted, spread, weights)


@dataclass(frozen=True, eq=False)
class Found:
    """As `probes.objective.Values`, with the violations `(n,)` of the constraints."""

    loss: Tensor
    terms: dict[str, Tensor]
    violations: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Called with a photograph and a seed, it gives the picture `(1, 3, h, w)`, the trace, and what the picture is to say besides."""

    request: Request
    pixels: Pixels
    pipeline: object
    weights: dict[str, str]

    @classmethod
    def of(cls, request: Request, encoder: Encoder, photos: Sequence, device: str) -> "Diffusion":
        pipeline = pipelines.load(request.model, device, None if request.dtype == "auto" else request.dtype)
        found = cls(request, Pixels.of(request, encoder, photos), pipeline, {"pipeline": fingerprint(pipeline)})
        if request.invert and request.strength is not None:
            raise UserError("An inversion goes through all steps and takes no --strength; leave it out, or leave --invert out.")
        if request.invert and found.asked < 2:
            raise UserError("One step is too few for an inversion; give --steps 2 or more, or leave --invert out.")
        rounded_up = prediction.family(pipeline.scheduler) == prediction.FLOW  # their pipelines take a part of a step as a whole one
        if not request.invert and not rounded_up and 0 < found.strength * found.asked < 1:
            raise UserError(f"A strength of {found.strength:g} leaves none of {found.asked} steps to paint; give --steps "
                            f"{math.ceil(1 / found.strength)} or more, or a greater --strength.")
        return found

    @property
    def asked(self) -> int:
        """Steps from nothing but noise."""
        return self.request.steps or pipelines.find(self.request.model).steps or STEPS

    @property
    def steps(self) -> int:
        """Of these, those that this run takes."""
        return self.asked if self.request.invert else max(1, min(int(self.asked * self.strength), self.asked))

    @property
    def strength(self) -> float:
        if self.request.invert:
            return 1.
        return NOISE if self.request.strength is None else min(self.request.strength, 1.)

    @property
    def sampler(self) -> str:
        """In words; an inversion and its way back are DDIM's, and a photograph that stays as it is has none."""
        if not self.strength:
            return ""
        return "DDIM" if self.request.invert else samplers.described(self.pipeline, "")

    def notes(self) -> list[str]:
        """What this run cannot do as well as asked."""
        asked = self.request.strength or 0.
        return self.pixels.notes() + ([f"The strength of diffusion is a share of noise and ends at 1, not {asked:g}."] if asked > 1 else [])

    def __call__(self, photo, seed: int, on_step: Callable) -> tuple[Tensor, list[dict], dict]:
        if self.strength == 0:
            return photo.pixels.cpu(), [], {}
        request, model = self.request, pipelines.find(self.request.model)
        size = [max(8, round(side / 8) * 8) for side in photo.pixels.shape[-2:]]
        source = image.resize(photo.pixels, tuple(size)).clamp(0, 1)
        strategy = strategies.load("clean-image", strength=model.strength if request.guidance is None else request.guidance)
        target = self.pixels.target(photo.pixels, seed) if request.references else None
        constraints = content.constraints(self.pixels.encoder, source, request.keep)
        readings = words.objective(request.brief, self.pixels.encoder, source, not request.brief.prompt)
        goal = Held(readings, target, self.pixels.encoder, constraints)
        run = self._inverted if request.invert else self._image_to_image
        rows: list[dict] = []

        def seen(row: dict) -> None:
            rows.append({**row, "loss": row.get("loss")})
            on_step({"step": len(rows) - 1}, None)
        made = run(source, seed, goal, strategy, seen).float().clamp(0, 1)
        made = image.resize(made, tuple(photo.pixels.shape[-2:])).clamp(0, 1)
        made = composed(made, photo.pixels, photo.mask, request.preserve_color)
        made, share = held(made, photo.pixels, content.constraints(self.pixels.encoder, photo.pixels, request.keep))
        return made.cpu(), rows, {"guidance": strategy.strength, "drawn_back": 1 - share}

    def _arguments(self, pipeline, source: Tensor, steps: int) -> dict:
        settings = Settings.of(pipelines.find(self.request.model), steps)
        return arguments(pipeline, self.request.brief, replace(settings, width=source.shape[3], height=source.shape[2]))

    def _image_to_image(self, source: Tensor, seed: int, goal: Held, strategy, seen: Callable) -> Tensor:
        from diffusers import AutoPipelineForImage2Image
        try:
            pipeline = AutoPipelineForImage2Image.from_pipe(self.pipeline)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{type(self.pipeline).__name__} has no image-to-image pipeline in diffusers ({str(error)[:120]}); take "
                            "another --model, or --engine pixels.") from None
        pipeline.set_progress_bar_config(disable=True)
        with guided(pipeline, goal, strategy, seeds=[seed], on_step=seen):
            return pipeline(image=source, strength=self.strength, generator=generators([seed]), output_type="pt",
                            **self._arguments(pipeline, source, self.asked)).images

    def _inverted(self, source: Tensor, seed: int, goal: Held, strategy, seen: Callable) -> Tensor:
        """DDIM run backward from the photograph (arXiv:2010.02502, section 4.3), without classifier-free guidance, then forward guided."""
        pipeline, scheduler = self.pipeline, self.pipeline.scheduler
        if "beta_start" not in scheduler.config or not hasattr(pipeline, "vae"):
            raise UserError(f"{type(pipeline).__name__} with {type(scheduler).__name__} cannot be inverted by DDIM; leave --invert out, or "
                            "take a model such as embedded, stable-diffusion-1.5 or sdxl.")
        steps = self.asked
        try:
            latents = encoded(pipeline, source)
            backward = self._arguments(pipeline, source, steps) | {"prompt": words.SOURCE, "guidance_scale": 1.}
            pipeline.scheduler = Backward.from_config(scheduler.config, clip_sample=False)
            noise = pipeline(**backward, latents=latents, output_type="latent").images
            pipeline.scheduler = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
            with guided(pipeline, goal, strategy, seeds=[seed], on_step=seen):
                return pipeline(**self._arguments(pipeline, source, steps), latents=noise.to(latents), generator=generators([seed]),
                                output_type="pt").images
        finally:
            pipeline.scheduler = scheduler


@torch.no_grad()
def encoded(pipeline, images: Tensor) -> Tensor:
    """Images in [0, 1] as latents at the pipeline's scale."""
    found = pipeline.vae.encode((2 * images - 1).to(pipeline.vae.dtype))
    latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    config = pipeline.vae.config
    return (latents - (getattr(config, "shift_factor", None) or 0.)) * (getattr(config, "scaling_factor", None) or 1.)
