"""Contact sheets: whole pictures in their places, the same seed in one column, nothing cut off."""

import pytest
from PIL import Image

from guide import png, sheet
from guide.sheet import PAPER, Block, Cell, Row

RED, BLUE = (200, 20, 30), (20, 40, 200)


def block(columns, size=(128, 128), caption=("seed 0", "baroque 0.91")):
    rows = [(label, Image.new("RGB", size, colour)) for label, colour in (("unguided", RED), ("guided", BLUE))]
    return Block("lemons", tuple(Row(label, tuple(Cell(image, caption) for _ in range(columns))) for label, image in rows))


def count(drawn, colour):
    return sum(number for number, found in drawn.getcolors(1 << 20) if found == colour)


@pytest.mark.parametrize("columns", [1, 4, 8, 11])
def test_every_picture_is_drawn_whole(columns):
    drawn = sheet.draw("Title", [block(columns)], "guide generate", side=100)
    assert count(drawn, RED) == count(drawn, BLUE) == columns * 100 * 100
    assert drawn.getpixel((0, 0)) == PAPER


def test_small_pictures_are_enlarged_and_large_ones_reduced():
    for size in ((64, 64), (128, 128), (1024, 1024)):
        assert count(sheet.draw("", [block(1, size)]), RED) == 256 * 256


def test_proportions_are_kept():
    assert count(sheet.draw("", [block(2, (256, 128))], side=200), RED) == 2 * 200 * 100


def test_the_unguided_row_is_above_the_guided_one_in_the_same_columns():
    drawn = sheet.draw("Title", [block(3)], side=96)
    where = {
        colour: [(x, y) for y in range(drawn.height) for x in range(drawn.width) if drawn.getpixel((x, y)) == colour]
        for colour in (RED, BLUE)
    }
    assert max(y for _, y in where[RED]) < min(y for _, y in where[BLUE])
    assert {x for x, _ in where[RED]} == {x for x, _ in where[BLUE]}


def test_odd_texts_and_empty_places_do_not_break_it():
    odd = ("x" * 500, "a\nb\tc \x00 浮世絵 \u202e", "")
    rows = (Row("a very long label that cannot fit " * 9, (Cell(None, odd), Cell(Image.new("L", (40, 90)), odd))), Row("", ()))
    drawn = sheet.draw("t" * 900, [Block("h" * 900, rows), Block("", ())], "s" * 900)
    assert drawn.width < 1000


def test_a_sheet_says_that_it_is_one(tmp_path):
    sheet.save(tmp_path / "sheet.png", "Baroque", [block(1)])
    assert png.parameters(tmp_path / "sheet.png")["kind"] == "contact sheet"
    sheet.save(tmp_path / "sheet.jpg", "Baroque", [block(1)])
    assert Image.open(tmp_path / "sheet.jpg").format == "JPEG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.jpg", "sheet.png"]


def test_the_end_of_a_long_caption_is_there_too():
    def drawn(caption):
        return sheet.draw("", [Block("", (Row("guided", (Cell(Image.new("RGB", (256, 256)), ("seed 0", caption)),)),))])

    said = "verdict post-impressionism, symbolism {}, 1890"
    assert drawn(said.format("0.42")).tobytes() != drawn(said.format("0.43")).tobytes()
    assert drawn(said.format("0.42") + "!").tobytes() != drawn(said.format("0.42")).tobytes()
