"""Three guides at equal image change: the CLIP on decoded estimates, a classifier of noisy latents, a head on the denoiser's own features.

    python -m benchmarks.guides --data paintings/ --work work/ --seeds 0-2

The `referee`, which steers none of them, says how much each gains in log-odds of the wanted style over the same seeds unguided. Equal
change: each guide's strength is set so that its pictures are, in RMS over pixels, as far from the unguided ones as the CLIP's are at the
model's default strength. Prints a Markdown table; pictures, classifiers and figures stay in `work/guides`, and an interrupted run goes on.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from torch import Tensor

from benchmarks.noisy_classifiers import Classified, FeatureHead, LatentClassifier, fit, latents, noisy
from guide import pipelines, strategies
from guide.brief import Brief, parse_seeds
from guide.run import Settings, fingerprint, sample
from guide.statistics import mean_difference
from guide.strategies import Strategy
from probes import encoders, judge
from probes.atomic import replacing, write_text
from probes.config import styles
from probes.distance import ms_ssim
from probes.judges import STYLES
from probes.objective import Objective, Term
from probes.style import StyleProbe
from recipes import data, options
from recipes.metrics import balanced_accuracy

ROUNDS, CLOSE = 4, 0.04  # tries to reach the CLIP's image change, and how near is near enough


@dataclass
class Bench:
    """Pipeline, briefs and a folder: what a guide is run on."""

    pipeline: object
    settings: Settings
    jobs: list[tuple[Brief, tuple[int, ...]]]
    folder: Path
    encoder: encoders.Encoder

    def pictures(self, name: str, strategy: Callable[[int], Strategy], encoder: encoders.Encoder | None = None) -> Tensor:
        """Images `(n, 3, h, w)` of all jobs under `strategy(index of the style)`, by the bench's encoder or another; kept in the folder
        by name."""
        made = []
        for brief, seeds in track(self.jobs, description=name):
            style = brief.styles[0][0]
            asked = hashlib.sha256(f"{brief} {seeds} {self.settings}".encode()).hexdigest()[:16]
            store = self.folder / name / f"{style}-{asked}.npy"
            if not store.exists():
                objective = Objective([Term(StyleProbe(encoder or self.encoder).aim(brief))])
                images, _, _ = sample(self.pipeline, brief, seeds, strategy(STYLES.index(style)), objective, self.settings)
                with replacing(store) as partial, partial.open("wb") as file:
                    np.save(file, images.half().numpy())
            made.append(torch.from_numpy(np.load(store)).float())
        return torch.cat(made)

    def odds(self, referee: judge.Judge, images: Tensor) -> np.ndarray:
        """The referee's log-odds `(n,)` of the style that each picture was asked for."""
        wanted = [brief.styles for brief, seeds in self.jobs for _ in seeds]
        opinions = [referee(image[None]) for image in images]
        return np.array([float(referee.log_odds(said, asked)) for said, asked in zip(opinions, wanted, strict=True)])

    def prompts(self) -> list[str]:
        return [f"{brief.styles[0][0]}: {brief.prompt}" for brief, seeds in self.jobs for _ in seeds]


def briefs(keys: list[str], seeds: tuple[int, ...], name_style: bool) -> list[tuple[Brief, tuple[int, ...]]]:
    """For every style and seed k the style's subject k in turn."""
    told = styles()
    return [
        (Brief(told[key].prompts[seed % len(told[key].prompts)], ((key, 1.0),), name_style=name_style), (seed,))
        for key in keys
        for seed in seeds
    ]


def classifiers(folder: Path, paintings: Path, work: Path, pipeline, steps: int, most: int) -> tuple[dict[str, torch.nn.Module], dict]:
    """Both classifiers, trained on at most so many paintings of the guide split, and their balanced accuracy on unseen artists at three
    noise levels."""
    images, table = data.paintings(paintings, work)
    known = table["style"].isin(STYLES)
    rows, test = (np.flatnonzero((table["split"] == split) & known) for split in ("guide", "test"))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    label = torch.tensor([STYLES.index(style) if style in STYLES else -1 for style in table["style"]])
    pool = latents(pipeline.vae, images, rows, folder / f"latents-{len(rows)}.pt", 2)
    held = latents(pipeline.vae, images, test[::6], folder / "test-latents.pt", 1)[0].float()
    weights = torch.tensor(data.balance(table.iloc[rows], style=0.6, artist=0.35))
    alphas = pipeline.scheduler.alphas_cumprod
    torch.manual_seed(0)
    made = {
        "latents": LatentClassifier(pool.shape[2]),
        "denoiser features": FeatureHead(copy.deepcopy(pipeline.unet)),
    }
    accuracy = {}
    for name, model in made.items():
        fit(model, pool, label[rows], weights, alphas, folder / f"{name.replace(' ', '-')}-{len(rows)}", steps)
        accuracy[name] = {}
        for time in (100, 400, 700):
            times = torch.full((len(held),), time)
            x = noisy(held, times, alphas, torch.Generator().manual_seed(1))
            with torch.no_grad():
                guess = torch.cat([model(*pair).argmax(1) for pair in zip(x.split(128), times.split(128), strict=True)])
            accuracy[name][time] = balanced_accuracy(label[test[::6]].numpy(), guess.numpy())
    return made, accuracy


def apart(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the RMS difference of their pixels."""
    return float((a - b).square().mean((1, 2, 3)).sqrt().mean())


def matched(
    bench: Bench, name: str, strategy: Callable[[float], Callable], plain: Tensor, target: float, first: float,
    encoder: encoders.Encoder | None = None,
):  # fmt: skip
    """Pictures at the strength whose change is nearest to `target`, that strength, and the change."""
    strength, tried = first, {}
    for _ in range(ROUNDS):
        strength = float(f"{min(strength, 500):.3g}")
        images = bench.pictures(f"{name}-{strength:g}".replace(" ", "-"), strategy(strength), encoder)
        tried[strength] = apart(images, plain), images
        change = tried[strength][0]
        if abs(change / target - 1) < CLOSE or change == 0:
            break
        strength *= (target / change) ** 1.2  # change grows somewhat slower than strength
        if strength in tried:
            break
    strength = min(tried, key=lambda s: abs(tried[s][0] - target))
    return tried[strength][1], strength, tried[strength][0]


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    seeds: Annotated[str, typer.Option(help="Seeds of every style.")] = "0-2",
    keys: Annotated[str, typer.Option("--styles", help="Styles; default all that the embedded models know.")] = ",".join(STYLES),
    training: Annotated[int, typer.Option(help="Training steps of each classifier, of 128 latents.", min=1)] = 600,
    most: Annotated[int, typer.Option(help="Paintings that they are trained on.", min=128)] = 20_000,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: the model's.", min=1)] = None,
    strength: Annotated[float | None, typer.Option(help="Of the CLIP; default the model's. The others follow its image change.")] = None,
    name_style: Annotated[bool, typer.Option(help="Name the style in the prompt too.")] = True,
    also: Annotated[list[Path] | None, typer.Option(help="Another CLIP as a guide, by words; a folder in open_clip's format.")] = None,
):
    model, pipeline, encoder = pipelines.find("embedded"), pipelines.load("embedded"), encoders.load("embedded")
    settings = Settings.of(model, steps)
    # Pictures and classifiers of other weights lie elsewhere.
    place = work / "guides" / f"{fingerprint(pipeline)[:8]}-{encoder.fingerprint[:8]}"
    bench = Bench(pipeline, settings, briefs(keys.split(","), parse_seeds(seeds), name_style), place, encoder)
    trained, accuracy = classifiers(place, folder, work, pipeline, training, most)
    referee, alphas, default = judge.load("referee"), pipeline.scheduler.alphas_cumprod, strength or model.strength
    plain = bench.pictures("unguided", lambda target: strategies.load("unguided"))
    steered = bench.pictures(f"clip-{default:g}", lambda target: strategies.load("clean-image", strength=default))
    change = apart(steered, plain)
    found = {"CLIP, clean image": (steered, default, change)}
    for name, classifier in trained.items():

        def classified(strength: float, classifier=classifier):
            return lambda target: Classified(strength=strength, classifier=classifier, alphas=alphas, target=target)

        found[name] = matched(bench, f"{name}-{most}-paintings-{training}-steps", classified, plain, change, default)
    for path in also or ():
        other = encoders.load(str(path))

        def worded(strength: float):
            return lambda target: strategies.load("clean-image", strength=strength)

        found[f"CLIP in {path.name}, by words"] = matched(bench, f"clip-{other.fingerprint[:8]}", worded, plain, change, default, other)
    before, prompts = bench.odds(referee, plain), bench.prompts()
    gains = {name: bench.odds(referee, images) - before for name, (images, _, _) in found.items()}
    reference = gains["CLIP, clean image"]
    columns = ("guide", "strength", "RMS change", "MS-SSIM", "referee's gain in log-odds", "less than the CLIP's by")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    told = {"pictures": len(plain), "settings": vars(settings), "name_style": name_style}
    told |= {"training steps": training, "paintings": most, "accuracy": accuracy}
    for name, (images, used, moved) in found.items():
        gain, less = mean_difference(gains[name], prompts), mean_difference(reference - gains[name], prompts)
        alike = float(ms_ssim(images, plain).mean())
        lines.append(f"| {name} | {used:g} | {moved:.3f} | {alike:.2f} | {gain} | {'' if gains[name] is reference else less} |")
        told[name] = {"strength": used, "change": moved, "ms_ssim": alike, "gain": vars(gain), "less than the CLIP's by": vars(less)}
    write_text(work / "guides" / "results.json", json.dumps(told, indent=1))
    typer.echo("\n".join(lines))
    for name, by_time in accuracy.items():
        typer.echo(f"{name}: balanced accuracy on unseen artists " + ", ".join(f"{v:.2f} at t = {t}" for t, v in by_time.items()))


if __name__ == "__main__":
    options.start(main)
