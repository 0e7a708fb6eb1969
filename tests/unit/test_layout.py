"""Tables and paragraphs fit the width of the terminal."""

import os
import subprocess
import sys
import termios

import pytest

from hpc_saidpo.layout import aligned, paragraph

TABLE = [["run", "accuracy", "pairs", "state"], ["first", "12.5 %", "1,000", "complete"], ["b", "-", "7", "going on"]]


@pytest.mark.parametrize("width", [0, 80, 32])
def test_a_table_that_fits_is_one(width):
    assert aligned(TABLE, width) == [
        "run    accuracy  pairs  state",
        "first  12.5 %    1,000  complete",
        "b      -         7      going on",
    ]


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


def test_a_letter_of_two_columns_takes_two():
    assert aligned([["名前", "n"], ["ab", "1"]]) == ["名前  n", "ab    1"]


def test_the_width_of_a_pipe_is_that_of_columns_or_none(monkeypatch):
    width = [sys.executable, "-c", "from hpc_saidpo.screen import output_width; print(output_width())"]
    for value, expected in (("", "0"), ("80", "80"), ("wide", "0")):
        done = subprocess.run(width, env={**os.environ, "COLUMNS": value}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_the_width_of_a_terminal_is_its_own(tmp_path):
    """Also when standard error goes elsewhere; and a file has none, whatever terminal standard error is."""
    answer, (screen_end, terminal) = tmp_path / "width", os.openpty()
    termios.tcsetwinsize(terminal, (24, 60))
    ask = f"from hpc_saidpo.screen import output_width; print(output_width(), end='', file=open({str(answer)!r}, 'w'))"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    try:
        for places, expected in (({"stdout": terminal}, "60"), ({"stdout": subprocess.PIPE, "stderr": terminal}, "0")):
            subprocess.run([sys.executable, "-c", ask], env=environment, check=True, **places)
            assert answer.read_text() == expected
    finally:
        os.close(screen_end), os.close(terminal)
