"""Contact sheets: labelled rows of the same seeds (unguided above, guided below), with a caption under each picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from guide import png
from probes.atomic import replacing

PAPER, INK, FAINT, FRAME = (250, 249, 246), (34, 34, 38), (112, 112, 118), (226, 224, 218)
GAP, MARGIN, LABEL, COLUMNS = 10, 28, 172, 8


@dataclass(frozen=True)
class Cell:
    """One picture with the lines under it (the seed, then its readings); no picture leaves the place empty."""

    image: Image.Image | None
    caption: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Pictures side by side: column k of every row of a block is the same seed. `about` is the small line under the label."""

    label: str
    cells: tuple[Cell, ...]
    about: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that belong together, under a heading: one prompt, or one style."""

    heading: str
    rows: tuple[Row, ...]


def draw(title: str, blocks: Sequence[Block], subtitle: str = "", side: int | None = None) -> Image.Image:
    """The sheet as one image. `side`: pixels of a picture's longer side; 224 for up to 8 columns. Rows wrap after 8."""
    blocks = [part for block in blocks for part in _wrapped(block)]
    columns = max((len(row.cells) for block in blocks for row in block.rows), default=1)
    side = side or (256 if columns <= 4 else 224)
    width = 2 * MARGIN + LABEL + columns * side + (columns - 1) * GAP
    measures = [(block, [(_tallest(row, side), _lines(row)) for row in block.rows]) for block in blocks]
    height = MARGIN + 40 + (24 if subtitle else 0)
    for block, rows in measures:
        height += (34 if block.heading else 0) + sum(tall + 6 + 17 * lines + GAP + 4 for tall, lines in rows) + 8
    sheet = Image.new("RGB", (width, height + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (MARGIN, MARGIN - 8), title, 24, INK, width - 2 * MARGIN)
    y = MARGIN + 34
    if subtitle:
        _write(pen, (MARGIN, y - 6), subtitle, 14, FAINT, width - 2 * MARGIN)
        y += 24
    for block, rows in measures:
        if block.heading:
            pen.line((MARGIN, y + 2, width - MARGIN, y + 2), FRAME)
            _write(pen, (MARGIN, y + 9), block.heading, 15, INK, width - 2 * MARGIN)
            y += 34
        for row, (tall, lines) in zip(block.rows, rows, strict=True):
            _write(pen, (MARGIN, y + tall // 2 - 18), row.label, 16, INK, LABEL - GAP)
            _write(pen, (MARGIN, y + tall // 2 + 4), row.about, 12, FAINT, LABEL - GAP)
            for k, cell in enumerate(row.cells):
                x = MARGIN + LABEL + k * (side + GAP)
                if cell.image is not None:
                    picture = _scaled(cell.image, side)
                    sheet.paste(picture, (x + (side - picture.width) // 2, y + (tall - picture.height) // 2))
                else:
                    pen.rectangle((x, y, x + side - 1, y + tall - 1), outline=FRAME)
                for n, line in enumerate(cell.caption):
                    _write(pen, (x, y + tall + 5 + 17 * n), line, 13, INK if n == 0 else FAINT, side)
            y += tall + 6 + 17 * lines + GAP + 4
        y += 8
    return sheet


def save(path: str | Path, title: str, blocks: Sequence[Block], subtitle: str = "", side: int | None = None) -> None:
    """Draw and write a sheet; a PNG says in its parameters that it is a sheet, so that an audit passes it over."""
    sheet = draw(title, blocks, subtitle, side)
    if Path(path).suffix.lower() == ".png":
        png.save(sheet, path, {"kind": "contact sheet", "prompt": title})
        return
    with replacing(path) as temporary:
        sheet.save(temporary, format="JPEG", quality=92)


def _wrapped(block: Block) -> list[Block]:
    """The block cut into blocks of at most 8 columns, so that both rows of a seed stay together."""
    longest = max((len(row.cells) for row in block.rows), default=0)
    starts = range(0, max(longest, 1), COLUMNS)
    return [
        Block("" if start else block.heading, tuple(replace(row, cells=row.cells[start : start + COLUMNS]) for row in block.rows))
        for start in starts
    ]


def _lines(row: Row) -> int:
    return max((len(cell.caption) for cell in row.cells), default=0)


def _tallest(row: Row, side: int) -> int:
    heights = [round(cell.image.height * side / max(cell.image.size)) for cell in row.cells if cell.image is not None]
    return max(heights, default=side)


def _scaled(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.contain(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], width: int) -> None:
    """One line of text, as much smaller as it has to be for `width`, down to two thirds; an ellipsis ends what does not fit then."""
    text = " ".join(str(text).split())
    font = next((font for font in map(_font, range(size, size * 2 // 3 - 1, -1)) if pen.textlength(text, font) <= width), None)
    if font is None:
        font = _font(size * 2 // 3)
        while text and pen.textlength(text + "…", font) > width:
            text = text[:-1]
        text = text.rstrip() + "…"
    pen.text(at, text, colour, font)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
