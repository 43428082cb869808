"""What a reader of a comparison has to know: methods that were used, choice, samplers, budgets, what is missing, trust in readings."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan, nan

from guide.comparing.asked import Asked
from guide.comparing.budget import TOLERANCE, WORDS, parsed
from guide.comparing.choice import REFEREE
from guide.comparing.effects import ALL, Contrast, Effect
from guide.comparing.plan import Plan
from guide.comparing.significance import SIGNS
from guide.comparing.spending import Spent
from probes import distance

FEW_PROMPTS, FEWEST_FOR_RANKS = 20, 6


def remarks(
    found: Sequence[Effect], asked: Asked, summary: dict, choice: Sequence[dict], plans: Mapping[str, Plan], spent: Sequence[Spent]
) -> Iterator[str]:
    """Sentences; what was not used is not explained."""
    if asked.steered_by and asked.steered_by != asked.encoder:
        yield f"The pictures were steered by {asked.steered_by}; the guide's column is what {asked.encoder} reads, which did not steer."
    yield from _tests([e for e in found if e.contrasts], asked.judges[0])
    if choice:
        said = ", ".join(dict.fromkeys(row["arm"] for row in choice if row["chosen"]))
        own = "The referee, whose verdict this is, is therefore not impartial between strengths."
        if asked.judges[0] != REFEREE:
            own = f"The referee's own column is therefore not impartial between strengths; the {asked.judges[0]}'s is."
        yield f"Strengths chosen by the referee, on {_span(asked.choosing())}, of which nothing is reported: {said}. {own}"
    elif any(len(some) > 1 for one in plans.values() for some in one.contested().values()):
        yield "No strength was chosen on other seeds: each reports, and the best of several is too good by that choice."
    for setting, one in plans.items():
        if others := [f"{kind} ({words})" for kind, words in one.samplers.items() if kind]:
            yield (
                f"{setting}: the sampler is {one.samplers.get('', '')}; strategies that need another ({', '.join(others)}) are compared "
                "with the plain pipeline on that one."
            )
        if one.amount is not None:
            yield _budget(setting, one, asked, [each for each in spent if each.setting == setting and not each.beside])
            yield from (f"{setting}: {line}" for line in one.said)
    yield from _rivals([each for each in spent if each.beside], found, asked)
    if missing := distance.lpips_missing():
        yield f"LPIPS is left out: {missing}."
    yield (
        "Denoiser calls are images through the denoiser (conditional and unconditional count apart, replays again); what runs "
        "backward is in the seconds. Peak memory is the process's."
    )
    if any(not isnan(e.means.get("vendi", nan)) for e in found):
        yield "Diversity within a prompt is in the first judge's features; recall: of the plain pipeline's pictures."
    else:
        yield "No prompt has two seeds here, so that there is no diversity within a prompt; --prompts 2 gives every prompt all seeds."
    for name, sentence in summary.get("reliability", {}).items():
        yield f"Reliability of {name}: {sentence.removesuffix('.')}."


def _tests(some: Sequence[Effect], judge: str) -> Iterator[str]:
    """How intervals and p-values came about, as far as there are any."""
    own: list[Contrast] = [e.contrasts[f"{judge}_gain"] for e in some]
    methods = list(dict.fromkeys(one.difference.method for one in own if one.difference.method))
    if not methods:
        return
    yield f"Intervals (95 %) of paired differences: {'; '.join(methods)}."
    few = [one.difference.clusters for one in own if one.difference.method.startswith("bootstrap-t")]
    if few and min(few) < FEW_PROMPTS:
        yield (
            f"Bootstrap-t, since there are fewer than {FEW_PROMPTS} prompts: a percentile interval, which covers .73 with 4 prompts and "
            ".88 with 8 where .95 is claimed, would be too short."
        )
    if all(isnan(one.difference.p) for one in own):
        yield "Nothing is in bold: without an interval nothing is tested."
        return
    boot, classic = (any(method.startswith(start) for method in methods) for start in ("bootstrap-t", "Student's t"))
    how = "the mean of the bootstrap-t's and Student's t's" + ("; the latter's alone where there is no bootstrap-t" if classic else "")
    how = how if boot else "Student's t's"
    family = max(len(group) for group in _families(some).values())
    holm = " after Holm's correction over all arms of the table" if family > 1 else ""
    yield f"Bold: p < .05 ({how}){holm}, and an interval without 0."
    if any(one.difference.pairs == one.difference.clusters < SIGNS for one in own):
        yield f"Fewer than {SIGNS} prompts of one seed each put nothing in bold: their signs agree by chance too often."
    if any(not isnan(one.wilcoxon) for one in own):
        fewest = min(one.difference.clusters for one in own)
        never = f" With fewer than {FEWEST_FOR_RANKS} of them it cannot come below .05." if fewest < FEWEST_FOR_RANKS else ""
        by = "pairs, of which all share one prompt" if any("by pair" in method for method in methods) else "means of the prompts"
        yield f"Wilcoxon's test is on the {by}.{never}"


def _families(some: Sequence[Effect]) -> dict[tuple, list[Effect]]:
    found: dict[tuple, list[Effect]] = {}
    for e in some:
        found.setdefault((e.setting, e.named, e.style == ALL), []).append(e)
    return found


def _budget(setting: str, one: Plan, asked: Asked, spent: Sequence[Spent]) -> str:
    what = parsed(asked.budget)[0]
    unit = "seconds of computing" if what == "compute_seconds" else WORDS[what]
    known = [each for each in spent if not isnan(each.share)]
    if not known:
        return f"{setting}: the budget is {one.amount:.3g} {unit} a picture."
    shares = ", ".join(f"{each.arm} {each.share:.0%}" for each in known)
    off = [each.arm for each in known if each.off]
    told = f"not within a tenth of it: {', '.join(off)}" if off else f"all within {TOLERANCE:.0%}"
    how = ", measured beside the plain pipeline's at the same seeds" if what == "compute_seconds" else ""
    return f"{setting}: the budget is {one.amount:.3g} {unit} a picture; the arms spent of it{how}: {shares} ({told})."


def _rivals(spent: Sequence[Spent], found: Sequence[Effect], asked: Asked) -> Iterator[str]:
    off = [f"{each.arm} {each.share:.2f} times {each.beside}" for each in spent if each.off]
    if off:
        yield f"Best-of did not cost the same, to a tenth, as what it stands beside: {', '.join(off)}."
    if alone := [e.arm for e in found if e.style == ALL and e.source in ("guidance", "both") and e.contrasts and not e.rival]:
        more = "; leave out --best-of, and there is one" if asked.best_of else ""
        yield f"No best-of costs about as much as {', '.join(dict.fromkeys(alone))}{more}."


def _span(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}-{seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"
