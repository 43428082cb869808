"""`guide doctor`: versions, the embedded weights, known answers, and what this machine can run.

`python -m guide.doctor` writes the known answers.
"""
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import probes
from probes.errors import UserError

EMBEDDED = {"probes": Path(probes.__file__).parent / "embedded", "guide": Path(__file__).parent / "embedded"}
ANSWERS = EMBEDDED["probes"] / "known_answers.json"
PROMPTS = ("a baroque painting of lemons and a jug, 17th century", "ukiyo-e", "portrait of a young woman, painted in 1890")
TOLERANCES = {"embedding": 5e-3, "probability": .02, "year": 3., "picture": .02}


@dataclass(frozen=True)
class Check:
    """`ok` None: nothing to pass or fail, only told."""
    name: str
    found: str
    ok: bool | None = None


def examine() -> Iterator[Check]:
    """Every check, one after another; none raises for a broken installation."""
    yield from _versions()
    known = json.loads(ANSWERS.read_text(encoding="utf-8")) if ANSWERS.is_file() else None
    if known is None:
        yield Check("known answers", f"{ANSWERS.name} is not there, so that nothing can be compared")
    else:
        yield from _files(known["sha256"])
        yield from _heads()
        yield from _answers(known)
    yield from _machine()


def _versions() -> Iterator[Check]:
    from guide.record import versions
    yield Check("versions", ", ".join(f"{name} {number}" for name, number in versions().items()), True)


def _files(known: dict[str, str]) -> Iterator[Check]:
    """The embedded files are those that were shipped."""
    found = hashes()
    missing = sorted(known.keys() - found.keys())
    changed = sorted(name for name in known.keys() & found.keys() if known[name] != found[name])
    for what, names in (("are missing", missing), ("differ from what was shipped", changed)):
        if names:
            yield Check("embedded weights", f"{', '.join(names)} {what}", False)
    if not missing and not changed:
        yield Check("embedded weights", f"{len(known)} files as when the known answers were written", True)


def _heads() -> Iterator[Check]:
    """Every head was fitted to the encoder that is here, also those that the known answers do not read."""
    from probes import encoders
    from probes.heads import card
    try:
        strange = card.unfit(encoders.load("embedded").fingerprint)
    except (UserError, OSError, RuntimeError, ValueError, ImportError) as error:
        yield Check("heads", f"cannot be read: {error}", False)
        return
    if strange:
        yield Check("heads", f"fitted to other weights than the embedded encoder's: {', '.join(strange)}; {card.REMEDY}", False)
    else:
        yield Check("heads", "fitted to the encoder that is here", True)


def _answers(known: dict) -> Iterator[Check]:
    """Encoder, heads, verdict and pipeline give what they gave when they were shipped."""
    try:
        found = answers()
    except (UserError, OSError, RuntimeError, ValueError, ImportError) as error:
        yield Check("known answers", f"cannot be computed: {error}", False)
        return
    same = found["tokens"] == known["tokens"]
    yield Check("tokens", "as known" if same else "differ from the known ones", same)
    for name, tolerance in known["tolerances"].items():
        off = max((abs(a - b) for a, b in zip(found[name], known[name], strict=False)), default=float("nan"))
        good = off <= tolerance and len(found[name]) == len(known[name])
        yield Check(name, f"{off:.2g} from the known answer, {tolerance:g} allowed", good)


def _machine() -> Iterator[Check]:
    """Memory and accelerators, and which of configs/models fit."""
    import psutil
    import torch

    from guide.pipelines import models
    memory = psutil.virtual_memory().total / 2**30
    yield Check("processor", f"{psutil.cpu_count(logical=False) or psutil.cpu_count()} cores, {memory:.0f} GB of memory")
    graphics = {f"cuda:{k}": torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())}
    for name, card in graphics.items():
        yield Check(name, f"{card.name}, {card.total_memory / 2**30:.0f} GB")
    if not graphics:
        yield Check("accelerator", "mps" if torch.backends.mps.is_available() else "none, so that the processor does the work")
    largest = max((card.total_memory / 2**30 for card in graphics.values()), default=0.)
    for key, model in models().items():
        embedded = model.source == "embedded"
        yield Check(f"model {key}", "runs on this processor" if embedded else fits(model.gpu_memory, memory, largest))


def fits(needed: float, memory: float, graphics: float) -> str:
    """Whether a model from a hub that needs `needed` GB of graphics memory (0: not measured) runs here; all in GB."""
    if not needed:
        here = f"the largest here has {graphics:.0f} GB" if graphics else "there is none here, and a processor takes minutes or hours"
        return f"made for a graphics card; how much memory it needs was not measured, {here}"
    if graphics >= needed:
        return f"runs on this graphics card (needs {needed:g} GB)"
    if memory >= 2 * needed:
        return f"needs a graphics card with {needed:g} GB; fits this machine's memory, at minutes to hours a picture"
    return f"needs a graphics card with {needed:g} GB, which is not here"


def hashes() -> dict[str, str]:
    """SHA-256 of every embedded weight and configuration, by its path from the repository root."""
    return {f"{package}/embedded/{path.relative_to(folder).as_posix()}": sha256(path.read_bytes()).hexdigest()
            for package, folder in EMBEDDED.items() for path in sorted(folder.rglob("*"))
            if path.suffix in (".safetensors", ".json") and path != ANSWERS}


def answers() -> dict:
    """What the embedded models say of fixed prompts, of a computed image, and two steps of the pipeline from seed 0."""
    import torch

    from guide import pipelines
    from guide.seeds import generators
    from probes import encoders, judge
    from probes.period import PeriodProbe
    from probes.style import StyleProbe
    encoder, verdict = encoders.load("embedded"), judge.load("verdict")
    y, x = torch.meshgrid(torch.linspace(0, 1, 128), torch.linspace(0, 1, 128), indexing="ij")
    image = torch.stack([.5 + .4 * torch.sin(9 * x + 3 * y), .4 + .3 * torch.cos(7 * y), .3 + .2 * torch.sin(20 * x * y)])[None]
    with torch.no_grad():
        embedding, seen, opinion = encoder(image), encoder.describe(image), verdict(image)
        style, year = StyleProbe(encoder).read(seen)["style_probabilities"], PeriodProbe(encoder).read(seen)["year"]
        pipeline = pipelines.load("embedded", "cpu")
        pipeline.set_progress_bar_config(disable=True)
        picture = pipeline(prompt=PROMPTS[0], num_inference_steps=2, generator=generators([0]), output_type="pt").images[0].float()
    return {"tokens": {prompt: [int(k) for k in encoder.tokenizer([prompt])[0] if k] for prompt in PROMPTS},
            "embedding": _rounded(embedding[0, :16]), "probability": _rounded(torch.cat([style[0], opinion.styles[0]])),
            "year": _rounded(torch.cat([year, opinion.years])), "picture": _rounded(torch.cat([picture.mean((1, 2)), picture.std((1, 2))]))}


def write(path: Path = ANSWERS) -> None:
    """Write the answers of the present weights as the known ones, for whoever ships new weights. UserError where a head does not fit."""
    from probes.atomic import write_text
    for check in _heads():
        if not check.ok:
            raise UserError(f"{check.name}: {check.found}.")
    write_text(path, json.dumps({**answers(), "tolerances": TOLERANCES, "sha256": hashes()}, indent=1) + "\n")


def _rounded(values) -> list[float]:
    return [round(float(value), 5) for value in values]


if __name__ == "__main__":
    from guide import pipelines
    pipelines.hush()
    try:
        write()
    except UserError as error:
        print(f"{ANSWERS} stays as it is: {error}", file=sys.stderr)
        raise SystemExit(2) from None
