"""Guidance attached to an ordinary diffusers pipeline for the length of a `with` block."""
import functools
import inspect
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guide import noise, offloading, prediction, replay, responses, stepping
from guide.attaching import frozen, standing_in, weights
from guide.combination import combination
from guide.decoding import Decoder, grid_of
from guide.memory import Ladder, free, ran_out
from guide.seeds import seeds_of, view_generators
from guide.stepping import applied, previous
from guide.strategies.clean_image import CleanImage
from guide.strategies.gradient import Gradient
from guide.strategies.strategy import Ascent, Outcome, Step, Strategy
from guide.supply import Supply
from guide.watch import Conflict, Watch, listed
from probes.errors import UserError


@dataclass
class Run:
    """What happened in a `guided` block. `trace`: a dict per step; `calls`: denoiser, encoder, decodes, skipped (images), seconds;
    `notices`: what was done otherwise than asked, a sentence each."""

    trace: list[dict[str, Any]] = field(default_factory=list)
    calls: Counter = field(default_factory=lambda: Counter(denoiser=0, encoder=0, decodes=0, skipped=0, seconds=0.))
    notices: list[str] = field(default_factory=list)


@contextmanager
def guided(pipeline, objective, strategy: Strategy, *, seeds: Sequence[int] | None = None, judge=None, tiny: nn.Module | None = None,
           watch: Watch | Sequence[Watch] | None = None, on_step: Callable[[dict[str, Any]], None] | None = None,
           spare: Callable[[], nn.Module | None] | None = None, on_notice: Callable[[str], None] | None = None,
           pinned: bool = False) -> Iterator[Run]:
    """Steers each run of `pipeline` inside the block by the gradient of `objective`, in the way of `strategy`.

        with guided(pipeline, objective, strategy, seeds=seeds) as run:
            images = pipeline(prompt, generator=generators(seeds)).images

    It stands in for `pipeline.scheduler.step` and listens to the denoiser; both, and whether weights take gradients, are as before
    afterwards, after an exception too. A strength of 0 changes no bit.

    `objective(images, generators)` returns `.loss` (n,), lower is better, and `.terms`, a dict of (n,); it sees images (n, 3, h, w) in
    [0, 1] in float32. One with `at(noise, multipliers)` is asked for that of each step first (see `probes.objective`). `seeds`: one per
    image, for the views; without them each image's own starting latents seed its views. `judge` is watched, never followed; `watch` may
    damp or stop the steering (see `guide.watch`). `tiny`: a cheaper decoder of the same latents. `on_step` receives each row of the trace
    as it is written. Where memory runs out, less is done at once, and in the end otherwise (see `guide.memory`): `spare()` loads a tiny
    decoder for that case. `on_notice` gets a sentence for each; without it they are warnings.

    Pipelines of flow matching hand no generator to their scheduler. Where it adds noise all the same, a guided run draws it from a
    generator per image, of its seed; a run at strength 0 draws as the plain pipeline does, from torch's global state, unless `pinned`.
    """
    guidance = _Guidance(pipeline, objective, strategy, seeds, judge, tiny, watch, on_step, spare, on_notice, pinned)
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(guidance.recorder)
        stack.enter_context(standing_in(pipeline.scheduler, guidance.step))
        if strategy.strength:
            stack.enter_context(guidance.decoder.compared(guidance.finished, guidance.tell))
            stack.enter_context(guidance.memory.settled())
        try:
            yield guidance.run
        finally:
            guidance.run.calls["denoiser"] = guidance.recorder.count
            guidance.run.calls["seconds"] = time.perf_counter() - began


class _Guidance:
    """The state of one `guided` block; what belongs to a single run of the pipeline starts anew with each."""

    def __init__(self, pipeline, objective, strategy: Strategy, seeds, judge, tiny, watch, on_step, spare, on_notice, pinned):
        denoiser = next((part for part in (getattr(pipeline, name, None) for name in ("unet", "transformer")) if part is not None), None)
        if denoiser is None or not hasattr(pipeline, "scheduler"):
            raise UserError(f"{type(pipeline).__name__} cannot be guided: it needs a scheduler and a unet or transformer; take a "
                            "pipeline that has both, such as those of `guide models`.")
        if objective is None and strategy.strength:
            raise UserError("A strength above 0 needs an objective; pass one, or the strategy 'unguided'.")
        self.pipeline, self.objective, self.strategy, self.seeds = pipeline, objective, strategy, seeds
        self.judge, self.watches, self.on_step, self.scheduler, self.run = judge, listed(watch), on_step, pipeline.scheduler, Run()
        self.decoder, self.pending = Decoder(pipeline, tiny), []
        self.on_notice = on_notice or functools.partial(warnings.warn, stacklevel=2)
        self.memory = Ladder(self.decoder, objective, spare, self.tell)
        self.pinned = pinned or strategy.strength > 0
        self.modules = [part for part in (*getattr(pipeline, "components", {}).values(), tiny) if isinstance(part, nn.Module)]
        controlnet = getattr(pipeline, "controlnet", None)
        self.recorder = replay.Recorder(denoiser, strategy.strength > 0, self._same_scheduler, controlnet)
        self.signature = inspect.signature(pipeline.scheduler.step)
        self.timesteps, self.index, self.count, self.conflicts, self.previous, self.grid = None, 0, 0, [], None, None
        self.untouched = False  # image to image may leave no step to take
        self.goal, self.values, self.multipliers = objective, None, {}
        if strategy.strength:
            for module in (denoiser, controlnet, self.decoder.vae):
                offloading.refuse(module)

    def step(self, original: Callable, *args, **kwargs) -> Any:
        began = time.perf_counter()
        call = self.call = self.signature.bind(*args, **kwargs)
        t, x, output = (call.arguments[name] for name in ("timestep", "sample", "model_output"))
        t = t.flatten()[0] if isinstance(t, Tensor) and t.ndim else t  # one for each image, all alike (Sana Sprint)
        self._advance(t, x)
        self.supply(call.arguments)
        # Whether the pipeline goes on from what the scheduler returned; inpainting by blending does not.
        self.untouched = self.index == 0 or (self.untouched and x.shape == self.previous.shape and torch.equal(x, self.previous))
        row = {"step": self.index, "t": float(t), **self._noise(t), "guided": False, "loss": None, "skipped": 0, "decodes": 0}
        calls = self.recorder.take()
        self.grid = grid_of(calls) or self.grid
        if not self.strategy.strength or any(conflict.over for conflict in self.conflicts) or not self._aimed(row["noise"]):
            answer = original(*call.args, **call.kwargs)
        else:
            outcome, step = self._ask(calls, t, x, output)
            while outcome.again:
                noise.require_single_step(self.scheduler, type(self.strategy).__name__)
                output = self._travel(call, step, outcome)
                outcome, step = self._ask(calls, t, x, output, step.repeat + 1, call.arguments["sample"])
            changed = any(change is not None for change in (outcome.clean, outcome.mean, outcome.noise))
            row |= {"guided": changed, "watched": self.watched, "residual": _finite(step.combination.residual), "repeats": step.repeat,
                    **outcome.row}
            if self.recorder.approximate:
                row["approximate"] = self.recorder.approximate
                self.tell(f"The gradient through the denoiser is approximate: {self.recorder.approximate}.")
            row["decodes"], self.decoder.count = self.decoder.count, 0
            self._climb(row)
            if self.opinion:
                outcome = self._reconsidered(outcome, row)
            answer = applied(self.scheduler, original, call, step, outcome, self.strategy.move)
            self.carried = outcome.carried
        self.previous = previous(answer).detach()
        self.run.calls.update(decodes=row["decodes"], skipped=row["skipped"])
        now = time.perf_counter()
        row |= {"guidance_seconds": now - began, "seconds": now - self.clock}
        if self.pending:
            row["notices"], self.pending = self.pending, []
        self.clock, self.index = now, self.index + 1
        self.run.trace.append(row)
        if self.on_step:
            self.on_step(row)
        return answer

    def tell(self, line: str) -> None:
        """Says once what is done otherwise than asked: a warning, and a line in the trace."""
        if line not in self.run.notices:
            self.run.notices.append(line)
            self.on_notice(line)
            if self.index == self.count and self.run.trace:
                self.run.trace[-1].setdefault("notices", []).append(line)
            else:
                self.pending.append(line)

    def finished(self) -> tuple[Tensor, tuple[int, int] | None] | None:
        """The latents that the last step of a run left, for as long as the pipeline has not altered them."""
        return (self.previous, self.grid) if self.untouched and self.index == self.count else None

    def _aimed(self, level: float | None) -> bool:
        """Takes up the objective of this step; False where its schedules leave nothing to steer by."""
        if not hasattr(self.objective, "at"):
            return True
        self.goal, self.values = self.objective.at(level, self.multipliers), None
        return self.goal.steers

    def _climb(self, row: dict[str, Any]) -> None:
        """Carries the multipliers of the constraints on by what the first look of this step saw; the trace says what they are now."""
        values = self.values
        if values is None:
            return
        self.multipliers = self.goal.climbed(values, 1 / len(self.strategy.guided_steps(self.count)))
        for name, found in (("violations", values.violations), ("multipliers", self.multipliers)):
            row[name] = {key: [_finite(value) for value in numbers.tolist()] for key, numbers in found.items()}

    def _reconsidered(self, outcome: Outcome, row: dict[str, Any]) -> Outcome:
        """The outcome after what is watched was heard; the trace says what it said and which images it is in conflict over."""
        loss, scores = self.opinion
        row |= {"goal": [_finite(value) for value in loss.tolist()], "watch": {}, "conflict": {}}
        for conflict, score in zip(self.conflicts, scores, strict=True):
            fooled, name = conflict.see(loss, score), conflict.watch.name
            row["watch"][name], row["conflict"][name] = [_finite(value) for value in score.tolist()], fooled.tolist()
            self.run.calls["conflicts"] += int(fooled.sum())
            outcome = conflict.damped(outcome)
        row["steering_left"] = torch.stack([conflict.factor for conflict in self.conflicts]).prod(0).tolist()
        return outcome

    def _advance(self, t, x: Tensor) -> None:
        """Finds out whether this is the first step of a run of the pipeline, and how many steps the run has."""
        timesteps = self.scheduler.timesteps
        if timesteps is self.timesteps and self.index < self.count:
            return
        self.timesteps, self.index, self.carried, self.clock = timesteps, 0, None, time.perf_counter()
        self.multipliers = {}
        self.conflicts = [Conflict(watch) for watch in self.watches]
        begin = getattr(self.scheduler, "begin_index", None)
        self.first = begin if begin is not None else next((i for i, other in enumerate(timesteps.tolist()) if other == float(t)), 0)
        # What the pipeline says it will run (img2img, denoising_end) goes before what the schedule holds.
        left, announced = len(timesteps) - self.first, getattr(self.pipeline, "num_timesteps", None)
        self.count = announced if isinstance(announced, int) and 0 < announced <= left else left
        seeds = seeds_of(x, self.seeds) if self.pinned else []
        self.supply = Supply(self.scheduler, self.signature, self.call.arguments, seeds, self.tell)
        if self.strategy.strength:
            self.strategy.window(self.count)
            self.generators, self.weights = view_generators(seeds), weights(self.modules)
            self.noise_levels, self.responses = prediction.noise_levels(self.scheduler), responses.responses(
                self.scheduler, self.first, self.call.arguments)

    def _noise(self, t) -> dict[str, float | None]:
        if prediction.family(self.scheduler) is None:
            return {"sigma": None, "noise": None}
        a, b = prediction.levels(self.scheduler, t)
        return {"sigma": b / a if a else None, "noise": b / (a + b)}

    def _ask(self, calls: list[replay.Call], t, seen: Tensor, output: Tensor, repeat: int = 0, x: Tensor | None = None
             ) -> tuple[Outcome, Step]:
        """Runs the strategy outside of inference mode, where gradients vanish in silence, on copies that know no gradient.

        `seen` is the x_t that the recorded calls were made on, and `x` the one that it has become when the step is repeated.
        """
        self.watched = self.opinion = None
        # Frozen weights can make a kernel round otherwise, so the pipeline's own passes keep theirs.
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.weights), offloading.held(self.modules):
            precise = torch.promote_types(seen.dtype, torch.float32)
            # Schedulers of models that predict a variance too hold it in further channels.
            given, output = output.dtype, output.detach()[:, :seen.shape[1]].clone().to(precise)
            seen = seen.detach().clone().to(precise)
            x = seen if x is None else x.detach().clone().to(precise)
            raw = self.travelled if repeat else replay.predictions(calls, x)
            combined = output.to(given)
            scales = [scale for name in ("guidance_scale", "true_cfg_scale") if (scale := _number(self.pipeline, name))]
            step = Step(
                index=self.index, count=self.count, x=x, output=output,
                clean=prediction.clean_estimate(self.scheduler, t, x, output), **self._affine(t, x), repeat=repeat,
                draw=functools.partial(self._draw, x), noise_scale=functools.partial(stepping.noise_scale, self.scheduler, self.call, x),
                before=prediction.levels(self.scheduler, t), after=self.noise_levels[self.first + self.index + 1],
                responses=self.responses[self.first:self.first + self.count], raw=raw,
                combination=combination(raw, combined, len(calls) < len(raw), scales, _number(self.pipeline, "guidance_rescale"),
                                        _number(self.pipeline, "_cfg_normalization"), type(self.pipeline).__name__),
                decode=functools.partial(self.decoder, grid=grid_of(calls)),
                ascent=functools.partial(self._ascent, grid=grid_of(calls)),
                replay=functools.partial(self._replay, calls, t, seen),
            )
            return self._within_memory(step), step

    def _within_memory(self, step: Step) -> Outcome:
        """What the strategy answers, asked again with less at once for as long as memory runs out."""
        states, self.replayed = [generator.get_state() for generator in self.generators], False
        while True:
            try:
                return self.strategy(step, self.carried)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                cause = " ".join(str(error).split())[:160]
            # Outside of the handler, whose traceback holds the tensors of the failed attempt.
            free()
            self.watched = self.opinion = None
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)
            rung = self.memory.climb(len(step.x), self.replayed and isinstance(self.strategy, Gradient))
            if rung == "clean-image space":
                kept = {name: value for name, value in self.strategy.settings().items() if name in CleanImage.__dataclass_fields__}
                self.strategy, self.replayed = CleanImage(**kept), False
            elif not rung:
                raise UserError(f"Memory does not suffice for a guided step, however little is done at once ({cause}); make fewer or "
                                "smaller pictures at a time, or pass a tiny decoder.")

    def _replay(self, calls: Sequence[replay.Call], t, seen: Tensor, x: Tensor) -> list[Tensor]:
        self.replayed = True
        return replay.replay(self.recorder, calls, lambda latents: self._scaled(latents, t), seen, x)

    def _travel(self, call: inspect.BoundArguments, step: Step, outcome: Outcome) -> Tensor:
        """Takes the step on a copy of the scheduler, renoises its x_{t-1} to another x_t, and asks the denoiser again: the new output."""
        held = dict(call.arguments)
        copied = noise.twin(self.scheduler)
        came = previous(applied(copied, copied.step, call, step, outcome, self.strategy.move))
        call.arguments.update(held)
        with torch.inference_mode(False), torch.no_grad():
            x = noise.renoised(came.detach().clone().to(step.x), step.before, step.after, step.draw())
            self.travelled = tuple(step.replay(x))
            if step.combination.refusal:
                raise UserError(f"{type(self.strategy).__name__} repeats steps, which cannot be done here: {step.combination.refusal}.")
            output = step.combination.combined(self.travelled)
            held = call.arguments["model_output"]
            moved = held.clone()
            moved[:, :output.shape[1]] = output.to(held.dtype)
        call.arguments |= {"sample": x.to(call.arguments["sample"].dtype), "model_output": moved}
        return moved

    def _affine(self, t, x: Tensor) -> dict[str, float]:
        p, q = prediction.affine(self.scheduler, t, x)
        return {"p": p, "q": q}

    def _draw(self, like: Tensor) -> Tensor:
        """Standard normal noise, each image's from its own generator, the same on every device."""
        return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in self.generators]).to(like)

    def _ascent(self, clean: Tensor, grid: tuple[int, int] | None) -> Ascent:
        """The objective's gradient at a clean estimate, in two halves: to the pixels in float32, then through the decoder at unit size,
        so that a decoder in half precision neither loses nor overflows it."""
        with torch.enable_grad(), torch.autocast(clean.device.type, enabled=False):
            clean = clean.detach().clone().requires_grad_()
            images = self.decoder(clean, grid=grid)
            finite = images.detach().isfinite().flatten(1).all(1)
            pixels = torch.where(finite.view(-1, 1, 1, 1), images.detach(), .5).float()
            values, slope = self.memory.slopes(self.goal, pixels, self.generators)
            self.run.calls["encoder"] += 1
            if self.values is None and getattr(values, "violations", None):
                self.values = values
            size = slope.flatten(1).pow(2).mean(1).sqrt().view(-1, 1, 1, 1)
            unit = torch.where(size > 0, size, 1.)
            (gradient,) = torch.autograd.grad(images, clean, (slope / unit).to(images.dtype))
        direction = -gradient * unit.to(gradient.dtype).view(-1, *[1] * (gradient.ndim - 1))
        if self.judge is not None:
            self.watched = self._watch(pixels.detach())
        if self.watches and self.opinion is None:  # the first look of a step; later ones are of moved estimates
            with torch.no_grad():
                goal = getattr(values, "goal", None)
                self.opinion = values.loss.detach() if goal is None else goal, [watch.score(pixels.detach()) for watch in self.watches]
        usable = finite & direction.isfinite().flatten(1).all(1)
        terms = {name: term.detach() for name, term in values.terms.items()}
        return Ascent(direction, usable, values.loss.detach(), terms, pixels.detach())

    def _watch(self, images: Tensor) -> dict[str, list]:
        opinion = self.judge(images)
        return {"styles": [self.judge.labels[i] for i in opinion.styles.argmax(1).tolist()],
                "years": opinion.years.tolist(), "severity": opinion.severity.tolist()}

    def _scaled(self, x: Tensor, t) -> Tensor:
        return self.scheduler.scale_model_input(x, t) if hasattr(self.scheduler, "scale_model_input") else x

    def _same_scheduler(self) -> None:
        if self.pipeline.scheduler is not self.scheduler:
            raise UserError("The pipeline's scheduler was exchanged inside the guided block; exchange it before the block.")


def _number(pipeline, name: str) -> float:
    """A scale that the pipeline holds during its run; 0 where it holds none."""
    value = getattr(pipeline, name, None)
    return float(value) if isinstance(value, int | float) else 0.


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
