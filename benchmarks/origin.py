"""Whether a head could read origin through the embedded encoder: the pipeline's pictures against real paintings, then other generators'.

    python -m benchmarks.origin --data paintings/ --made cezanne/ --work work/

The pipeline paints the same wishes at its own settings and at others; people's pictures are guide-split paintings, as they are and through
the pipeline's autoencoder, so that neither the collection nor the decoder tells the classes apart. All go through the same resizing and
JPEG (`recipes.heads.pictures`). A head that learned from one setting, or from all, is asked about what it has not seen: another setting,
against paintings by unseen artists, and the generators of `--made`, against people's pictures of their own collection. An area under the
ROC curve of .5 is chance; below it the head takes people's pictures for a model's before the model's. Features are kept in `work/origin`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.audit import batches
from guide import pipelines
from guide.seeds import generators
from probes import encoders
from probes.atomic import replacing
from recipes import data, metadata, options, samples
from recipes.heads import PEOPLE
from recipes.heads.content import auc
from recipes.heads.pictures import alike, stored, trips, wishes

PAINTINGS = 800  # of each split; a quarter of them go through the autoencoder too
BATCH = 32
SETTINGS = {"scale 4, rescaled, 25 steps": (4.0, 0.7, 25), "scale 8, 10 steps": (8.0, 0.0, 10)}  # the first is the model's own
STRICT = 1e-3  # C of the logistic regression on standardised features, which are many more than the pictures
DRAWS = 300


@dataclass(frozen=True)
class Features:
    """Descriptions `(n, d)` by the embedded encoder, the embedding first, kept in `folder` by name."""

    folder: Path

    def __call__(self, name: str, images: Callable[[], Iterable[Image.Image]]) -> np.ndarray:
        encoder = encoders.load("embedded")
        path = self.folder / f"{encoder.fingerprint[:8]}-{name}.npy"
        if not path.exists():
            seen = (alike(image, encoder.side, np.random.default_rng(place)) for place, image in enumerate(images()))
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                found = [encoder.describe(samples.tensor(np.stack(part))).float() for part in batches(seen, BATCH)]
            with replacing(path) as partial, partial.open("wb") as file:
                np.save(file, torch.cat(found).numpy().astype(np.float16))
        return np.load(path).astype(np.float32)


@torch.no_grad()
def painted(count: int, scale: float, rescale: float, steps: int) -> Iterator[Image.Image]:
    """Unguided pictures of the embedded pipeline, over all its styles."""
    pipeline = pipelines.load("embedded")
    for some in batches(wishes(count), BATCH):
        images = pipeline([wish.prompt for wish in some], num_inference_steps=steps, guidance_scale=scale, guidance_rescale=rescale,
                          output_type="pil", generator=generators([wish.seed for wish in some])).images  # fmt: skip
        yield from images


def fitted(people: list[np.ndarray], models: list[np.ndarray]) -> Pipeline:
    """Logistic regression in which both classes weigh alike, and so do the piles of each."""
    both = people + models
    weights = np.concatenate([np.full(len(pile), 1 / len(pile) / len(people if place < len(people) else models))
                              for place, pile in enumerate(both)])  # fmt: skip
    labels = np.repeat([0, 1], [sum(map(len, people)), sum(map(len, models))])
    head = make_pipeline(StandardScaler(), LogisticRegression(C=STRICT, max_iter=500))
    return head.fit(np.concatenate(both), labels, logisticregression__sample_weight=weights * len(labels) / 2)


def area(models: np.ndarray, people: np.ndarray) -> str:
    """The area under the ROC curve, with a 95 % bootstrap interval over pictures."""
    rng = np.random.default_rng(0)

    def of(one: np.ndarray, other: np.ndarray) -> float:
        return auc(np.concatenate([one, other]), np.arange(len(one) + len(other)) < len(one))

    draws = [of(rng.choice(models, len(models)), rng.choice(people, len(people))) for _ in range(DRAWS)]
    return f"{of(models, people):.2f} [{np.percentile(draws, 2.5):.2f}, {np.percentile(draws, 97.5):.2f}]"


def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    made: Annotated[Path | None, typer.Option(help="Pictures by label (class folders or a table).", exists=True)] = None,
    people: Annotated[str, typer.Option(help="Labels of --made that are people's; the others are generators.")] = PEOPLE,
    count: Annotated[int, typer.Option(help="Pictures of each setting of the pipeline.", min=8)] = 64,
):
    """AUC of what a head has not seen, by what it learned from and what it reads, as Markdown."""
    features, (images, table) = Features(work / "origin"), data.paintings(folder, work)
    rng, vae, real = np.random.default_rng(0), pipelines.load("embedded").vae, {}
    for split in ("guide", "test"):
        rows = np.sort(rng.permutation(np.flatnonzero(table["split"] == split))[:PAINTINGS])
        real[split] = features(split, lambda rows=rows: stored(images, rows))
        real[f"{split} trips"] = features(f"{split}-trips", lambda rows=rows: trips(images, rows[::4], vae))
    ours = {name: features(f"{name}-{count}".replace(" ", "-"), lambda said=said: painted(count, *said)) for name, said in SETTINGS.items()}
    others: dict[str, np.ndarray] = {}
    if made:
        listed, own = metadata.read(made), set(people.split(","))
        for label, part in listed.groupby("style"):
            others[label] = features(f"made-{label}", lambda part=part: (Image.open(made / name) for name in part["file_name"]))
    same = [pile for label, pile in others.items() if label in own] if made else []
    strangers = {label: pile for label, pile in others.items() if label not in own} if made else {}
    columns = ["through the autoencoder, people's", *ours, *strangers]
    print(f"| reads | learned from | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    for what, reads in (("embedding", slice(encoders.load("embedded").dim)), ("layers too", slice(None))):
        for learned in [*([name] for name in ours), list(ours)]:
            head = fitted([real["guide"][:, reads], real["guide trips"][:, reads]], [ours[name][:, reads] for name in learned])

            def odds(pile: np.ndarray, head=head, reads=reads) -> np.ndarray:
                return head.decision_function(pile[:, reads])

            cells = [area(odds(real["test trips"]), odds(real["test"]))]
            cells += ["learned" if name in learned else area(odds(ours[name]), odds(real["test"])) for name in ours]
            cells += [area(odds(pile), np.concatenate([odds(one) for one in same])) for pile in strangers.values()] if same else []
            print(f"| {what} | {' and '.join(learned)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    options.start(main)
