"""What an audit came to, in sentences for a terminal and a page."""

from collections.abc import Iterator

from probes.auditing.likeness import NEAR
from probes.auditing.looks import LOOKS

MANY = 6  # styles that a sentence lists
UNASKED = ("style", "period", "artifacts", "origin")  # whose reliability is said whatever was asked
SHARE = "the share of the guide's gain that the verdict sees too"
NO_PAINTINGS = "no paintings like those that the probe is known on, or damaged beyond recognition"
NO_HEAD = "Artifacts were not read and there are no maps: no head for damage ships for this encoder."


def sentences(found: dict) -> Iterator[str]:
    """Of a summary, the most important first; the reliability of what was asked for last."""
    if found["read"] < found["images"]:
        lost = found["images"] - found["read"]
        were, say = ("was", "its row says") if lost == 1 else ("were", "their rows say")
        yield f"{lost} of {found['images']} images {were} not read; {say} why."
    if found["left_out"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in list(found["left_out"].items())[:MANY])
        yield f"Left out, being hidden or no pictures: {kinds}{' and others' if len(found['left_out']) > MANY else ''}."
    yield from _misunderstood(found["noted"])
    yield from _outside(found)
    if found["styles"] and found["without_style"]:
        yield f"Of {found['read']} images that were read {found['without_style']} have no intended style, and are not among those below."
    for target, style in found["styles"].items():
        if style["kept_rate"] is not None:
            recall = style["verdict_recall_on_real_paintings"]
            limited = " (in colour, unlike most of these)" if _grey(found) else " (unlike these)" if found["domain"]["foreign"] else ""
            beside = f"it recognises {recall:.0%} of real ones{limited}" if recall is not None else "its recall on real ones is not known"
            shares = [f"{name or 'others'} {_share(said)}" for name, said in style["variants"].items() if said["judged"]]
            yield f"{target}: the verdict sees it in {'; '.join(shares) if len(shares) > 1 else _share(style)}; {beside}."
        elif found["judge"]:
            yield f"{target}: the verdict does not know this style."
    if found["mean_year_error"] is not None:
        trust = found["reliability"].get("period", "not validated").rstrip(".")
        yield f"Period: off by {found['mean_year_error']:.0f} years on average, as read by a probe of this reliability: {trust}."
    varied = [f"{target} {style['diversity']:.2f}" for target, style in found["styles"].items() if style["diversity"] is not None]
    if varied:
        many = ", ".join(varied[:MANY]) + (f" and {len(varied) - MANY} more styles" if len(varied) > MANY else "")
        yield f"Diversity, the mean of 1 - cosine between pictures of a style in {_eyes(found)}: {many}."
    yield from _damage(found)
    if found["duplicates"]:
        many = f"{found['duplicates']} images repeat" if found["duplicates"] > 1 else "1 image repeats"
        yield f"{many} another one, or nearly (at most {NEAR} of 256 bits of a hash of structure apart); the rows say which."
    if found["out_of_domain"]:
        lie = "lies" if found["out_of_domain"] == 1 else "lie"
        yield f"{found['out_of_domain']} of {found['read']} {lie} farther from the paintings behind the readings than 99 % of real ones do."
    yield from _reference(found["reference"])
    yield from _baseline(found["baseline"], found["baseline_images"])
    for pair, won in (found["preference"] or {}).items():
        yield f"Preferred within its prompt, {pair}: {won['rate']:.0%} of {won['prompts']} prompts."
    for name, said in found["ratings"].items():
        yield from _rated(name, said)
    if found["encoder"]["steered"]:
        yield "Style, year and content are read by the encoder that steered: the verdict's columns are the independent ones."
    if found["read"]:
        said = {name: found["unasked_reliability"][name] for name in UNASKED if name in found["unasked_reliability"]}
        judge = (found["judge"] or {}).get("reliability") or {}
        said |= found["reliability"] | {name: judge[name] for name in ("verdict",) if name in judge}
        yield from (f"Reliability of {name}: {sentence.rstrip('.')}." for name, sentence in said.items())


def _grey(found: dict) -> bool:
    return found["domain"]["colourless"] > found["read"] / 2


def _outside(found: dict) -> Iterator[str]:
    """That most of a set is not what the probes know, before any reading of it."""
    grey, foreign = found["domain"]["colourless"], found["domain"]["foreign"]
    if _grey(found):
        yield f"{grey} of {found['read']} have no colour: the readings of style, the verdict's too, do not hold for them."
    if foreign:
        yield (f"{foreign['share']:.0%} of {foreign['pictures']} pictures lie beyond 95 % of real paintings: the reliability of the "
               "readings, which was measured on paintings, does not hold for this set.")  # fmt: skip


def _share(said: dict) -> str:
    """`4 of 8 (50%, 95 % interval 22% to 78% over 2 prompts)`."""
    low, high = said["kept_interval"]
    between = f", 95 % interval {low:.0%} to {high:.0%}" if low is not None else ""
    return f"{said['kept']} of {said['judged']} ({said['kept_rate']:.0%}{between}{_over(said) if between else ''}{_copies(said)})"


def _over(said: dict) -> str:
    return f" over {said['prompts']} prompts" if said["prompts"] else ""


def _copies(said: dict) -> str:
    return f"; {said['copies']} exact cop{'y' if said['copies'] == 1 else 'ies'} not counted again" if said["copies"] else ""


def _misunderstood(noted: dict[str, int]) -> Iterator[str]:
    """What a table asked for that could not be understood, the most frequent first."""
    odd = sorted(((count, note) for note, count in noted.items() if note.startswith("the intended ")), key=lambda one: -one[0])
    for count, note in odd[:MANY]:
        stop, lost = "" if note.endswith("?") else ".", "none" if " style " in note else "no years"
        yield f"Of {count} image{'s' if count > 1 else ''} {note}{stop} Read as if {lost} had been meant."
    if rest := odd[MANY:]:
        yield f"{len(rest)} more such intentions, of {sum(count for count, _ in rest)} images, made no sense; the notes say which."


def _eyes(found: dict) -> str:
    return f"the features of {found['judge']['name']}" if found["judge"] else "the encoder's embeddings"


def _damage(found: dict) -> Iterator[str]:
    seen = found["artifacts"]
    if not found["artifacts_head"]:
        yield NO_HEAD
    elif seen and seen["foreign"]:
        share, alarms = seen["foreign"]["share"], seen["doubtful"]
        yield (f"Damage is not counted: {share:.0%} of these pictures lie beyond 95 % of real paintings, so that they are {NO_PAINTINGS}. "
               f"The artifact probe sets off at {alarms} of {found['read']}, as it does at undamaged photographs in colour.")  # fmt: skip
    elif seen and found["read"]:
        low, high = seen["interval"]
        over = f", 95 % interval {low:.0%} to {high:.0%}{_over(seen)}" if low is not None else ""
        over += f"; mean over prompts {seen['mean_over_prompts']:.0%}" if seen["mean_over_prompts"] is not None else ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in seen["kinds"].items())
        listed = f": {kinds}" if kinds else ""
        damaged = "is" if seen["damaged"] == 1 else "are"
        if seen["read"]:
            beside = f"; of undamaged paintings of these styles {seen['expected']:.0%} look so too" if seen["expected"] is not None else ""
            share = f"{seen['rate']:.0%}{over}{_copies(seen)}"
            yield f"Artifacts: {seen['damaged']} of {seen['read']} images {damaged} damaged ({share}){listed}{beside}."
            yield from _uncounted(seen, found["read"])
        if seen["doubtful"]:
            one = seen["doubtful"] == 1
            many = f"{'1 image sets' if one else str(seen['doubtful']) + ' images set'} off the artifact probe"
            yield f"{many} and {'is' if one else 'are'} not counted as damaged: of palette colours, {NO_PAINTINGS}."


def _uncounted(seen: dict, read: int) -> Iterator[str]:
    """How the pictures of the rate and those that were read add up."""
    why = {"unlike": "too unlike paintings", "copies": "exact copies of others", "unseen": "not read for artifacts"}
    if parts := [f"{seen[name]} {said}" for name, said in why.items() if seen[name]]:
        yield f"Of the {read} images that were read {read - seen['read']} are left out of that rate: {', '.join(parts)}."


def _reference(found: dict | None) -> Iterator[str]:
    if not found:
        return
    distance = found["kid"]
    if distance:
        eyes = f"in the features of {found['features']} scaled to mean square 1, cubic kernel"
        floor = f"; two halves of the reference differ by {_kid(found['floor'])}" if found["floor"] else ""
        yield (f"KID to the {found['read']} reference images, {eyes}: {_kid(distance)}{floor}. "
               "Not Inception's features, so not comparable with published KID.")  # fmt: skip
    if found["copies"]:
        many = f"{found['copies']} images repeat" if found["copies"] > 1 else "1 image repeats"
        yield f"{many} a reference image, or nearly; the rows say which."


def _kid(distance: dict) -> str:
    """`0.012 +- 0.003 (10 x 40 pictures)`: the mean over subsets, their deviation, how many and how large."""
    spread = f" +- {distance['deviation']:.3f}" if distance["deviation"] is not None else ""
    of = f"{distance['subsets']} x {distance['size']} pictures" if distance["subsets"] > 1 else f"{distance['size']} pictures"
    return f"{distance['kid']:.3f}{spread} ({of})"


def _baseline(pairs: dict | None, given: int) -> Iterator[str]:
    if not pairs:
        if given:
            yield (f"None of the {given} pictures of the baseline has the seed and prompt, or the name, of one that was read: "
                   "nothing was compared.")  # fmt: skip
        return
    if given and pairs["unpaired"]:
        yield f"{pairs['unpaired']} of {pairs['pairs'] + pairs['unpaired']} images have no counterpart in the baseline; their notes say so."
    other = "baseline" if given else "unguided"
    for name, said in pairs["kept"].items():
        change = f"{said['change'] * 100:+.0f} points{_points(said['interval'])}{_over(said)}{_copies(said)}"
        yield (f"Style kept, by pairs: {name or 'pictures'} {said['kept']} of {said['pairs']}, {other} {said['baseline_kept']} of "
               f"{said['pairs']}; {said['gained']} gained it, {said['lost']} lost it: {change}.")  # fmt: skip
    drift = ", ".join(f"{name.replace('_', ' ')} {pairs[f'mean_{name}_drift']:+.3f}" for name in LOOKS
                      if pairs[f"mean_{name}_drift"] is not None)  # fmt: skip
    yield f"Against the {pairs['pairs']} counterparts: {drift}."
    if pairs["gains"]:
        gains = ", ".join(f"{name} {pairs[f'mean_{name}_gain']:+.2f}{_interval(pairs[f'{name}_gain_interval'], '+.2f')}"
                          for name in ("guide", "verdict"))  # fmt: skip
        transfer = pairs["transfer"]
        ratio = (f"transfer {transfer['value']:.2f}{_interval(transfer['interval'], '.2f')}, {SHARE}" if transfer["value"] is not None
                 else f"transfer not defined, for {transfer['why']}")  # fmt: skip
        yield f"Mean gain in log-odds over {pairs['gains']} pairs: {gains}; {ratio}."
    if pairs["flags"]:
        yield "Signs of reward hacking: " + ", ".join(f"{count} with {said}" for said, count in pairs["flags"].items()) + "."


def _interval(ends: list[float | None], form: str) -> str:
    return f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends[0] is not None else ""


def _points(ends: list[float | None]) -> str:
    return f", 95 % interval {ends[0] * 100:+.0f} to {ends[1] * 100:+.0f}" if ends[0] is not None else ""


def _rated(name: str, said: dict) -> Iterator[str]:
    for reading, ranks in said.get("readings", {}).items():
        within = ranks["within_prompt"]
        inside = f"; within {within['prompts']} prompts {within['spearman']:+.2f} and {within['kendall']:+.2f}" if within else ""
        figures = f"Spearman {ranks['spearman']:+.2f}, Kendall {ranks['kendall']:+.2f} ({ranks['pictures']} images){inside}"
        yield f"{name} and {_plain(reading)}: {figures}."
    if missing := said.get("no_style"):
        yield f"{name}: {missing} of {said['rated']} words name no style, and are compared with nothing; numbers, or yes and no, would be."
    for reading, value in said.get("kappa", {}).items():
        if value is not None:
            yield f"{name} and {_plain(reading)}: Cohen's kappa {value:+.2f} ({said['rated'] - said['no_style']} images)."
    for reading, value in said.get("calibration", {}).items():
        yield f"{name} and {_plain(reading)}: calibration error {value['ece']:.3f}, Brier score {value['brier']:.3f}."


def _plain(reading: str) -> str:
    return reading.replace("_", " ")
