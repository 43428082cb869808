"""`--strength auto`: the strength at which a judge that does not steer gains most, found on seeds of its own."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from guide.brief import per_prompt
from guide.loops.sample import Loop, whole_loss
from guide.objectives import aimed
from guide.seeds import members
from guide.strategies import Strategy, Unguided
from guide.watch import Watch, of_judge
from probes import judge
from probes.encoders import Encoder
from probes.errors import UserError

PICTURES = 4  # a strength
LARGEST = 64.


@dataclass(frozen=True)
class Tuning:
    """`strength`: what was chosen, 0 where no strength made the judge gain; `tried`: for each strength in the order of trial the mean gains
    of judge and guide and the standard error of the judge's; `judge`, `seeds`: whose gain, and on which pictures."""

    strength: float
    tried: tuple[dict[str, float], ...]
    judge: str
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        said = ", ".join(f"{row['strength']:g}: {row['gain']:+.2f}" for row in sorted(self.tried, key=lambda row: row["strength"]))
        return (f"Strength {self.strength:g} was chosen by the gain of the {self.judge} on {len(self.seeds)} pictures of other seeds "
                f"({said}).")


def tuning_seeds(seeds: Sequence[int], count: int = PICTURES) -> tuple[int, ...]:
    """Seeds that depend on the run's first one alone and are none of the run's."""
    return tuple(seed for seed in members(seeds[0], count + len(seeds) + 1)[1:] if seed not in seeds)[:count]


def tune(make: Callable[[Strategy], Tensor], strategy: Strategy, watch: Watch, loss: Callable[[Tensor], Tensor], seeds: Sequence[int],
         first: float = 1., rounds: int = 2) -> Tuning:
    """Doubles the strength from `first` on while the judge's mean gain rises, then halves the gap around the best `rounds` times.

    `make(strategy)`: pictures (n, 3, h, w) of the tuning seeds; `watch.score`: what has to rise; `loss`: the guide's loss (n,), reported
    beside it. Where `first` already gains nothing, smaller strengths are tried. The bisection is in log(strength), as the gain is.
    """
    turned = 1 if watch.higher_is_better else -1
    plain = make(replace(strategy, strength=0.))
    before, guided_before = turned * watch.score(plain), loss(plain)
    tried: dict[float, dict[str, float]] = {0.: {"strength": 0., "gain": 0., "guide_gain": 0., "standard_error": 0.}}

    def gain(strength: float) -> float:
        if strength not in tried:
            pictures = make(replace(strategy, strength=strength))
            gains = (turned * watch.score(pictures) - before).double().cpu()
            tried[strength] = {
                "strength": strength, "gain": float(gains.mean()), "guide_gain": float((guided_before - loss(pictures)).mean()),
                "standard_error": float(gains.std() / math.sqrt(len(gains))) if len(gains) > 1 else math.nan}
        return tried[strength]["gain"]

    best = first
    if gain(first) > 0:
        while best < LARGEST and gain(2 * best) > gain(best):
            best *= 2
    else:
        for _ in range(2):
            best /= 4
            if gain(best) > 0:
                break
    if gain(best) > 0:
        ratio = 2.
        for _ in range(rounds):
            ratio = math.sqrt(ratio)
            around = [round(best * factor, 3) for factor in (1 / ratio, ratio)]
            best = max([best, *around], key=gain)
    chosen = max(tried, key=lambda strength: (tried[strength]["gain"], -strength))
    return Tuning(chosen, tuple(tried.values()), watch.name, tuple(seeds))


def restored(told: dict[str, Any]) -> Tuning:
    """A tuning from a record."""
    return Tuning(told["strength"], tuple(told["tried"]), told["judge"], tuple(told["seeds"]))


def of_request(request, strategy: Strategy, sample: Callable[..., Any], encoder: Encoder, device: str,
               on_progress: Callable[[str, int, int], None]) -> Tuning:
    """The strength for a request of `guide.run`, by the referee. `sample(brief, seeds, strategy, objective)` makes a batch of pictures."""
    if isinstance(strategy, Loop | Unguided):
        raise UserError(f"{request.strategy} goes around whole runs, and no strength of it is tuned; give a number, or another strategy.")
    watch = of_judge(judge.load("referee", device), request.brief)
    groups = per_prompt(request.brief, tuning_seeds(request.seeds))
    plain: list[Tensor] = []

    def make(strategy: Strategy) -> Tensor:
        on_progress(f"trying strength {strategy.strength:g}" if strategy.strength else "unguided, for the strength", 0, 0)
        objectives = [aimed(brief, encoder, request.goals, plain[place]) if strategy.strength else None
                      for place, (brief, _) in enumerate(groups)]
        made = [sample(brief=brief, seeds=seeds, strategy=strategy, objective=objective)[0]
                for (brief, seeds), objective in zip(groups, objectives, strict=True)]
        plain.extend([] if plain else made)
        return torch.cat(made)

    def loss(pictures: Tensor) -> Tensor:
        parts = pictures.split([len(seeds) for _, seeds in groups])
        return torch.cat([whole_loss(aimed(brief, encoder, request.goals, plain[place]), part.to(device), seeds).cpu()
                          for place, ((brief, seeds), part) in enumerate(zip(groups, parts, strict=True))])

    seeds = [seed for _, group in groups for seed in group]
    watched = replace(watch, score=lambda pictures: watch.score(pictures.to(device)).cpu())
    return tune(make, strategy, watched, loss, seeds, first=max(strategy.strength / 4, .25))
