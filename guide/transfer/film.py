"""A film of the optimisation: GIF through Pillow, MP4 where ffmpeg is on the path."""
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image
from torch import Tensor

from probes.atomic import replacing
from probes.auditing.looks import shrunk
from probes.errors import UserError
from probes.image import to_pil

FRAMES, SIDE = 40, 384  # at most so many frames, of so many pixels on the longer side
RATE, HOLD = 12, 12  # frames a second, and how many times the last one stays


def check(kind: str) -> None:
    """UserError before the work where the film could not be written after it."""
    if kind == "mp4" and not shutil.which("ffmpeg"):
        raise UserError("An MP4 is written by ffmpeg, which is not on the path; install it (apt install ffmpeg, brew "
                        "install ffmpeg), or take --film gif.")


def unfilmed(kind: str, pictures: Iterable[Path]) -> list[str]:
    """A sentence where pictures that are there already have no film of the kind asked for; none where nothing is missing."""
    lacking = sum(path.is_file() and not path.with_suffix(f".{kind}").is_file() for path in pictures) if kind else 0
    if not lacking:
        return []
    who = f"{lacking} pictures painted before get" if lacking > 1 else "1 picture painted before gets"
    return [f"A film shows what is painted in this call: {who} none; choose another folder with --out to paint and film anew."]


class Frames:
    """Sees the steps of one picture and keeps some of them; without a kind it keeps nothing."""

    def __init__(self, kind: str, steps: int):
        self.kind, self.every, self.kept = kind, max(1, -(-steps // FRAMES)), []

    def see(self, step: int, current: Callable[[], Tensor] | None) -> None:
        if self.kind and current is not None and step % self.every == 0:
            self.kept.append(_small(current()))

    def write(self, path: Path, photo: Tensor, painted: Tensor) -> Path | None:
        """Beside the picture `path`: the photograph, the frames, the picture."""
        if not self.kind:
            return None
        last = _small(painted)
        frames = [frame.resize(last.size, Image.Resampling.BILINEAR) for frame in (_small(photo), *self.kept)] + [last] * HOLD
        target = path.with_suffix(f".{self.kind}")
        with replacing(target) as temporary:
            if self.kind == "gif":
                coloured = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
                coloured[0].save(temporary, format="GIF", save_all=True, append_images=coloured[1:], duration=1000 // RATE, loop=0)
            else:
                _mp4(frames, temporary)
        return target


def _small(picture: Tensor) -> Image.Image:
    return to_pil(shrunk(picture.detach().clamp(0, 1), SIDE))


def _mp4(frames: list[Image.Image], path: Path) -> None:
    width, height = (side - side % 2 for side in frames[0].size)  # its colours are halved both ways
    raw = b"".join(frame.crop((0, 0, width, height)).tobytes() for frame in frames)
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE),
               "-i", "-", "-pix_fmt", "yuv420p", "-f", "mp4", str(path)]
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"ffmpeg could not write {path.name}: {done.stderr.decode(errors='replace').strip()[:200]}; take --film gif.")
