"""Which strategy to use when, in sentences that say no more than the figures do."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan, nan
from types import MappingProxyType

from guide import pipelines
from guide.comparing.asked import Arm, Asked
from guide.comparing.choice import default_of
from guide.comparing.effects import ALL, PROMPT_ALONE, Contrast, Effect, said
from guide.run import Request

Duels = Mapping[tuple[str, bool], Mapping[tuple[str, str], Contrast]]


def conclusions(effects: Sequence[Effect], choice: Sequence[dict], asked: Asked, duels: Duels = MappingProxyType({})) -> Iterator[str]:
    """For each setting and wording: what to use; who gains in the verdict's eyes, who beats best-of at equal seconds; then what words alone
    bring. `duels`: every two arms by setting and wording."""
    first = asked.judges[0]
    overall = [e for e in effects if (e.style == ALL or len({x.style for x in effects}) == 1)]
    several = len({e.setting for e in overall}) > 1
    for setting, named in dict.fromkeys((e.setting, e.named) for e in overall):
        some = [e for e in overall if (e.setting, e.named) == (setting, named) and e.contrasts and e.chosen]
        where = f"{setting}: " if several else ""
        words = "Where the prompt names the style" if named else "By guidance alone, where the prompt does not name the style"
        plain = next((e for e in overall if (e.setting, e.named, e.arm) == (setting, named, "unguided")), None)
        yield where + _advice(words, some, plain, first, duels.get((setting, named), {}))
        yield from (f"{where}{sentence}" for sentence in _ranked(words, some, first))
    yield from _sources(overall, first, several)
    for setting in dict.fromkeys(row["setting"] for row in choice):
        if (default := default_of([row for row in choice if row["setting"] == setting])) is not None:
            yield f"{setting + ': ' if several else ''}{_default(default)}"
        else:
            yield f"{setting + ': ' if several else ''}On seeds of its own the referee sees no gain by any of these, and chooses none."


def _default(row: dict) -> str:
    """What the referee would have `guide generate` do, and whether that is what it does."""
    gain = f"{row['gain']:+.2f}" + ("" if isnan(row["low"]) else f" [{row['low']:+.2f}, {row['high']:+.2f}]")
    model = row["setting"].split(", ")[0]
    own = Arm(Request.strategy, pipelines.find(model).strength).label
    does = "which is what it does" if row["arm"] == own else f"which does {own} as it stands"
    return (
        f"The referee, on seeds of its own, would have `guide generate` do {row['arm']} ({gain} log-odds in its eyes), {does}; all other "
        "sentences and figures are of the seeds that report."
    )


def _advice(words: str, some: Sequence[Effect], plain: Effect | None, judge: str, duels: Mapping[tuple[str, str], Contrast]) -> str:
    """What to use: of the arms that gain, the one that gains most, and those that cost less and cannot be told apart from it."""
    name = f"{judge}_gain"

    def cost(e: Effect) -> float:
        clock = "seconds" if isnan(e.means.get("compute_seconds", nan)) else "compute_seconds"
        return e.means[clock] / plain.means[clock] if plain is not None else nan

    def told(e: Effect) -> str:
        times = "" if isnan(cost(e)) else f" at {cost(e):.1f} times the cost of a plain picture"
        return f"{e.arm}{times} ({e.contrasts[name].difference.mean:+.2f})"

    def apart(a: str, b: str) -> bool:
        one = duels.get((a, b)) or duels.get((b, a))
        return one is not None and one.significant

    able = [e for e in some if e.contrasts[name].significant and e.contrasts[name].difference.mean > 0]
    if not able:
        return f"{words}: use the plain pipeline; nothing here is shown to be worth its cost."
    top = max(able, key=lambda e: e.contrasts[name].difference.mean)
    less = sorted((e for e in able if cost(e) < 0.95 * cost(top) and not apart(e.arm, top.arm)), key=cost)
    more = f"; for less, and not told apart from it, {'; '.join(told(e) for e in less)}" if less else ""
    return f"{words}: use {told(top)}{more}."


def _ranked(words: str, some: Sequence[Effect], judge: str) -> Iterator[str]:
    name = f"{judge}_gain"
    able = sorted((e for e in some if e.contrasts[name].difference.pairs), key=lambda e: -e.contrasts[name].difference.mean)
    if not able:
        yield f"{words}: the {judge} knows none of the styles."
        return
    better = [e for e in able if e.contrasts[name].significant and e.contrasts[name].difference.mean > 0]
    worse = [e for e in able if e.contrasts[name].significant and e.contrasts[name].difference.mean < 0]
    if better:
        listed = ", ".join(f"{e.arm} ({e.contrasts[name].difference})" for e in better)
        yield f"{words}, the {judge} sees a gain in log-odds by {listed}."
    else:
        top = able[0]
        take = top.contrasts[name].needed
        more = f"; to tell it apart would take {take.long()}" if take and take.some else ""
        if top.contrasts[name].difference.excludes_zero:
            more = f", which is not significant after the correction (p = {top.contrasts[name].adjusted:.3f})"
        yield f"{words}, no strategy has a gain that the {judge} sees; the largest is {top.arm}'s, {top.contrasts[name].difference}{more}."
    if worse:
        yield f"{words}, these lose in its eyes: {', '.join(f'{e.arm} ({e.contrasts[name].difference})' for e in worse)}."
    beats = [e for e in able if e.against_best and e.against_best.significant and e.against_best.difference.mean > 0]
    loses = [e for e in able if e.against_best and e.against_best.significant and e.against_best.difference.mean < 0]
    tried = [e for e in able if e.against_best and e.strategy not in PROMPT_ALONE]
    if beats:
        yield f"{words}, better than best-of at the same cost: {', '.join(f'{e.arm} ({e.against_best.difference})' for e in beats)}."
    elif tried:
        yield f"{words}, no strategy is shown to be better than best-of at the same cost."
    if loses:
        yield f"{words}, worse than best-of at the same cost: {', '.join(f'{e.arm} ({e.against_best.difference})' for e in loses)}."
    if hacked := [e for e in able if _hacked(e, judge)]:
        yield f"{words}, the guide sees a gain that the {judge} does not in: {', '.join(e.arm for e in hacked)}."


def _hacked(effect: Effect, judge: str) -> bool:
    guide, own = effect.contrasts["guide_gain"], effect.contrasts[f"{judge}_gain"]
    return guide.significant and guide.difference.mean > 0 and not (own.difference.low > 0)


def _sources(overall: Sequence[Effect], judge: str, several: bool) -> Iterator[str]:
    """The share kept by the prompt's words alone beside that by guidance alone and by selection alone, each by one arm throughout."""
    kept = f"{judge}_kept"
    for setting in dict.fromkeys(e.setting for e in overall):
        mine = [e for e in overall if e.setting == setting]
        plain = {e.named: e for e in mine if e.arm == "unguided"}
        if len(plain) < 2 or isnan(plain[True].means.get(kept, nan)):
            continue
        parts = [f"neither {_share(plain[False], kept)}", f"the prompt's words alone {_share(plain[True], kept)}"]
        for word, alone, together in (("guidance", "guidance", "both"), ("selection", "selection", "prompt and selection")):
            arms = {e.arm: e for e in mine if e.source == alone and e.chosen}
            both = {e.arm: e for e in mine if e.source == together and e.arm in arms}
            if both:
                # The referee picks the arm that is shown, so that the judge who is quoted has not.
                arm = max(both, key=lambda arm: _referee(arms[arm]) + _referee(both[arm]))
                parts.append(f"{word} alone {_share(arms[arm], kept)} and with the prompt's words {_share(both[arm], kept)} ({arm})")
        yield f"{setting + ': ' if several else ''}Style kept in the {judge}'s eyes: {', '.join(parts)}."


def _share(effect: Effect, name: str) -> str:
    return said(effect.means.get(name), "{:.0%}")


def _referee(effect: Effect) -> float:
    """Its gain in the referee's eyes, or in the guide's where the referee is not asked or does not know the style."""
    found = (effect.contrasts.get(name) for name in ("referee_gain", "guide_gain"))
    return next((one.difference.mean for one in found if one and one.difference.pairs), float("-inf"))
