"""A folder that holds one of every kind of odd file: each is read with a note or listed with its reason, and none runs anything."""

import csv
import io
import os
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from probes.audit import audit
from probes.auditing.report import Report

GRADIENT = np.tile(np.linspace(20, 235, 64, dtype=np.uint8), (64, 1))
PHOTO = Image.fromarray(np.stack([GRADIENT, GRADIENT.T, 255 - GRADIENT], -1))
NAMES = ("a b.png", 'quote"d\'.png', "new\nline.png", "<img src=x onerror=alert(1)>.png", "=cmd|' C calc'!A1.png", "+1.png", "@SUM(1).png",
         "-2.png", "\t=3.png", "画 ü.png", "{{ 7*7 }}.png", "</script>.png".replace("/", "\N{FULLWIDTH SOLIDUS}"))  # fmt: skip


def written(picture, kind="PNG", **options):
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def bomb():
    """A PNG that claims 3,600 megapixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return written(PHOTO.resize((80, 40)), "JPEG", exif=exif)


def clear():
    seen = PHOTO.convert("RGBA")
    seen.putalpha(Image.fromarray(GRADIENT))
    return written(seen)


READ = {
    "jpeg by another name.png": (written(PHOTO, "JPEG"), "a JPEG file by another name"),
    "no suffix": (written(PHOTO), ""),
    "odd suffix.dat": (written(PHOTO, "WEBP"), "a WEBP file by another name"),
    "animated.gif": (written(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(90), PHOTO.rotate(180)]), "the first of 3 frames"),
    "animated.webp": (written(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)]), "the first of 2 frames"),
    "cmyk.jpg": (written(PHOTO.convert("CMYK"), "JPEG"), "CMYK"),
    "deep.png": (written(Image.fromarray(GRADIENT.astype(np.uint16) * 257)), "16-bit grey"),
    "palette.png": (written(PHOTO.quantize(16)), "palette colours"),
    "clear.png": (clear(), "transparency laid over white"),
    "turned.jpg": (turned(), "turned as its EXIF says"),
    "one bit.png": (written(PHOTO.convert("1")), "black and white"),
    "strip.png": (written(PHOTO.resize((1200, 40))), ""),
}
UNREAD = {
    "truncated.jpg": (written(PHOTO, "JPEG")[:500], "cannot be decoded"),
    "truncated.png": (written(PHOTO)[:-80], "cannot be decoded"),
    "truncated.webp": (written(PHOTO, "WEBP")[:60], "cannot be decoded|not an image"),
    "empty.png": (b"", "the file is empty"),
    "text.jpg": (b"not a picture at all", "not an image"),
    "page.png": (b"<html><script>alert(1)</script></html>", "not an image"),
    "bomb.png": (bomb(), "megapixels, too many"),
    "float.tiff": (written(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF"), "floating-point"),
    "tiny.png": (written(PHOTO.resize((9, 9))), "too few to read"),
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, (data, _) in (READ | UNREAD).items():
        (pictures / name).write_bytes(data)
    for k, name in enumerate(NAMES):
        PHOTO.rotate(7 * k).save(pictures / name)
    (pictures / os.fsdecode(b"not \xff utf-8.png")).write_bytes(written(PHOTO.rotate(5)))
    (pictures / "broken link.png").symlink_to("nowhere")
    os.mkfifo(pictures / "pipe.png")
    (pictures / "folder.png").mkdir()
    (pictures / "notes.txt").write_text("not a picture")
    report = audit(pictures, gallery=True, batch=8)
    report.save(folder)
    return folder, report


def named(report):
    return {os.path.relpath(row["image"], os.path.commonpath(list(report.rows["image"]))): row for row in report.rows.to_dict("records")}


def test_every_file_has_its_row(audited):
    _, report = audited
    assert len(report.rows) == len(READ) + len(UNREAD) + len(NAMES) + 3
    assert report.summary["read"] == len(READ) + len(NAMES) + 1
    assert report.rows.loc[report.rows["error"] == "", "style_top"].ne("").all()


@pytest.mark.parametrize("name", READ)
def test_odd_pictures_are_read_and_noted(audited, name):
    row = named(audited[1])[name]
    assert row["error"] == ""
    assert READ[name][1] in row["notes"]


@pytest.mark.parametrize("name", [*UNREAD, "broken link.png", "pipe.png"])
def test_what_is_no_picture_says_why(audited, name):
    told = UNREAD[name][1] if name in UNREAD else {"broken link.png": "a link to a file that is not there", "pipe.png": "not a file"}[name]
    rows = audited[1].rows
    assert rows.loc[rows["image"].str.endswith(name), "error"].str.contains(told).all()
    assert name in named(audited[1])


def test_a_turned_picture_is_measured_as_it_is_seen(audited):
    row = named(audited[1])["turned.jpg"]
    assert (row["width"], row["height"]) == (40, 80)


def test_no_cell_of_the_table_is_a_formula(audited):
    folder, report = audited
    hostile = Report.of([{"image": name, "prompt": name, "group": f" {name}", "rating": name} for name in NAMES], {})
    hostile.to_csv(folder / "hostile.csv")
    for path, count in ((folder / "audit.csv", len(report.rows)), (folder / "hostile.csv", len(NAMES))):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert len(rows) == count + 1
        assert not [cell for row in rows for cell in row if cell.lstrip(" ").startswith(("=", "@", "+", "-", "\t", "\r", "\n"))]


def test_no_name_is_markup_on_the_page(audited):
    class Tags(HTMLParser):
        found: list

        def handle_starttag(self, tag, attributes):
            self.found.append((tag, dict(attributes)))

    reader = Tags()
    reader.found = []
    reader.feed((audited[0] / "audit.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in reader.found if tag == "img"]
    assert [tag for tag, _ in reader.found].count("script") == 2
    assert not [name for _, attributes in reader.found for name in attributes if name.startswith("on")]
