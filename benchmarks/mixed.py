"""An audit of thousands of mixed files with bad ones among them, killed in the middle, and dealt to two processes: all the same, or not.

    python -m benchmarks.mixed make --pictures FOLDER_OR_TARS --count 10000 --bad 200 --work WORK
    python -m benchmarks.mixed whole --work WORK
    python -m benchmarks.mixed killed --work WORK
    python -m benchmarks.mixed two --work WORK
    python -m benchmarks.mixed check --work WORK

`make` writes copies, crops and re-encodings of real pictures, and among them files of every odd kind, each with what is expected of it.
`killed` ends the process with SIGKILL when half of the parts are written, and goes on with the same command. `check` compares outcomes
with expectations and the files of the three runs byte for byte.
"""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from guide.comparing.meter import resident_peak
from probes.auditing import inputs
from probes.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False)
Work = Annotated[Path, typer.Option(help="Folder of the set, the runs and their figures.")]
Until = Annotated[int, typer.Option(help="End it when so many parts are written; 0: never. A later call goes on.")]
ROOT = Path(__file__).resolve().parents[1]
RUNS = ("whole", "killed", "two")
NAMES = ("a b {}.jpg", "quote\"d' {}.jpg", "new\nline {}.jpg", "<img src=x onerror=alert(1)> {}.jpg", "=1+1 {}.jpg",
         "画 {}.jpg", "{{{{ 7*7 }}}} {}.jpg")  # fmt: skip


def written(picture: Image.Image, kind: str, **options) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def bomb(_: Image.Image, megapixels: int = 3600) -> bytes:
    """A PNG that claims so many megapixels and holds none."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = round((megapixels * 1e6) ** 0.5)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return written(picture, "JPEG", exif=exif)


def clear(picture: Image.Image) -> bytes:
    seen = picture.convert("RGBA")
    seen.putalpha(picture.convert("L"))
    return written(seen, "PNG")


def deep(picture: Image.Image) -> bytes:
    return written(Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257), "PNG")


KINDS = {  # suffix, bytes, and what the row has to say: of the error, or after a plus of the notes
    "truncated": (".jpg", lambda one: written(one, "JPEG")[:900], "cannot be decoded"),
    "truncated PNG": (".png", lambda one: written(one, "PNG")[:-200], "cannot be decoded"),
    "zero bytes": (".jpg", lambda _: b"", "the file is empty"),
    "text": (".png", lambda _: b"not a picture", "not an image"),
    "bomb": (".png", bomb, "megapixels"),
    "small bomb": (".png", lambda one: bomb(one, 120), "megapixels"),
    "tiny": (".png", lambda one: written(one.resize((9, 9)), "PNG"), "too few to read"),
    "wrong extension": (".png", lambda one: written(one, "JPEG"), "+a JPEG file by another name"),
    "animated": (".gif", lambda one: written(one, "GIF", save_all=True, append_images=[one.rotate(90)]), "+the first of 2 frames"),
    "CMYK": (".jpg", lambda one: written(one.convert("CMYK"), "JPEG"), "+CMYK"),
    "16 bits": (".png", deep, "+16-bit grey"),
    "palette": (".png", lambda one: written(one.quantize(32), "PNG"), "+palette colours"),
    "alpha": (".png", clear, "+transparency laid over white"),
    "EXIF-rotated": (".jpg", turned, "+turned as its EXIF says"),
    "odd name": ("", lambda one: written(one, "JPEG", quality=88), "+"),
}


@app.command()
def make(pictures: Annotated[str, typer.Option(help="A folder, a tar or a glob of tars.")], work: Work, count: int = 10_000,
         bad: int = 200) -> None:  # fmt: skip
    """Write the set: `work/set`, and what is expected of each odd file."""
    folder, rng, expected = work / "set", np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    real = inputs.items(pictures)[0]
    odd = set(rng.choice(count, bad, replace=False).tolist())
    kinds = list(islice(cycle(KINDS), bad))
    for k in range(count):
        with Image.open(io.BytesIO(real[k % len(real)].read())) as opened:
            picture = opened.convert("RGB")
        if k in odd:
            kind = kinds.pop()
            suffix, of, said = KINDS[kind]
            name = f"{k:05d}{suffix}" if suffix else NAMES[k % len(NAMES)].format(k)
            data, expected[name] = of(picture), (kind, said)
        else:
            name, data = f"{k:05d}", None
            left, top = rng.integers(0, 12, 2).tolist()
            if k % 4 == 1:
                picture = picture.crop((left, top, picture.width - left, picture.height - top))
            elif k % 4 == 2:
                picture = picture.resize((picture.width * 3 // 2, picture.height * 3 // 2), Image.Resampling.BICUBIC)
            kind = ("JPEG", "PNG", "WEBP")[k % 3]
            name += {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[kind]
            data = written(picture, kind, **({} if kind == "PNG" else {"quality": 60 + k % 36}))
        (folder / name).write_bytes(data)
    (work / "expected.json").write_text(json.dumps(expected))
    typer.echo(f"{count} files, {len(expected)} of them odd")


def command(work: Path, out: str, processes: int = 1) -> list[str]:
    several = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no"] if processes > 1 else []  # fmt: skip
    return [sys.executable, *several, str(ROOT / "cli.py"), "audit", str(work / "set"), "--style", "baroque", "--device", "cpu", "-q",
            "--workers", "1", "--out", str(work / out)]  # fmt: skip


def run(work: Path, out: str, processes: int = 1, until: int = 0, how: int = signal.SIGKILL) -> dict:
    """Run to the end, or `until` so many parts are written and end it; seconds and the most memory of the process."""
    start, most, parts = time.perf_counter(), 0, work / out / "parts"
    with subprocess.Popen(command(work, out, processes), env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            most = max(most, resident_peak(running.pid) or 0)
            if until and len(list(parts.glob("part-*.parquet"))) >= until:
                running.send_signal(how)
                running.wait()
            time.sleep(0.2)
    if running.returncode and not until:
        raise UserError(f"the audit ended with {running.returncode}.")
    return {"seconds": round(time.perf_counter() - start), "peak MB": most >> 10, "parts": len(list(parts.glob("part-*.parquet")))}


def told(work: Path, name: str, found: object) -> None:
    (work / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    typer.echo(json.dumps({name: found}, indent=1))


def earlier(work: Path, name: str) -> list:
    """What the calls before this one said."""
    return json.loads((work / f"{name}.json").read_text()) if (work / f"{name}.json").is_file() else []


@app.command()
def whole(work: Work, until: Until = 0) -> None:
    """One process, uninterrupted, or with --until in two calls of which the second has none."""
    told(work, "whole", [*earlier(work, "whole"), run(work, "whole", until=until, how=signal.SIGINT)])


@app.command()
def killed(work: Work, pause: Annotated[bool, typer.Option(help="End after the kill; a later call goes on.")] = False) -> None:
    """One process, killed when half is read; then the same command again, which must leave what was written as it is."""
    parts, half = work / "killed" / "parts", len(list((work / "set").iterdir())) // 256
    if not (work / "kill.json").is_file():
        first = run(work, "killed", until=half)
        told(work, "kill", {"run": first, "written": {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}})
        if pause:
            return
    first, before = json.loads((work / "kill.json").read_text()).values()
    second = run(work, "killed")
    kept = sum((parts / name).stat().st_mtime_ns == when for name, when in before.items())
    told(work, "killed", {"until the kill": first, "after it": second, "parts that were left as they were": f"{kept} of {len(before)}"})


@app.command()
def two(work: Work, until: Until = 0) -> None:
    """Two processes of `accelerate launch` on the CPU; --until as above."""
    told(work, "two", [*earlier(work, "two"), run(work, "two", processes=2, until=until, how=signal.SIGTERM)])


@app.command()
def check(work: Work) -> None:
    """Whether each odd file met what is expected of it, and whether the runs agree byte for byte; exit code 1 where not."""
    expected, rows = json.loads((work / "expected.json").read_text()), pd.read_parquet(work / "whole" / "audit.parquet")
    by_name = {Path(name).name: row for name, row in zip(rows["image"], rows.to_dict("records"), strict=True)}
    wrong, met = [], Counter()
    for name, (kind, said) in expected.items():
        row = by_name.get(name, {"error": "no row", "notes": ""})
        right = said in row["error"] if not said.startswith("+") else not row["error"] and said[1:] in row["notes"]
        met[kind] += right
        wrong += [] if right else [f"{kind}: {name!r}: {row['error'] or row['notes']}"]
    unread = sum(not said.startswith("+") for _, said in expected.values())
    same = {f"{run}/audit.{kind}": (work / "whole" / f"audit.{kind}").read_bytes() == (work / run / f"audit.{kind}").read_bytes()
            for run in RUNS[1:] if (work / run / "audit.json").is_file() for kind in ("csv", "json", "html", "parquet")}  # fmt: skip
    found = {"rows": len(rows), "names once": bool(rows["image"].is_unique), "not read": int((rows["error"] != "").sum()),
             "expected not read": unread, "as expected": dict(met), "otherwise": wrong, "equal to one whole run": same}  # fmt: skip
    told(work, "check", found)
    if wrong or len(rows) != len(list((work / "set").iterdir())) or found["not read"] != unread or not all(same.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
