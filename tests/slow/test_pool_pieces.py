"""Files read in pieces: no piece or chunk leaves a trace in the pool. Compared with reading row by row."""

import gzip
import json
import unicodedata

import numpy as np
import pytest
from support.pools import contents, load_whole, use_small_pieces, write_mixed_files

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import clean, marks, pieces, read, writer
from hpc_saidpo.pool.questions import read_questions


def plainly(paths):
    """(ids that stay, [(where, kind, reason)] of what does not), row by row."""
    texts, ids, kept, left = {}, {}, [], []
    for path, label in zip(paths, "abcdefg", strict=True):
        for line, row in clean.rows(path, label, settings.Columns()):
            where = f"{path}:{line}"
            if isinstance(row, clean.Problem):
                left.append((where, "bad", row.reason))
                continue
            id, text, answer, *_ = row
            key = " ".join(unicodedata.normalize("NFKC", text).split())
            if key in texts:
                first, other = texts[key]
                more = "" if other == answer else f", where the answer is {other!r}"
                left.append((where, "conflict" if more else "duplicate", f"the same question as {first}{more}"))
                continue
            texts[key] = where, answer
            if id in ids:
                left.append((where, "bad", clean.describe_used_id(id, ids[id])))
                continue
            ids[id] = where
            kept.append(id)
    return kept, left


@pytest.mark.parametrize("seed", range(2))
def test_pieces_do_not_show_in_what_comes_of_a_pool(tmp_path, monkeypatch, seed):
    paths = write_mixed_files(tmp_path, seed)
    whole, lines, _ = load_whole(tmp_path / "whole", paths, held_out=9)
    kept, left = plainly(paths)
    contaminated = [row["id"] for row in lines[1]]
    ids = {q.id for q in (*whole.questions, *whole.held_out)}
    assert [(p["where"], p["kind"], p["reason"]) for p in lines[0]] == left
    assert {kind for _, kind, _ in left} == {"bad", "duplicate", "conflict"}
    assert contaminated and [id for id in kept if id in contaminated] == contaminated
    assert ids == set(kept) - set(contaminated) and [q.id for q in whole.questions] == [
        id for id in kept if id in {q.id for q in whole.questions}
    ]
    for n_bytes, n_rows in ((900, 4), (2000, 1000)):
        use_small_pieces(monkeypatch, n_bytes, n_rows)
        cut, cut_lines, _ = load_whole(tmp_path / f"cut-{n_bytes}", paths, held_out=9)
        assert contents(cut) == contents(whole) and cut_lines == lines


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_bytes", [1, 50, 200, 4000, 10**6])
def test_pieces_hold_every_line_once_with_its_number(tmp_path, monkeypatch, seed, n_bytes):
    monkeypatch.setattr(pieces, "PIECE_BYTES", n_bytes)
    paths = write_mixed_files(tmp_path, seed)
    plan = pieces.plan(paths, World())
    columns = [("question",), ("id",)]
    found = [
        (part.file, *item)
        for piece in plan
        for part in piece
        for item in read.rows(paths[part.file], columns, None, part.span)
    ]
    assert found == [(i, *item) for i, path in enumerate(paths) for item in read.rows(path, columns)]
    assert len(plan) == 1 or n_bytes < 10**6
    assert len(plan) > len(paths) or n_bytes > 200


def test_an_empty_file_and_thirteen_lines_longer_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10)
    paths = [tmp_path / "empty.jsonl", tmp_path / "long.jsonl"]
    paths[0].write_bytes(b"")
    paths[1].write_text("".join(json.dumps({"question": n * "x", "answer": 1}) + "\n" for n in (1, 999, *range(2, 13))))
    loaded, _, manifest = load_whole(tmp_path, paths)
    assert [q.id for q in loaded.questions] == [f"long-{i}" for i in range(1, 14)]
    assert any(name.startswith("chunk-12000000.") for name in manifest)  # a million numbers for each piece


def test_small_files_share_a_chunk_and_large_ones_are_cut(tmp_path, monkeypatch):
    for i in range(9):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"question": f"q{i}", "answer": i}) + "\n")
    loaded, _, manifest = load_whole(tmp_path / "small", tmp_path / "?.jsonl")
    assert len(loaded.questions) == 9 and len([name for name in manifest if name.startswith("chunk")]) == 1
    content = "".join(json.dumps({"question": f"q{i} {'long ' * 50}", "answer": i}) + "\n" for i in range(40))
    (tmp_path / "large.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    monkeypatch.setattr(writer, "BATCH_ROWS", 2)
    monkeypatch.setattr(writer, "CHUNK_CHARACTERS", 1000)
    loaded, _, manifest = load_whole(tmp_path / "large", tmp_path / "large.jsonl.gz")
    assert [q.answer for q in loaded.questions] == list(map(str, range(40)))
    assert len([name for name in manifest if name.startswith("chunk")]) == 10


def test_first_of_equal_hashes():
    rng = np.random.default_rng(0)
    hash_NH = rng.integers(0, 4, (200, 2), dtype=np.uint64) << np.uint64(62)
    first = {}
    assert marks.first_of(hash_NH).tolist() == [
        first.setdefault(tuple(row), i) for i, row in enumerate(hash_NH.tolist())
    ]
    assert marks.first_of(hash_NH[:0]).tolist() == []


def test_repeats_within_one_line_are_found(tmp_path):
    row = {"id": "a", "question": "1?", "answer": 1}
    (tmp_path / "p.json").write_text(json.dumps([row, row, {**row, "question": "2?"}]))
    loaded, (rejects, _), _ = load_whole(tmp_path, tmp_path / "p.json")
    assert [q.text for q in loaded.questions] == ["1?"] and [r["kind"] for r in rejects] == ["duplicate", "bad"]
    with pytest.raises(RunError, match=r"2 of 3 rows(?s:.*)id 'a' was already used in .*p\.json:1: "):
        read_questions(str(tmp_path / "p.json"))
