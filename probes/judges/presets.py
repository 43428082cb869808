"""Judges whose networks lie on a hub, as `configs/judges/<key>.toml` or a TOML file of a user's own tells of them."""

from dataclasses import dataclass
from pathlib import Path

from probes import config
from probes.config import offer
from probes.errors import UserError
from probes.paths import typed

NETWORKS = ("dinov2", "csd", "open-clip", "hpsv2")


@dataclass(frozen=True)
class Preset:
    """`network`: which class reads the files. `source`: a repository of the hub, a folder in its format, or for open-clip an encoder.

    `data`, `architecture` and `objective` are its lineage: by them it refuses what its own family steered. `data` names training images,
    joined by `+`, as encoders name theirs (`openai`, `laion2b`). `model`: an open_clip architecture, or a folder with its configuration,
    where `source` is weights alone. `heads`: files of heads for its features, relative to the TOML file.
    """

    network: str
    source: str
    data: str
    architecture: str
    objective: str
    licence: str
    about: str
    revision: str = ""
    file: str = ""
    model: str = ""
    heads: tuple[str, ...] = ()
    key: str = ""

    def __post_init__(self):
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")


def presets() -> dict[str, Preset]:
    """Those of `configs/judges`, by key."""
    return config.catalogue("judges", Preset)


def find(name: str, known: tuple[str, ...] = ()) -> tuple[Preset, Path]:
    """The preset that `name` means, a key or a TOML file, and the folder its paths are relative to; `known`: other judges to offer."""
    if name in presets():
        return presets()[name], Path.cwd()
    path = typed(name)
    if path.suffix == ".toml" and path.is_file():
        return config.read(path, Preset), path.resolve().parent
    raise UserError(f"There is no judge {name!r}{offer([*known, *presets()], complete=True)}; a TOML file like those of configs/judges "
                    "works too.")
