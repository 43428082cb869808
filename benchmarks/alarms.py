"""What sets off the alarm of the artifact probe: paintings, enlarged or not, photographs, palettes, lattices, grain and the like.

    python -m benchmarks.alarms --data paintings/ --work work/

Paintings are of the test split, by artists that the head has not seen, one by each artist where there are enough; photographs come with
scikit-image, scikit-learn and matplotlib. Each is read as an audit reads it. Prints Markdown: alarms of how many pictures, and what kind of
damage most of those are taken for; of copies and seams how well their maps place them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from probes import encoders, image
from probes.artifacts import ArtifactProbe, fitted
from probes.heads import patch
from probes.heads.patch import EDGE
from recipes import data, options
from recipes.artifact_figures import localisation
from recipes.artifacts import kinds
from recipes.corruptions import CELLS, inject, patches, region

CROWD = ("cubism", "fauvism", "baroque", "impressionism", "expressionism", "ukiyo-e")  # of each the first 24
SIDES = (256, 112)
LARGER = (1.3, 256 / data.SIDE)  # the last: what files of more pixels, made from these, are read at


def photographs() -> Iterator[Image.Image]:
    """Undamaged photographs in colour and in grey."""
    import matplotlib.cbook
    import skimage.data
    from sklearn.datasets import load_sample_image

    for name in ("astronaut", "coffee", "chelsea", "rocket", "retina", "immunohistochemistry"):
        yield Image.fromarray(getattr(skimage.data, name)())
    for name in ("china.jpg", "flower.jpg"):
        yield Image.fromarray(load_sample_image(name))
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        yield Image.open(file).convert("RGB")
    for name in ("camera", "coins", "moon", "page", "brick", "grass", "gravel"):
        yield Image.fromarray(getattr(skimage.data, name)())


def lattices(clean: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and pictures `(n, 3, h, w)`: squares that begin at 0 or a pixel further, added and subtracted, and dots that brighten."""
    rows, columns = torch.meshgrid(*(torch.arange(edge) for edge in clean.shape[-2:]), indexing="ij")
    for cell in CELLS:
        for moved in (0, 1):
            board = (((rows + moved) // cell + (columns + moved) // cell) % 2 * 2 - 1).to(clean)
            for strength in (0.05, 0.1):
                yield f"squares of {cell} from {moved}, +-{strength:g}", (clean + strength * board).clamp(0, 1)
    for apart in (2, 4, 8):
        dots = ((rows % apart == 0) & (columns % apart == 0)).to(clean)
        yield f"bright dots, {apart} apart", clean + dots * (0.7 - 0.7 * clean)


def palettes(clean: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and pictures in fewer colours, the picture's own and those of the web."""
    for colours in (256, 32, 8):
        some = [image.to_pil(one[None]).quantize(colours).convert("RGB") for one in clean]
        yield f"{colours} colours", torch.cat([image.from_pil(one) for one in some])
    some = [image.to_pil(one[None]).convert("P", palette=Image.Palette.WEB).convert("RGB") for one in clean]
    yield "web palette", torch.cat([image.from_pil(one) for one in some])


def copies(clean: Tensor, softened: bool, draw: Generator) -> tuple[Tensor, Tensor]:
    """Pictures in which a square of two fifths of the side shows again in the corner across, and masks of it.

    `softened`: half a pixel off, as resampling leaves it.
    """
    side = clean.shape[-1]
    edge = side * 2 // 5
    hurt, masks = clean.clone(), torch.zeros_like(clean[:, :1])
    for k, one in enumerate(clean):
        top, left = torch.randint(side // 8, (2,), generator=draw).tolist()
        source = one[:, top : top + edge + 1, left : left + edge + 1]
        piece = F.avg_pool2d(source[None], 2, 1)[0] if softened else source[:, :edge, :edge]
        low, right = (side // 2 + more for more in torch.randint(side // 2 - edge, (2,), generator=draw).tolist())
        hurt[k, :, low : low + edge, right : right + edge] = piece
        masks[k, :, low : low + edge, right : right + edge] = 1
    return hurt, masks


def seams(clean: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Pictures whose right half lies `shift` pixels lower, also far from where they meet, and masks of the patches on that line."""
    middle = clean.shape[-1] // 2 // EDGE * EDGE
    line = slice(middle, middle + EDGE)
    hurt, masks = clean.clone(), torch.zeros_like(clean[:, :1])
    hurt[..., middle + EDGE // 2 :] = clean[..., middle + EDGE // 2 :].roll(shift, -2)
    masks[..., line] = 1
    return hurt, masks


def placed(probe: ArtifactProbe, clean: Tensor, hurt: Tensor, masks: Tensor) -> float:
    """Mean area under the ROC curve of the maps of damaged pictures."""
    truth, found = patches(clean, hurt, masks, EDGE), probe.map(hurt)
    return float(np.nanmean([localisation(*both) for both in zip(truth, found, strict=True)]))


def said(probe: ArtifactProbe, pictures: Tensor | list[Tensor]) -> str:
    """`3 of 12, mostly noise`: alarms, and the kind that most of them are taken for."""
    looks = [probe.look(one.clamp(0, 1)) for one in (pictures.split(1) if isinstance(pictures, Tensor) else pictures)]
    loud = [int(look["kind_probabilities"].argmax()) for look in looks if bool(look["damaged"])]
    most = f", mostly {probe.labels[max(set(loud), key=loud.count)]}" if loud else ""
    return f"{len(loud)} of {len(looks)}{most}"


@torch.no_grad()
def main(
    folder: options.Data,
    work: options.Work = Path("work"),
    head: Annotated[str, typer.Option(help="Another head (no suffix) than the one that ships.")] = "",
    count: Annotated[int, typer.Option(help="Paintings that lattices, grain and palettes are tried on.", min=2)] = 32,
):
    images, table = data.paintings(folder, work)
    probe = ArtifactProbe(encoders.load("embedded"), patch.load(Path(head)) if head else None)
    test = table[table["split"] == "test"].sample(frac=1, random_state=0)
    one_each = test.drop_duplicates("artist").index[:count].to_numpy()
    clean = data.batch(images, one_each)
    lines = [("paintings, one by each artist", said(probe, clean))]
    for style in CROWD:
        rows = test.index[test["style"] == style][:24].to_numpy()
        lines.append((f"paintings: {style}", said(probe, data.batch(images, rows))))
    shown = [one.convert("RGB") for one in photographs()]
    grey = [image.from_pil(one).std(1).max() < 1e-3 for one in shown]
    for side in SIDES:
        small = [fitted(image.from_pil(one)) if side == SIDES[0] else image.from_pil(one.resize((side, side))) for one in shown]
        for colour in (True, False):
            chosen = [one for one, plain in zip(small, grey, strict=True) if bool(plain) != colour]
            lines.append((f"photographs in {'colour' if colour else 'grey'}, {side} pixels", said(probe, chosen)))
    draw = Generator().manual_seed(0)
    for name, common in (("of each colour", 3), ("grey", 1)):
        noise = torch.randn(len(clean), common, *clean.shape[-2:], generator=draw)
        lines += [(f"grain {name}, deviation {deviation} of 255", said(probe, clean + deviation / 255 * noise)) for deviation in (10, 20)]
    lines += [(name, said(probe, broken)) for name, broken in (*lattices(clean), *palettes(clean))]
    for name, kind in kinds(probe.encoder).items():
        hurt = [inject(one, kind, 0.6, region(*one.shape[-2:], draw), draw) for one in clean.split(1)]
        lines.append((f"planted in a region at strength .6: {name}", said(probe, hurt)))
    for times in LARGER:
        large = image.resize(clean, (round(clean.shape[-2] * times), round(clean.shape[-1] * times)), "bicubic")
        lines.append((f"paintings, enlarged {times:.2g} times", said(probe, large)))
    for name, softened in (("whole pixels", False), ("half a pixel off, and so softened", True)):
        hurt, masks = copies(clean, softened, Generator().manual_seed(0))
        lines.append((f"copies, {name}", f"{said(probe, hurt)}; AUC {placed(probe, clean, hurt, masks):.2f}"))
    for shift in (3, 9):
        hurt, masks = seams(clean, shift)
        lines.append((f"seams, halves {shift} pixels apart", f"{said(probe, hurt)}; AUC {placed(probe, clean, hurt, masks):.2f}"))
    typer.echo("| what | alarms |\n|---|---|")
    for name, found in lines:
        typer.echo(f"| {name} | {found} |")


if __name__ == "__main__":
    options.start(main)
