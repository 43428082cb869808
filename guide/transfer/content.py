"""How far a picture is from the photograph it was made of, each distance under its own name, for constraints and reports alike."""
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from guide.transfer.windows import Windows
from probes import distance, image
from probes.config import lookup
from probes.constraints import Constraint
from probes.encoders import Encoder
from probes.errors import UserError
from probes.features import convolutional

PLACES = 8  # as many as pixels of the stride of the stages that see shapes
LARGEST = 320  # pixels on the longer side at which distances are measured: what a picture shows is there in full
NARROWEST = 31  # pixels of a side below which nothing is left of a picture at the last layer of AlexNet that LPIPS reads


@dataclass(frozen=True, eq=False)
class Distance:
    """`measure(images, place)` -> `(n,)`: 0 for the photograph itself, higher is farther; differentiable. `scale`: a step that matters.

    A network with strides sees some pixels more than their neighbours, and descent draws that grid into a picture. `place`, 0 to
    PLACES - 1, moves picture and photograph alike against the grid; 0, which is what reports are of, moves nothing.
    """

    name: str
    unit: str
    range: tuple[float, float]
    scale: float
    measure: Callable[[Tensor, int], Tensor]
    higher_is_better: bool = False

    def __call__(self, images: Tensor, place: int = 0) -> Tensor:
        """Images `(n, 3, h, w)` in [0, 1] of the photograph's shape, of any size."""
        return self.measure(fitted(images), place)


NAMES = {  # each of the whole picture, also where a region alone is painted, at LARGEST pixels on the longer side at most
    "structure": "1 - cosine of the encoder's middle feature maps, place by place",
    "self-similarity": "mean difference of the cosines between all pairs of places of a middle feature map",
    "content": "1 - cosine of the encoder's embeddings, of a picture that is not square a mean over squares along its longer side",
    "ms-ssim": f"1 - multi-scale structural similarity, at {LARGEST} pixels on the longer side at most",
    "lpips": "LPIPS (AlexNet), where the trunk's weights are on disk",
    "artifacts": "severity of damage beyond the photograph's own",
}  # fmt: skip
DAMPING, RATE = .2, 4.  # of multipliers: brushwork distances are well below 1, and a stiffer hold loses them on its way back
UNASKED = ("structure", "self-similarity", "content", "ms-ssim")
SCALES = {"structure": .1, "self-similarity": .05, "content": .1, "ms-ssim": .1, "lpips": .1, "artifacts": .1}


def distances(encoder: Encoder, photo: Tensor, names: tuple[str, ...]) -> dict[str, Distance]:
    """The named distances from one photograph `(1, 3, h, w)`. UserError for an unknown name, or one that cannot be had here."""
    photo = fitted(photo.detach())
    made = {}
    for typed in names:
        name = lookup({name: name for name in NAMES}, typed, "distance")
        measure = BUILDERS[name](encoder, photo)
        made[name] = Distance(name, "distance", (0., 2. if name in ("structure", "content") else 1.), SCALES[name], measure)
    return made


def check(names: Iterable[str]) -> None:
    """UserError before the work where one of the distances cannot be had here."""
    if "lpips" in names and (reason := distance.lpips_missing()):
        raise UserError(f"LPIPS cannot be had: {reason}; or take --keep \"ms-ssim<=0.2\".")


def constraints(encoder: Encoder, photo: Tensor, keep: tuple[tuple[str, float], ...]) -> dict[str, Constraint]:
    """The distances that are to stay at most at a bound, by name, by the modified differential method of multipliers."""
    made = distances(encoder, photo, tuple(name for name, _ in keep))
    return {name: Constraint(made[name], bound, "at most", damping=DAMPING, rate=RATE) for name, bound in keep}


def fitted(images: Tensor) -> Tensor:
    """At most LARGEST pixels on the longer side."""
    height, width = images.shape[-2:]
    share = LARGEST / max(height, width)
    if share >= 1:
        return images
    return image.resize(images, (max(round(height * share), 11), max(round(width * share), 11)), "bilinear")


def middle(encoder: Encoder) -> tuple[str, ...]:
    """The stages that see shapes rather than strokes."""
    if convolutional(encoder.clip.visual):
        return "layer2", "layer3"
    blocks = encoder.stages
    return tuple(dict.fromkeys(blocks[max(0, round(len(blocks) * share) - 1)] for share in (.5, .75)))


def at_size(photo: Tensor, read: Callable[[Tensor, int], Any]) -> Callable[[Tensor, int], Any]:
    """What `read` gives of the photograph at the size and the place of the images it is compared with, once for each: descent begins
    small."""
    known = {}

    @torch.no_grad()
    def own(images: Tensor, place: int = 0) -> Any:
        size = tuple(images.shape[-2:])
        if (size, place) not in known:
            known[size, place] = read(image.resize(photo, size, "bilinear").clamp(0, 1), place)
        return known[size, place]
    return own


def moved(images: Tensor, place: int) -> Tensor:
    """The pictures down and to the right by some of 0 to 7 pixels, their borders mirrored; at place 0 as they are."""
    down, right = 3 * place % PLACES, place % PLACES
    return F.pad(images, (right, PLACES - right, down, PLACES - down), mode="reflect") if place % PLACES else images


def shapes(encoder: Encoder, photo: Tensor) -> Callable[[Tensor, int], list[Tensor]]:
    """What gives the middle maps of pictures of the photograph's shape, moved to a place; where the encoder cuts such pictures, those of
    windows, one below the other."""
    if convolutional(encoder.clip.visual):
        return lambda images, place=0: list(encoder.maps(moved(images, place), middle(encoder), native=True).values())
    windows = Windows.of(encoder, photo)

    def maps(images: Tensor, place: int = 0) -> list[Tensor]:
        seen = windows(moved(images, place), place / PLACES)
        return [windows.joined(one) for one in encoder.maps(seen, middle(encoder)).values()]
    return maps


def structure(encoder: Encoder, photo: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Mean over places and stages of 1 - cosine to the photograph's map at the same place."""
    maps = shapes(encoder, photo)
    own = at_size(photo, maps)

    def measure(images: Tensor, place: int = 0) -> Tensor:
        seen, held = maps(images, place), own(images, place)
        apart = [1 - F.cosine_similarity(found, kept, dim=1) for found, kept in zip(seen, held, strict=True)]
        return torch.stack([one.flatten(1).mean(1) for one in apart]).mean(0)
    return measure


def self_similarity(encoder: Encoder, photo: Tensor) -> Callable[[Tensor], Tensor]:
    """Which places look like which (arXiv:2201.00424 reads it of a transformer's keys, here of a middle stage's outputs): free of colour
    and stroke, as both change everywhere alike. Places are pooled to at most 16 x 16."""
    maps = shapes(encoder, photo)

    def matrix(images: Tensor, place: int = 0) -> Tensor:
        held = maps(images, place)[0]
        held = held - held.mean((2, 3), keepdim=True)
        if max(held.shape[-2:]) > 16:
            held = F.adaptive_avg_pool2d(held, [min(side, 16) for side in held.shape[-2:]])
        places = F.normalize(held.flatten(2), dim=1)
        return places.transpose(1, 2) @ places
    own = at_size(photo, matrix)
    return lambda images, place=0: (matrix(images, place) - own(images, place)).abs().mean((1, 2)) / 2


def content(encoder: Encoder, photo: Tensor) -> Callable[[Tensor], Tensor]:
    """What the encoder says of the whole picture: the mean over windows where it cuts such pictures."""
    windows = Windows.of(encoder, photo)

    @cache
    @torch.no_grad()
    def own(place: int) -> Tensor:
        return encoder(windows(photo, place / PLACES)).flatten()
    return lambda images, place=0: 1 - encoder(windows(images, place / PLACES)).view(len(images), -1) @ own(place) / windows.count


def ms_ssim(encoder: Encoder, photo: Tensor) -> Callable[[Tensor], Tensor]:
    """Needs no network."""
    own = at_size(photo, moved)
    return lambda images, place=0: 1 - distance.ms_ssim(images, own(images).expand_as(images))


def lpips(encoder: Encoder, photo: Tensor) -> Callable[[Tensor], Tensor]:
    """Only with its real trunk: a random one would be no perceptual distance."""
    if min(photo.shape[-2:]) < NARROWEST:
        raise UserError(f"LPIPS needs {NARROWEST} pixels on the shorter side where the longer one has at most {LARGEST}, and of this "
                        f"picture there are {min(photo.shape[-2:])}; take --keep \"ms-ssim<=0.2\".")
    network, own = distance.lpips(str(photo.device)), at_size(photo, moved)

    def measure(images: Tensor, place: int = 0) -> Tensor:
        images, kept = moved(images, place), own(images, place)
        return network(images, kept.expand_as(images))
    return measure


def artifacts(encoder: Encoder, photo: Tensor) -> Callable[[Tensor], Tensor]:
    """Less the photograph's own severity: grain and compression that it came with are no damage done here."""
    from probes.artifacts import ArtifactProbe
    measure = ArtifactProbe(encoder).aim()
    own = at_size(photo, lambda pixels, place: measure(pixels))
    return lambda images, place=0: (measure(images) - own(images)).clamp_min(0)


BUILDERS = {"structure": structure, "self-similarity": self_similarity, "content": content, "ms-ssim": ms_ssim, "lpips": lpips,
            "artifacts": artifacts}
