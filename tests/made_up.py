"""Made-up paintings: noise around a colour, with styles, artists and years, in three splits of different artists."""
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from probes.judges import GENRES, STYLES


def picture(rng: np.random.Generator, size: tuple[int, int] = (150, 160), age: float = .5) -> Image.Image:
    """Older ones (`age` 1) are darker and redder, so that a year can be read."""
    pixels = rng.integers(-20, 20, 3) + np.array([180, 220, 230]) - age * np.array([60, 160, 200]) + rng.normal(0, 30, (36, 36, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(size)


def paintings(folder: Path, count: int = 90) -> Path:
    """Fill `folder` with `count` paintings and their `metadata.csv`; with 90 each style is twice in each split, by two artists."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(count):
        picture(rng, age=1 - index / count).save(folder / f"{index}.jpg")
        split = ("guide", "judge", "test")[index // len(STYLES) % 3]
        known = {"style": STYLES[index % len(STYLES)], "genre": GENRES[index % len(GENRES)], "artist": f"{split}-{index % 12}"}
        sometimes = {"year": 1500 + 4 * index if index % 4 else None, "title": "lemons and a jug" if index % 2 else ""}
        rows.append({"file_name": f"{index}.jpg", "split": split, **known, **sometimes})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder
