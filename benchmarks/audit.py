"""What an audit costs beside the bare encoder on the same files, in one run, and which part takes what share.

    python -m benchmarks.audit --pictures FOLDER --encoder embedded --encoder random:ViT-B-32

`random:NAME` is a published architecture of open_clip with random weights: as fast as the real one, and it needs no download. Two
denominators: the encoder alone on tensors that lie ready, and the usual loop (files decoded by as many threads, open_clip's own
transform, the encoder). Rounds alternate, and the fastest of each counts. `--memory 100,10000,100000` instead says the peak of a process
that audits that many made-up pictures.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import torch
import typer
from PIL import Image
from safetensors.torch import save_file

from probes import audit, encoders, judge
from probes.auditing import damage, looks, opening
from probes.auditing.intention import Intention
from probes.auditing.item import Item
from probes.auditing.reading import Reading
from probes.image import files

TINY = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}  # fmt: skip


def main(pictures: Annotated[str, typer.Option(help="A folder; default: made-up ones of 512 pixels.")] = "", count: int = 256,
         encoder: list[str] = ["embedded", "random:ViT-B-32"], workers: int = 2, batch: int = 32, rounds: int = 3, device: str = "cpu",  # noqa: B006
         processor: Annotated[bool, typer.Option(help="Processor time of all threads, not the clock: for a shared core.")] = False,
         parts: Annotated[bool, typer.Option(help="Also what each part takes by itself.")] = True,
         memory: str = "", out: Path | None = None) -> None:  # fmt: skip
    clock = time.process_time if processor else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        found = [] if memory else files(pictures)[:count] if pictures else made(count, 512, Path(folder) / "made")
        measured = ((peak(int(number), Path(folder)) for number in memory.split(",")) if memory else
                    (throughput(source, found, workers, batch, rounds, device, Path(folder), clock, parts)
                     for source in encoder))  # fmt: skip
        said = []
        for one in measured:
            typer.echo(json.dumps(one, indent=1))
            said.append(one)
    if out:
        out.write_text(json.dumps(said, indent=1) + "\n")


def throughput(source: str, found: list[str], workers: int, batch: int, rounds: int, device: str, folder: Path,
               clock: Callable[[], float] = time.perf_counter, parts: bool = True) -> dict:  # fmt: skip
    """Pictures a second of the audit and of both denominators, their ratios, and milliseconds a picture of each part on one thread."""
    source = random_weights(source.removeprefix("random:"), folder) if source.startswith("random:") else source
    reader, verdict = encoders.load(source, device), judge.load("verdict", device)
    usual = open_clip.image_transform(reader.size, is_train=False, mean=tuple(reader.mean.flatten().tolist()),
                                      std=tuple(reader.std.flatten().tolist()), resize_mode=reader.resize_mode)  # fmt: skip
    opened = torch.cat([reader.preprocess(opening.image.unit(opening.opened(Path(file).read_bytes(), file).pixels)) for file in found])

    def alone() -> None:
        for start in range(0, len(opened), batch):
            reader.clip.encode_image(opened[start : start + batch].to(device))

    def loop() -> None:
        with ThreadPoolExecutor(workers) as pool:
            ahead = pool.map(lambda file: usual(Image.open(file).convert("RGB")), found)
            for group in batches(ahead, batch):
                reader.clip.encode_image(torch.stack(group).to(device))

    def whole() -> None:
        audit(found, encoder=source, device=device, batch=batch, workers=workers, gallery=True)

    runs, best = {"encoder alone": alone, "usual loop": loop, "audit": whole}, {}
    with torch.no_grad():
        for number in range(rounds + 1):
            for name, run in runs.items():
                seconds = timed(run, device, clock)
                if number:  # the first round warms up
                    best[name] = min(best.get(name, seconds), seconds)
    rates = {name: len(found) / seconds for name, seconds in best.items()}
    return {"encoder": source if source == "embedded" else f"{Path(source).name}, random weights", "pictures": len(found), "device": device,
            "clock": clock.__name__, "threads": torch.get_num_threads(), "workers": workers,
            "per second": {name: round(rate, 1) for name, rate in rates.items()},
            "of the encoder alone": round(rates["audit"] / rates["encoder alone"], 3),
            "of the usual loop": round(rates["audit"] / rates["usual loop"], 3),
            **({"milliseconds a picture": shares(found, reader, verdict, batch, device)} if parts else {})}  # fmt: skip


def shares(found: list[str], reader, verdict, batch: int, device: str) -> dict[str, float]:
    """Of each part by itself, in the time of one thread's processor."""
    reading = Reading(reader, verdict, thumbnails=True)
    data = [Path(file).read_bytes() for file in found]
    pixels = [opening.opened(some, file).pixels for some, file in zip(data, found, strict=True)]
    ready = [reading.prepare(Item(file, file), Intention(), ()) for file in found]
    seen, judged = (torch.cat([getattr(one, name) for one in ready]).float().div(255) for name in ("seen", "judged"))
    parts: dict[str, Callable] = {
        "decoding": lambda: [opening.opened(some, file) for some, file in zip(data, found, strict=True)],
        "saturation, contrast, frequencies, hash": lambda: [looks.looks(one) for one in pixels],
        "thumbnails": lambda: [looks.thumbnail(one) for one in pixels],
        "shrinking for encoder and judge": lambda: [(reader.fit(one), verdict.fit(one)) for one in pixels],
        "all of this, with names, hashes and notes": lambda: [reading.prepare(Item(file, file), Intention(), ()) for file in found],
        "encoder": lambda: [reader(seen[k : k + batch].to(device)) for k in range(0, len(seen), batch)],
        "what its layers say besides": lambda: [reader.describe(seen[k : k + batch].to(device)) for k in range(0, len(seen), batch)],
        "judge": lambda: [verdict(judged[k : k + batch].to(device)) for k in range(0, len(seen), batch)],
        "damage": lambda: damage.read(reading.artifacts, [one.whole for one in ready]),
        "encoder, judge, heads, damage and rows": lambda: [reading.entries(ready[k : k + batch]) for k in range(0, len(ready), batch)],
    }
    with torch.no_grad():
        best = {name: min(timed(part, device, time.process_time) for _ in range(2)) for name, part in parts.items()}
    best["what its layers say besides"] -= best["encoder"]
    return {name: round(max(seconds, 0) / len(found) * 1000, 2) for name, seconds in best.items()}


def timed(run: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start


def random_weights(name: str, folder: Path, config: dict | None = None) -> str:
    """A folder in open_clip's format with a model of random weights."""
    path = folder / name
    if not path.is_dir():
        path.mkdir(parents=True)
        torch.manual_seed(0)
        config = config or open_clip.get_model_config(name)
        (path / "config.json").write_text("{}")
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}))
        model = open_clip.CLIP(**config)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path / "open_clip_model.safetensors")
    return str(path)


def made(count: int, side: int, folder: Path) -> list[str]:
    """Smooth pictures of a few colours, all different, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{k:07d}.jpg", quality=90)
    return files(folder)


def peak(count: int, folder: Path) -> dict:
    """The most memory that a process takes to audit `count` pictures of 64 pixels and to write all files, and how long."""
    pictures = folder / str(count)
    made(count, 64, pictures)
    code = ("import resource, sys, time; from probes import audit; start = time.perf_counter();"
            "report = audit(sys.argv[1], encoder=sys.argv[2], judge=None, folder=sys.argv[3], gallery=True, batch=64);"
            "report.save(sys.argv[3]); most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
            "print(len(report.rows), most // (2**20 if sys.platform == 'darwin' else 2**10), time.perf_counter() - start)")  # fmt: skip
    arguments = [sys.executable, "-c", code, str(pictures), random_weights("tiny", folder, TINY), str(folder / f"out-{count}")]
    rows, most, seconds = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    size = sum(path.stat().st_size for path in (folder / f"out-{count}").rglob("*") if path.is_file())
    return {"pictures": int(rows), "peak MB": int(most), "seconds": round(float(seconds)), "written MB": round(size / 1e6, 1)}


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size`, the last one of what is left."""
    held = iter(items)
    return iter(lambda: list(islice(held, size)), [])


if __name__ == "__main__":
    typer.run(main)
