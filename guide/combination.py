"""How a pipeline makes one prediction of its denoiser's several: the rule of its family, and the residual that verifies it in each step."""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["", "last dimension", "capped", "rescaled"]


@dataclass(frozen=True)
class Rule:
    """`combined = norm(sign * (weights of the order at the pipeline's scale) * raw)`.

    `order`: which raw prediction is the prompt's own, and what the scale counts: "second" `u + s (c - u)` with u first (Stable Diffusion),
    "first" the same with c first (FLUX.1 with true guidance), "beyond" `c + s (c - u)` with c first (Z-Image).
    `norm`: "last dimension" gives every vector along the last dimension the length of the prompt's own (Qwen-Image, Lumina); "capped" holds
    each image's length to a multiple of it (Z-Image); "rescaled" mixes in the prompt's own spread (arXiv:2305.08891).
    """

    order: Literal["second", "first", "beyond"] = "second"
    sign: float = 1.
    norm: Norm = ""

    @property
    def conditional(self) -> int:
        return 1 if self.order == "second" else 0

    def weights(self, scale: float) -> tuple[float, float]:
        first, second = {"second": (1 - scale, scale), "first": (scale, 1 - scale), "beyond": (1 + scale, -scale)}[self.order]
        return self.sign * first, self.sign * second


# By the pipeline's class, its longest known beginning: the rules that its code follows, tried before all others. Read in diffusers 0.42.
FAMILIES: dict[str, tuple[Rule, ...]] = {
    "QwenImage": (Rule("first", norm="last dimension"),),
    "ZImage": (Rule("beyond", -1.), Rule("beyond", -1., "capped")),
    "Lumina2": (Rule("first", -1., "last dimension"), Rule("first", -1.)),
    "HiDream": (Rule("second", -1.),),
    "Flux": (Rule("first"),),
    "CogView4": (Rule("first"),),
    "StableDiffusion": (Rule("second"), Rule("second", norm="rescaled")),
}
NORMS: tuple[Norm, ...] = ("", "last dimension", "rescaled")
ORDERS = {"batched": ("second", "first"), "separate": ("first", "second")}

# What rounding may leave of the combined prediction that a rule does not explain, relative.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Combination:
    """How a pipeline made one prediction of several: `combined(raw) = norm(sum(weights * raw))`.

    `conditional`: which raw one is the prompt's own, None without classifier-free guidance; `residual`: the relative part of the combined
    prediction that the rule leaves unexplained; `refusal`: why the rule cannot stand for the pipeline, empty if it can; `sign`: -1 where
    the pipeline turns its denoiser's predictions round; `strength`: how much of the norm (a cap, a share of rescaling).
    """

    weights: tuple[float, ...]
    conditional: int | None
    residual: float
    refusal: str = ""
    sign: float = 1.
    norm: Norm = ""
    strength: float = 1.

    def combined(self, raw: Sequence[Tensor]) -> Tensor:
        """The pipeline's prediction for these raw ones, with gradient to them."""
        mixed = sum(weight * part for weight, part in zip(self.weights, raw, strict=True))
        return normed(mixed, raw[self.conditional or 0], self.norm, self.strength) if self.norm else mixed

    def own(self, raw: Sequence[Tensor]) -> Tensor | None:
        """The prompt's own prediction as the scheduler would see it alone; None without classifier-free guidance."""
        return None if self.conditional is None else self.sign * raw[self.conditional]


def normed(mixed: Tensor, own: Tensor, norm: Norm, strength: float = 1.) -> Tensor:
    """`mixed` brought to the size of the prompt's own prediction in the way of `norm`."""
    if norm == "last dimension":
        return mixed * (own.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True))
    over = tuple(range(1, mixed.ndim))
    if norm == "capped":
        most = strength * torch.linalg.vector_norm(own, dim=over, keepdim=True)
        return mixed * (most / torch.linalg.vector_norm(mixed, dim=over, keepdim=True)).clamp(max=1.)
    spread = own.std(dim=over, keepdim=True) / mixed.std(dim=over, keepdim=True)
    return mixed * (strength * spread + 1 - strength)


def combination(raw: Sequence[Tensor], combined: Tensor, batched: bool, scales: Sequence[float] = (), rescale: float = 0.,
                cap: float = 0., family: str = "") -> Combination:
    """The rule of the pipeline's family where it explains the combined prediction, then any other rule, then a least-squares fit.

    `scales`: guidance scales that the pipeline names; `rescale`: its guidance rescale, `cap`: its cap of the norm, 0 where it has none;
    `family`: its class's name. Where no named scale explains it the scale is fitted, which is exact but for rounding.
    """
    if not raw:
        return Combination((), None, float("nan"), "the denoiser's outputs do not have the shape of the latents")
    parts, target = [part.detach().double().cpu() for part in raw], combined.detach().double().cpu()
    tolerance, best = TOLERANCE.get(combined.dtype, TOLERANCE[torch.bfloat16]), None
    for candidate in _candidates(parts, target, batched, scales, {"rescaled": rescale, "capped": cap}, family):
        residual = _unexplained(candidate.combined(parts), target)
        if residual <= tolerance:
            return Combination(**{**vars(candidate), "residual": residual})
        if len(raw) > 1 and (best is None or residual < best.residual):
            best = Combination(**{**vars(candidate), "residual": residual})
    fitted = _fitted(parts, target, batched)
    if fitted.residual <= tolerance:
        return fitted
    # A share that no rule explains: what is known to hold is which prediction is the prompt's own.
    refusal = (f"the pipeline's prediction is no known combination of its denoiser's calls (a share of {fitted.residual:.1e} is left over, "
               f"{tolerance:.0e} is allowed)")
    return Combination(**{**vars(fitted), "refusal": refusal})


def _candidates(raw: Sequence[Tensor], target: Tensor, batched: bool, scales: Sequence[float], strengths: dict[str, float],
                family: str) -> Iterator[Combination]:
    if len(raw) == 1:
        yield from (Combination((sign,), None, 0., sign=sign) for sign in (1., -1.))
    if len(raw) != 2:
        return
    known = max((name for name in FAMILIES if family.startswith(name)), key=len, default="")
    orders = ORDERS["batched" if batched else "separate"]
    # By sign and norm before the order: equal predictions, of equal prompts, then follow the order of such calls.
    others = [Rule(order, sign, norm) for norm in NORMS for sign in (1., -1.) for order in orders]
    tried = list(dict.fromkeys([*FAMILIES.get(known, ()), *others]))
    for named in (True, False):
        for rule in tried:
            strength = strengths.get(rule.norm, 1.)
            if not strength:
                continue
            own, other = raw[rule.conditional], raw[1 - rule.conditional]
            for scale in scales if named else _scale(rule, own, other, target):
                yield Combination(rule.weights(scale), rule.conditional, 0., "", rule.sign, rule.norm, strength)


def _scale(rule: Rule, own: Tensor, other: Tensor, target: Tensor) -> Iterator[float]:
    """The scale at which the rule comes nearest to the target: linear without a norm, and along one direction of each vector with it."""
    base, step, aim = (own if rule.order == "beyond" else other), own - other, rule.sign * target
    if rule.norm:
        dims = (-1,) if rule.norm == "last dimension" else tuple(range(1, target.ndim))
        unit = aim / torch.linalg.vector_norm(aim, dim=dims, keepdim=True).clamp_min(1e-30)
        # A norm leaves the direction alone: what lies across it has to vanish.
        base, step = (part - (part * unit).sum(dims, keepdim=True) * unit for part in (base, step))
        aim = torch.zeros_like(aim)
    size = float(step.square().sum())
    scale = float(((aim - base) * step).sum()) / size if size > 1e-12 * float(own.square().sum()) else 0.
    # Below that the other prediction would be the prompt's own.
    if scale > (0. if rule.order == "beyond" else .5):
        yield scale


def _fitted(raw: Sequence[Tensor], target: Tensor, batched: bool) -> Combination:
    """Least squares of the target on the raw predictions; the pseudo-inverse takes equal ones too."""
    columns, goal = torch.stack([part.flatten() for part in raw], 1), target.flatten()
    gram = columns.T @ columns
    weights = tuple((torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ (columns.T @ goal)).tolist())
    sign = 1. if sum(weights) >= 0 else -1.
    conditional = max(range(len(weights)), key=lambda i: sign * weights[i]) if len(weights) > 1 else None
    if len(weights) == 2 and abs(weights[0] - weights[1]) < 1e-6:
        conditional = 1 if batched else 0
    residual = _unexplained((columns * torch.tensor(weights, dtype=columns.dtype)).sum(1), goal)
    return Combination(weights, conditional, residual, sign=sign)


def _unexplained(found: Tensor, target: Tensor) -> float:
    residual = float((found - target).norm()) / (float(target.norm()) or 1.)
    return residual if residual == residual else float("inf")
