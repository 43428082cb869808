"""Reports: one frame of fixed columns, written for spreadsheets and programs, shown in a terminal."""

import copy
import csv
import io
import json

import pandas as pd
import pytest
import torch
from rich.console import Console

from probes.audit import audit
from probes.auditing.report import COLUMNS, Report

ROWS = [
    {
        "image": "a b.png",
        "seed": 3,
        "style_target": "baroque",
        "style_probability": 0.912345,
        "kept": True,
        "year": 1690.4,
        "year_low": 1601.0,
        "year_high": 1740.0,
        "verdict_style": "baroque",
        "verdict_style_probability": 0.88,
        "reason": "kept baroque 0.91",
    },
    {"image": "=cmd|'x'!A1,\n[bold]x[/].png", "error": "@not an image"},
]


def shown(report, width=160, **kwargs):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table(**kwargs))
    return console.export_text()


def test_a_report_is_used_like_its_frame():
    report = copy.copy(Report.of(ROWS, {"images": 2}))
    assert len(report) == 2
    assert isinstance(report, pd.DataFrame)
    assert report.summary == {"images": 2}
    assert type(report[report["error"] == ""]) is type(pd.DataFrame(report)) is type(report.rows) is pd.DataFrame
    assert list(report) == list(COLUMNS)
    assert report["year"][0] == 1690.4
    assert report.query("error == ''")["image"].tolist() == ["a b.png"]
    assert not hasattr(report, "nothing_of_this_name")


def test_columns_and_types_are_fixed():
    for rows in ([], ROWS):
        frame = Report.of(rows, {}).rows
        assert tuple(frame.columns) == COLUMNS
        assert str(frame["kept"].dtype) == "boolean"
        assert str(frame["seed"].dtype) == "Int64"
        assert str(frame["year"].dtype) == "float64"


def test_csv_holds_every_row_and_runs_no_formula(tmp_path):
    Report.of(ROWS, {}).to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["style_probability"] == "0.912345"
    assert (first["seed"], first["kept"], second["seed"], second["kept"]) == ("3", "True", "", "")
    assert second["image"] == "'" + ROWS[1]["image"]
    assert second["error"] == "'@not an image"


def test_json_is_strict_and_whole(tmp_path):
    Report.of(ROWS, {"kept": float("nan"), "styles": {"baroque": (1, 2)}}).to_json(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert found["summary"] == {"kept": None, "styles": {"baroque": [1, 2]}}
    assert found["rows"][0]["seed"] == 3
    assert found["rows"][1]["kept"] is None
    assert found["rows"][1]["image"] == ROWS[1]["image"]


def test_the_table_shows_readings_and_reasons():
    text = shown(Report.of(ROWS, {"sentences": ["baroque: kept in 1 of 1."]}))
    for part in ("probability of baroque", "0.91", "1690", "0.88", "yes", "Not read: =cmd", "@not an image", "kept in 1 of 1."):
        assert part in text
    assert "content" not in text  # nothing was asked of it


def test_odd_names_are_shown_as_they_are():
    text = shown(Report.of([{"image": "/some/[bold]x[/]\n\x1b[31m.png", "year": 1650.0}, {"image": "/some/b.png", "year": 1651.0}], {}))
    assert "[bold]x[/]\ufffd\ufffd[31m.png" in text
    assert "/some" not in text


@pytest.mark.parametrize("rows", [[], ROWS[1:], [ROWS[0]] * 2])
def test_any_table_fits_a_terminal(rows):
    assert all(len(line) <= 80 for line in shown(Report.of(rows, {}), width=80).splitlines())


@pytest.mark.parametrize(("name", "seen"), [
    ("seed-0000-guided.png", "seed-0000-guided.png"),
    ("a-very-long-name-of-a-picture-that-fits-no-terminal-0000-guided.png", "\N{HORIZONTAL ELLIPSIS}"),
])
def test_a_name_is_never_cut_into_pieces(name, seen):
    row = ROWS[0] | {"image": name, "style_top": "post-impressionism", "verdict_style": "post-impressionism", "variant": "guided"}
    console = Console(width=80, file=io.StringIO())
    console.print(Report.of([row, row | {"image": "b.png"}], {}).table(width=80))
    lines = console.file.getvalue().splitlines()
    line = next(line for line in lines if line.strip().startswith(name[:8]))
    assert seen in line
    assert line.split()[0].endswith("guided.png")
    assert all(len(line) <= 80 for line in lines)


def test_a_long_table_says_what_it_leaves_out():
    text = shown(Report.of([ROWS[0]] * 50, {}), limit=10)
    assert "The first 10 of 50 images" in text
    assert text.count("1690") == 10


def test_an_audit_is_saved_as_a_page_two_tables_and_one_object(tmp_path):
    report = audit(torch.rand(2, 3, 40, 40), judge=None)
    paths = report.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["audit.html", "audit.csv", "audit.parquet", "audit.json"]
    pd.testing.assert_frame_equal(pd.read_parquet(paths[2]), report.rows, check_dtype=False)
    said = json.loads(paths[3].read_text(), parse_constant=pytest.fail)
    assert (said["kind"], said["images"], said["judge"]) == ("audit", 2, None)
    assert "torch" in said["versions"]
    assert "rows" not in said
    assert said["data"]["images"] == "2 pictures handed in"
    assert len(said["heads"]["style"]["sha256"]) == 64


def test_notes_and_ratings_have_their_columns(tmp_path):
    rows = [{"image": "a.png", "notes": ["grey", "turned"], "rating": "4", "seed": 2**62 + 1}, {"image": "b.png", "human_style": "baroque"}]
    frame = Report.of(rows, {}).rows
    assert tuple(frame.columns) == (*COLUMNS, "rating", "human_style")
    assert frame["notes"].tolist() == ["grey; turned", ""]
    assert frame["seed"][0] == 2**62 + 1
