"""Every format of question files, and every error in them: reported with file and line."""

import csv
import gzip
import json
import math
import sys
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest
from support.pools import load

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.pool import arrow_files, columns, read, sources

SEPARATORS = "one\u2028two\u0085three\x0bfour"  # ends of lines to str.splitlines, and to nobody else
ROWS = [
    {"id": "a", "question": f"½ of 4? {SEPARATORS}", "answer": "2", "subject": "sums", "tags": "x;y", "level": "1"},
    {"id": "b", "question": "Größe, 答え, 🙂?", "answer": "-7", "subject": "", "tags": "z", "level": "2"},
]


def lines(rows=ROWS, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write_csv(path, delimiter=",", end="\n", bom=""):
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(bom)
        writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(ROWS)


def write_arrow(path, rows=ROWS, stream=True):
    table = pyarrow.Table.from_pylist(rows)
    kind = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def save_to_disk(folder, rows=ROWS):
    """What `datasets.Dataset.save_to_disk` leaves."""
    folder.mkdir(parents=True)
    for i, row in enumerate(rows):
        write_arrow(folder / f"data-{i:05d}-of-{len(rows):05d}.arrow", [row])
    listed = [{"filename": f"data-{i:05d}-of-{len(rows):05d}.arrow"} for i in range(len(rows))]
    (folder / "state.json").write_text(json.dumps({"_data_files": listed}))
    (folder / "dataset_info.json").write_text("{}")


FORMATS = {
    "plain.jsonl": lambda p: p.write_bytes(lines()),
    "crlf.jsonl": lambda p: p.write_bytes(lines(end="\r\n")),
    "bom.jsonl": lambda p: p.write_bytes(b"\xef\xbb\xbf" + lines()),
    "blank.ndjson": lambda p: p.write_bytes(b"\n  \r\n" + lines(end="\n\n")),
    "unended.jsonl": lambda p: p.write_bytes(lines().rstrip(b"\n")),
    "zip.jsonl.gz": lambda p: p.write_bytes(gzip.compress(lines())),
    "list.json": lambda p: p.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8"),
    "bom.json": lambda p: p.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    "zip.json.gz": lambda p: p.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "lines.json": lambda p: p.write_bytes(lines()),
    "named.json": lambda p: p.write_text(json.dumps({"x": ROWS[0], "y": ROWS[1]})),
    "plain.csv": write_csv,
    "crlf.csv": lambda p: write_csv(p, end="\r\n", bom="\ufeff"),
    "tabs.tsv": lambda p: write_csv(p, "\t"),
    "columns.parquet": lambda p: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), p),
    "stream.arrow": write_arrow,
    "file.arrow": lambda p: write_arrow(p, stream=False),
    "saved": save_to_disk,
    "splits": lambda p: (p.mkdir(), (p / "dataset_dict.json").write_text("{}"), save_to_disk(p / "train")),
    "folder": lambda p: (p.mkdir(), [(p / f"{i}.jsonl").write_bytes(lines([row])) for i, row in enumerate(ROWS)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_round_trip(tmp_path, name):
    FORMATS[name](tmp_path / name)
    a, b = load(tmp_path, tmp_path / name).questions
    assert (a.id, a.text, a.answer, a.subject, a.tags) == ("a", ROWS[0]["question"], "2", "sums", ("x", "y"))
    assert (b.id, b.text, b.answer, b.level, b.tags) == ("b", ROWS[1]["question"], "-7", "2", ("z",))


def test_what_datasets_saves_is_read_without_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert [q.text for q in load(tmp_path, tmp_path / "saved").questions] == [row["question"] for row in ROWS]


VALUES = [(27, "27"), (27.0, "27"), (0.5, "0.5"), (-1, "-1"), (1e22, "1" + 22 * "0"), (["7"], "7"), (" 8\r\n", "8")]


@pytest.mark.parametrize("name", ["v.jsonl", "v.parquet"])
@pytest.mark.parametrize("value, text", VALUES, ids=str)
def test_values_that_are_not_text(tmp_path, name, value, text):
    row = {"question": "q", "answer": value, "level": 3.0, "subject": None, "tags": ["a", None, " b "]}
    row |= {"alt_answers": [1.0, "x; y"], "id": 12}
    if name == "v.jsonl":
        (tmp_path / name).write_bytes(lines([row]))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "alt_answers": ["1", "x; y"]}]), tmp_path / name)
    (q,) = load(tmp_path, tmp_path / name).questions
    assert (q.answer, q.level, q.subject, q.tags, q.id) == (text, "3", "", ("a", "b"), "12")
    assert q.alt_answers == ("1", "x; y")


@pytest.mark.parametrize("answer", [None, math.nan, "", " \n", []], ids=repr)
def test_an_empty_answer_is_none(tmp_path, answer):
    (tmp_path / "p.jsonl").write_bytes(lines([ROWS[0], {"question": "q", "answer": answer}]))
    with pytest.raises(RunError, match=r"p\.jsonl:2: 'answer' is empty"):
        load(tmp_path, tmp_path / "p.jsonl")


def test_an_answer_that_is_no_finite_number_is_a_bad_row(tmp_path):
    for number in ("Infinity", "-Infinity", "1e999"):
        (tmp_path / "p.jsonl").write_bytes(lines([ROWS[0]]) + f'{{"question": "q", "answer": {number}}}\n'.encode())
        with pytest.raises(RunError, match=r"p\.jsonl:2: the answer is the number -?inf, which is not finite"):
            load(tmp_path, tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    "name, content, where, says",
    [
        ("x.jsonl", lines() + b'{"question": "\xff\xfe", "answer": "1"}\n', ":3", "not UTF-8: byte 0xff at 15"),
        ("x.jsonl", lines()[:-9], ":2", "not JSON"),
        ("x.json", b'[{"question": "q", "answer": "1"},\n\n {"question": 3', ":3", "nothing after it can be read"),
        ("x.json", b'[{"question": "q", "answer": "1"},\n "text"]', ":2", "expected a JSON object, got str"),
        ("x.json", b'[\n"\xff"]', ":2", "not UTF-8: byte 0xff"),
        ("x.json", b"nothing", "", "not JSON"),
        ("x.csv", b"question,answer\nq,1\n\n\xff,2\n", ":4", "not UTF-8"),
        ("x.csv", b'question,answer\n"two\nlines",1\nq,2,3\n', ":4", "3 cells where the first line has 2"),
        ("x.csv", b"question,question\n", ":1", "two columns are called 'question'"),
        (
            "x.csv",
            b"problem,answer\nq,1\n",
            "",
            "has no column 'question', but problem, answer: set pool.columns.question=problem",
        ),
        ("x.jsonl.gz", gzip.compress(lines(), mtime=0)[:-20], "", "compressed content is damaged or cut off"),
        ("x.jsonl.gz", b"plain", "", "compressed content is damaged"),
        ("x.parquet", b"PAR1 no", "", ": damaged, or its format is not the one of its name"),
        ("x.arrow", b"\xff\xff\xff\xff\x10\0\0\0", "", ": damaged"),
        ("x.txt", lines(), "", "its name must end with its format: .jsonl"),
    ],
)
def test_an_error_in_a_file_is_reported_with_its_place(tmp_path, name, content, where, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError) as error:
        load(tmp_path, tmp_path / name)
    assert f"{tmp_path / name}{where}" in str(error.value) and says in str(error.value)


def test_undecodable_texts_of_arrow_are_named_by_row(tmp_path):
    bad = pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"a\xff\xfeb")
    )
    table = pyarrow.table({"question": bad, "answer": ["1", "2", "3"]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    loaded = load(tmp_path, tmp_path / "x.parquet", on_bad="skip")
    assert [q.text for q in loaded.questions] == ["a", "b"]
    with pytest.raises(RunError, match=r"x\.parquet:2: not UTF-8"):
        load(tmp_path, tmp_path / "x.parquet")


def test_only_the_columns_that_are_needed_are_read(tmp_path):
    rows = [{**row, "messages": "long", "meta": {"kind": "k", "other": 1}} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    (_, row), _ = read.rows(tmp_path / "x.parquet", [("question",), ("answer",), ("meta.kind",)])
    assert set(row) == {"question", "answer", "meta"}


def test_without_pyarrow_the_extra_is_named(tmp_path):
    write_arrow(tmp_path / "x.arrow")
    with mock.patch.dict(sys.modules, {"pyarrow": None}), pytest.raises(RunError, match=r"hpc_saidpo\[data\]"):
        load(tmp_path, tmp_path / "x.arrow")


def test_nested_columns_and_alternatives(tmp_path):
    row = {
        "data": {"text": "q", "steps": [{"t": "one"}, {"t": "two"}]},
        "gold": {"a.b": 4},
        "kinds": [{"n": "x"}, {"n": "y"}],
    }
    (tmp_path / "x.json").write_text(json.dumps({"meta": {}, "in": {"rows": {"1": row}}}))
    names = {"question": ["question", "data.text"], "answer": "gold.a.b", "rows": "in.rows"}
    names |= {"solution": "data.steps.t", "tags": "kinds.n", "id": None}
    with pytest.raises(RunError, match=r"'gold\.a\.b' is missing"):
        load(tmp_path, tmp_path / "x.json", columns=names)
    row["gold"] = {"a": {"b": 4}}
    (tmp_path / "x.json").write_text(json.dumps({"meta": {}, "in": {"rows": {"1": row}}}))
    (q,) = load(tmp_path, tmp_path / "x.json", columns=names).questions
    assert (q.id, q.text, q.answer, q.solution, q.tags) == ("x-1", "q", "4", "one\ntwo", ("x", "y"))
    with pytest.raises(RunError, match=r"has no 'in\.nothing' \(pool\.columns\.rows\): there is rows"):
        load(tmp_path, tmp_path / "x.json", columns={**names, "rows": "in.nothing"})


@pytest.mark.parametrize(
    "solution, answer",
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{4} again \boxed{ 4 }", "4"),
        (r"\boxed 5$ and \fbox{5}", "5"),
        (r"\boxed{\{1, \boxed{2}\}}", r"\{1, \boxed{2}\}"),
        (r"\boxed{1} or \boxed{2}", "2 different boxes (1, 2)"),
        (r"\boxed{}", "is empty"),
        (r"\boxed{never closed", r"has no \boxed{...}"),
        ("", "no solution"),
    ],
)
def test_answers_in_boxes(tmp_path, solution, answer):
    (tmp_path / "x.jsonl").write_bytes(lines([{"question": "q", "solution": solution}]))
    names = {"answer_from": "boxed"}
    if " " in answer and "{1" not in answer:
        with pytest.raises(RunError) as error:
            load(tmp_path, tmp_path / "x.jsonl", columns=names)
        assert answer in str(error.value) and "x.jsonl:1" in str(error.value)
    else:
        assert load(tmp_path, tmp_path / "x.jsonl", columns=names).questions[0].answer == answer


@pytest.mark.parametrize("n, shown", [(2, "0, 1"), (4, "0, 1, 2, 3"), (5, "0, 1, 2, 3, ...")])
def test_different_boxes_are_listed_up_to_four(n, shown):
    texts_of = columns.make_mapper(settings.Columns(answer_from="boxed"))
    solution = " ".join(rf"\boxed{{{i}}}" for i in [*range(n), 0])
    with pytest.raises(columns.BadRow) as error:
        texts_of({"question": "q", "solution": solution})
    assert str(error.value) == f"the solution has {n} different boxes ({shown}): which is the answer?"


def test_answers_behind_hashes_and_answers_that_are_none(tmp_path):
    rows = [
        {"question": "a", "answer": "1 + 1\n#### 2"},
        {"question": "b", "answer": "no mark"},
        {"question": "c", "answer": "####"},
    ]
    (tmp_path / "x.jsonl").write_bytes(lines(rows))
    loaded = load(
        tmp_path,
        tmp_path / "x.jsonl",
        on_bad="skip",
        columns={"answer": None, "answer_from": "hash", "solution": "answer"},
    )
    assert [(q.answer, q.solution) for q in loaded.questions] == [("2", "1 + 1\n#### 2")] and "2 bad" in loaded.notes[0]
    (tmp_path / "y.jsonl").write_bytes(lines([{"question": "a", "answer": "proof"}]))
    with pytest.raises(RunError, match=r"the answer is 'proof': pool\.columns\.no_answer"):
        load(tmp_path, tmp_path / "y.jsonl", columns={"no_answer": ["proof"]})


def test_several_files_patterns_and_ids_of_their_own(tmp_path):
    for name in ("one/train.jsonl", "two/train.jsonl", "two/test.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([{"question": f"of {name}", "answer": 1}]))
    paths = tmp_path / "one/train.jsonl", tmp_path / "two"
    assert [q.id for q in load(tmp_path, paths, files="tr*").questions] == ["one/train-1", "two/train-1"]
    assert len(load(tmp_path, tmp_path / "*/train.jsonl").questions) == 2
    assert len(load(tmp_path, [*paths[:1], *paths[:1]]).questions) == 1
    with pytest.raises(RunError, match=r"splits test, train: choose .*pool\.files="):
        load(tmp_path, tmp_path / "two")
    with pytest.raises(RunError, match=r"pool\.files=x\* fits nothing in .*: there are test\.jsonl, train\.jsonl"):
        load(tmp_path, tmp_path / "two", files="x*")
    with pytest.raises(RunError, match="no file fits this pattern"):
        load(tmp_path, tmp_path / "*.nothing")
    (tmp_path / "one/train.csv").write_text("question,answer\n")
    with pytest.raises(RunError, match=r"several formats \(\.csv, \.jsonl\)"):
        load(tmp_path, tmp_path / "one")


def test_a_saved_dataset_that_lacks_a_file_or_a_choice(tmp_path):
    save_to_disk(tmp_path / "d/train")
    save_to_disk(tmp_path / "d/test")
    (tmp_path / "d/dataset_dict.json").write_text("{}")
    with pytest.raises(RunError, match=r"the splits test, train: choose one: pool\.files="):
        load(tmp_path, tmp_path / "d")
    assert len(load(tmp_path, tmp_path / "d", files="train/*.arrow").questions) == 2
    (tmp_path / "d/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(RunError, match=r"lacks data-00001-of-00002\.arrow of its 2 files"):
        load(tmp_path, tmp_path / "d/train")


def test_a_dataset_of_the_hub_is_found_in_the_local_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )
    repository = tmp_path / "hub/datasets--acme--sums"
    snapshot = repository / "snapshots" / (40 * "a")
    (snapshot / "data").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(40 * "a")
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), snapshot / name)
    assert len(load(tmp_path, "acme/sums", files="data/train-*.parquet").questions) == 2
    with pytest.raises(RunError, match=r"splits test, train.*pool\.files="):
        load(tmp_path, "acme/sums")
    with pytest.raises(RunError, match=r"pool\.path=acme/other: .*no dataset of that name in the local Hub cache"):
        load(tmp_path, "acme/other")


def test_only_ends_of_lines_count(tmp_path):
    assert list(sources.labels([tmp_path / "a.jsonl.gz"])) == ["a"]
    (tmp_path / "x.jsonl").write_bytes(lines([ROWS[0]]) + b"\n\r\nno\n")
    with pytest.raises(RunError, match=r"x\.jsonl:4: not JSON"):
        load(tmp_path, tmp_path / "x.jsonl")


def test_parquet_is_cut_into_spans_of_whole_row_groups(tmp_path):
    path = tmp_path / "pool.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": range(70)}), path, row_group_size=10)
    groups = pyarrow.parquet.ParquetFile(path).metadata
    n_bytes = [groups.row_group(i).total_byte_size for i in range(7)]
    spans = arrow_files.parquet_spans(path, n_bytes[0] + n_bytes[1])
    assert [(s.begin, s.end, s.first) for s in spans] == [(0, 2, 1), (2, 4, 21), (4, 6, 41), (6, 7, 61)]
    assert [s.n_bytes for s in spans] == [sum(n_bytes[s.begin : s.end]) for s in spans]
    assert [(s.begin, s.end) for s in arrow_files.parquet_spans(path, 1)] == [(i, i + 1) for i in range(7)]
    assert [(s.begin, s.end) for s in arrow_files.parquet_spans(path, 10**9)] == [(0, 7)]
