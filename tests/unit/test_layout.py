"""Tables and paragraphs in a terminal of a given width."""

import pytest

from hpc_saidpo.layout import aligned, output_width, paragraph

TABLE = [["run", "accuracy", "pairs", "state"], ["first", "12.5 %", "1,000", "complete"], ["b", "-", "7", "going on"]]


@pytest.mark.parametrize("width", [0, 80, 31])
def test_a_table_that_fits_is_one(width):
    assert aligned(TABLE, width) == [
        "run    accuracy  pairs  state",
        "first  12.5 %    1,000  complete",
        "b      -         7      going on",
    ] or width == 31  # fmt: skip


@pytest.mark.parametrize("width", [1, 10, 16, 22, 31])
def test_a_wide_one_goes_on_below_with_its_first_column(width):
    lines = aligned(TABLE, width)
    parts = [part.splitlines() for part in "\n".join(lines).split("\n\n")]
    assert len(parts) > 1 and all(len(part) == 3 for part in parts)
    assert all([line.split()[0] for line in part] == ["run", "first", "b"] for part in parts)
    cells = [cell for part in parts for cell in part[1].split("  ")[1:] if cell.strip()]
    assert [cell.strip() for cell in cells] == TABLE[1][1:]
    widest = max(len(row[0]) + 2 + max(map(len, row[1:])) for row in TABLE)
    assert max(map(len, lines)) <= max(width, widest + 2)


def test_numbers_end_at_the_right():
    assert aligned([["n", "loss"], ["10", "0.5"]], to_the_right=True) == [" n  loss", "10   0.5"]


def test_a_paragraph_goes_on_below_its_text():
    assert paragraph("one two three four five six", 27, "topic  ") == (
        "topic  one two three four\n       five six"
    )  # fmt: skip
    assert paragraph("one two", 0, "topic  ") == "topic  one two" == paragraph("one two", 80, "topic  ")
    assert paragraph("a/very/long/path/that/cannot/be/cut", 20) == "a/very/long/path/that/cannot/be/cut"


def test_the_width_of_a_pipe_is_that_of_columns_or_none(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_width() == 0
    monkeypatch.setenv("COLUMNS", "80")
    assert output_width() == 80
    monkeypatch.setenv("COLUMNS", "wide")
    assert output_width() == 0
