"""Which strategy to use when, in sentences that say no more than the figures do."""

from collections.abc import Iterator, Sequence

from guide.comparing.asked import Asked
from guide.comparing.choice import default_of
from guide.comparing.effects import ALL, Effect, said


def conclusions(effects: Sequence[Effect], choice: Sequence[dict], asked: Asked) -> Iterator[str]:
    """For each setting and wording: who gains in the verdict's eyes, who beats best-of at equal seconds; then what words alone bring."""
    first = asked.judges[0]
    overall = [e for e in effects if (e.style == ALL or len({x.style for x in effects}) == 1)]
    several = len({e.setting for e in overall}) > 1
    for setting, named in dict.fromkeys((e.setting, e.named) for e in overall):
        some = [e for e in overall if (e.setting, e.named) == (setting, named) and e.contrasts and e.chosen]
        where = f"{setting}: " if several else ""
        words = "Where the prompt names the style" if named else "By guidance alone, where the prompt does not name the style"
        yield from (f"{where}{sentence}" for sentence in _ranked(words, some, first))
    yield from _sources(overall, first, several)
    if (default := default_of(choice)) is not None:
        gain = f"{default['gain']:+.2f} [{said(default['low'], '{:+.2f}')}, {said(default['high'], '{:+.2f}')}]"
        yield f"The referee's choice for the default, on seeds of its own: {default['arm']} ({gain} log-odds in the referee's eyes)."


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
        more = f"; to tell it apart would take {take}" if take and take.prompts is not None else ""
        if top.contrasts[name].difference.excludes_zero:
            more = f", which is not significant after the correction (p = {top.contrasts[name].adjusted:.3f})"
        yield f"{words}, no strategy has a gain that the {judge} sees; the largest is {top.arm}'s, {top.contrasts[name].difference}{more}."
    if worse:
        yield f"{words}, these lose in its eyes: {', '.join(f'{e.arm} ({e.contrasts[name].difference})' for e in worse)}."
    beats = [e for e in able if e.against_best and e.against_best.significant and e.against_best.difference.mean > 0]
    loses = [e for e in able if e.against_best and e.against_best.significant and e.against_best.difference.mean < 0]
    tried = [e for e in able if e.against_best and e.strategy not in ("cfg", "apg", "interval")]
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
    """The share kept by the prompt's words alone beside that by guidance alone."""
    for setting in dict.fromkeys(e.setting for e in overall):
        plain = {e.named: e for e in overall if e.setting == setting and e.arm == "unguided"}
        if len(plain) < 2:
            continue
        kept = f"{judge}_kept"
        guided = [e for e in overall if e.setting == setting and e.source in ("guidance", "both") and e.chosen]
        # The referee picks which arm is shown, so that the judge who is quoted has not.
        found = {source: max((e for e in guided if e.source == source), key=_referee, default=None) for source in ("guidance", "both")}
        parts = [
            f"neither {said(plain[False].means[kept], '{:.0%}')}",
            f"the prompt's words alone {said(plain[True].means[kept], '{:.0%}')}",
        ]
        parts += [f"guidance alone {said(e.means[kept], '{:.0%}')} ({e.arm})" for e in [found["guidance"]] if e]
        parts += [f"both {said(e.means[kept], '{:.0%}')} ({e.arm})" for e in [found["both"]] if e]
        yield f"{setting + ': ' if several else ''}Style kept in the {judge}'s eyes: {', '.join(parts)}."


def _referee(effect: Effect) -> float:
    gain = effect.contrasts.get("referee_gain")
    return gain.difference.mean if gain and gain.difference.pairs else float("-inf")
