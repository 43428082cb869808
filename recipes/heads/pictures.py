"""Pictures by people and by models, made alike in everything that a file tells: square, about 100 pixels, once more through JPEG."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from probes.config import styles
from probes.judges import STYLES
from recipes import data, metadata, samples
from recipes.heads.features import BATCH, Paintings, embed, kept
from recipes.round_trips import autoencoded

EDGES, QUALITIES = (88, 128), (60, 95)
FIT, TEST, TRIPS = 2000, 1600, 400  # paintings to fit to and to measure on, and how many of each go through the autoencoder
FIRST_SEED = 50_000  # apart from the seeds of figures and of people


@dataclass(frozen=True, eq=False)
class Pile:
    """Embeddings `(n, d)` of pictures of one kind; `model` says who made them, `rows` which paintings of the table they are, if any."""

    features: np.ndarray
    model: bool
    rows: np.ndarray | None = None


def alike(image: Image.Image, side: int, rng: np.random.Generator) -> np.ndarray:
    """The middle square, resized to a random edge, through JPEG of random quality, to `side` pixels: uint8 `(side, side, 3)`.

    Real paintings and generated pictures come from other collections, in other sizes and codecs; a head would read those instead.
    """
    image = ImageOps.exif_transpose(image).convert("RGB")
    short, edge = min(image.size), int(rng.integers(EDGES[0], EDGES[1] + 1))
    left, top = (image.width - short) // 2, (image.height - short) // 2
    small = image.resize((edge, edge), Image.Resampling.BILINEAR, (left, top, left + short, top + short))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)), subsampling=int(rng.choice((0, 2))))
    return np.asarray(Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def piles(paintings: Paintings, made: Path | None, people: Iterable[str], count: int) -> dict[str, Pile]:
    """Every kind of picture by name: `paintings` and `round trips` to fit to, the same of unseen artists, `embedded`, the labels of `made`.

    `made` is a folder of pictures as `recipes/metadata.py` reads it, its labels generators, or people where `people` names them.
    """
    studio = samples.Studio(paintings.work, device=str(paintings.encoder.device))
    rng, weights = np.random.default_rng(0), studio.folder.name[:12]

    def pile(name: str, read: Callable[[], Iterator[Image.Image]], size: int, model: bool, rows: np.ndarray | None = None) -> Pile:
        features = kept(paintings.work, paintings.encoder, f"origin-{name}", size, lambda: seen(paintings, read(), size, name))
        return Pile(features, model, rows)

    found = {}
    for split, most, label in (("guide", FIT, ""), ("test", TEST, "unseen ")):
        rows = rng.permutation(paintings.rows(split))
        some, through = np.sort(rows[:most]), np.sort(rows[:TRIPS])
        found[f"{label}paintings"] = pile(split, lambda rows=some: stored(paintings.images, rows), len(some), False, some)
        found[f"{label}round trips"] = pile(f"{split}-{weights}", lambda rows=through: trips(paintings.images, rows, studio.pipeline.vae),
                                            len(through), False, through)  # fmt: skip
    found["embedded"] = pile(f"embedded-{weights}", lambda: map(Image.fromarray, studio.paint(wishes(count))), count, True)
    if made:
        table, people = metadata.read(made), set(people)
        for label in sorted(set(table["style"])):
            files = [made / name for name in sorted(table["file_name"][table["style"] == label])]
            digest = hashlib.sha256("\n".join(map(str, files)).encode()).hexdigest()[:8]
            found[label] = pile(f"{label}-{digest}", lambda files=files: map(Image.open, files), len(files), label not in people)
    return found


def wishes(count: int) -> list[samples.Wish]:
    """Pictures over all styles and their subjects, each with a seed of its own."""
    prompts = [(style, prompt) for style in STYLES for prompt in styles()[style].prompts]
    order = np.random.default_rng(0).permutation(len(prompts))
    drawn = [prompts[order[place % len(order)]] for place in range(count)]
    return [samples.Wish(samples.asked(style, prompt), FIRST_SEED + place, style) for place, (style, prompt) in enumerate(drawn)]


def seen(paintings: Paintings, images: Iterator[Image.Image], count: int, name: str) -> np.ndarray:
    """Embeddings `(n, d)` of pictures, made alike with draws that depend on their place alone."""

    def batches() -> Iterator[torch.Tensor]:
        group: list[np.ndarray] = []
        for place, image in enumerate(images):
            group.append(alike(image, paintings.encoder.side, np.random.default_rng(place)))
            if len(group) == BATCH or place == count - 1:
                yield samples.tensor(np.stack(group)).to(paintings.encoder.device)
                group = []

    return embed(paintings.encoder, batches(), count, name)


def stored(images: np.ndarray, rows: np.ndarray) -> Iterator[Image.Image]:
    return (Image.fromarray(images[row]) for row in rows)


def trips(images: np.ndarray, rows: np.ndarray, vae) -> Iterator[Image.Image]:
    """Paintings at 128 pixels through the pipeline's autoencoder and back: what a model's pictures go through, made by nobody's model."""
    through = autoencoded(vae)
    for start in range(0, len(rows), 16):
        pixels = data.centre_crop(data.batch(images, rows[start : start + 16], vae.device), 128)
        for image in (through(pixels, torch.Generator()) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
            yield Image.fromarray(image)
