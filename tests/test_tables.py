"""Tables of text: which rows are read, which are not, and that none costs another."""

import pytest

from probes import tables


def rows(folder, text, name="list.csv"):
    """Of each row its line, and its cells or what is wrong with it."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    found = tables.read(folder / name)
    names = [name for name in found.columns if name not in (tables.LINE, tables.TROUBLE)]
    said = found.to_dict("records")
    return [(row[tables.LINE], row.get(tables.TROUBLE) or [row[name] for name in names]) for row in said]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_with_another_number_of_fields_are_named_by_their_line(tmp_path, separator, end):
    text = "a,b,c|1,2,3|4,5||6,7,8,9|10,11,12,,|,,|x".replace(",", separator).replace("|", end)
    assert rows(tmp_path, text) == [
        (2, ["1", "2", "3"]), (3, "line 3 has 2 fields, the table 3 columns"), (5, "line 5 has 4 fields, the table 3 columns"),
        (6, ["10", "11", "12"]), (7, ["", "", ""]), (8, "line 8 has 1 field, the table 3 columns")]  # fmt: skip


def test_a_field_may_hold_quotes_separators_and_line_breaks(tmp_path):
    text = '\ufefffile_name,prompt\n"odd, ""name"".png","two\nlines"\nb.png,5" nails\nc.png,"a "b" c"\n'
    assert rows(tmp_path, text) == [(2, ['odd, "name".png', "two\nlines"]), (4, ["b.png", '5" nails']), (5, ["c.png", 'a b" c"'])]


@pytest.mark.parametrize("last", ["", '\nc.png,"fine"', '\nc.png,"x" y'])
def test_a_quote_that_nothing_closes_swallows_no_other_row(tmp_path, last):
    found = rows(tmp_path, 'file_name,prompt\na.png,"open\nb.png,lemons' + last)
    assert found[:2] == [(2, ["a.png", '"open']), (3, ["b.png", "lemons"])]
    assert [cells[0] for _, cells in found] == ["a.png", "b.png", "c.png"][:len(found)]
    assert len(found) == 2 + bool(last)


def test_an_enormous_field_costs_its_row_alone(tmp_path):
    found = rows(tmp_path, "file_name,prompt\na.png," + "x" * 200_000 + '\nb.png,"lemons"\n')
    assert found[-1] == (3, ["b.png", "lemons"])


def test_a_trailing_separator_on_every_row_shifts_no_column(tmp_path):
    assert rows(tmp_path, "a,b\n1,2,\n3,4,\n") == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_columns_of_one_name_or_none_are_told_apart(tmp_path):
    (tmp_path / "list.csv").write_text("a,a,,\n1,2,3,4\n")
    assert tables.read(tmp_path / "list.csv").columns.tolist() == [tables.LINE, "a", "a 2", "unnamed 3", "unnamed 4"]


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("\n\n", "empty"), ("a,b\n1\n2,3,4\n", "line 2 has 1 field")])
def test_a_table_without_a_whole_row_is_no_table(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        rows(tmp_path, text)


def test_lines_of_json_keep_their_types_and_their_lines(tmp_path):
    assert rows(tmp_path, '{"a": 1}\n\n{"a": \n[2]\n{"a": 3}', "list.jsonl") == [
        (1, [1]), (3, "line 3 is not JSON (Expecting value: line 1 column 7 (char 6))"),
        (4, "line 4 is no object with names and values"), (5, [3])]  # fmt: skip
