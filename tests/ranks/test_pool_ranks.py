"""A pool's files read by all ranks in pieces: the same pool, to the byte, as when one rank reads them whole."""

import gzip
import json
import random
import unicodedata

import numpy as np
import pyarrow.parquet
import pytest
from support.program import start

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import clean, marks, pieces, read, stage, writer
from hpc_saidpo.pool.questions import read_questions
from hpc_saidpo.records import Question
from hpc_saidpo.store.run import RunDir

LONG = "The sum of the first {} odd numbers is asked, and then the sum of their squares, {} times over"
ASKED = {"b": [Question("7", "What is 7 + 1?", "8"), Question("long", LONG.format(3, 4), "0")]}


def load(folder, path, world=None, **settings):
    """(what was loaded, the lines of its lists, its manifest)"""
    store = RunDir(folder / "runs/run", world or World(), {}, print)
    paths = [str(p) for p in path] if isinstance(path, list) else str(path)
    loaded = stage.load(settings.Files(path=paths, on_bad="skip", **settings), store, ASKED)
    (made,) = (folder / "runs/.shared").glob("pool-*")
    lists = [made / f"{name}.jsonl" for name in ("rejects", "contaminated")]
    lines = [[json.loads(line) for line in p.open()] if p.exists() else [] for p in lists]
    return loaded, lines, json.loads((made / "DONE").read_text())["files"]


def seen(loaded):
    questions = [[(q.id, q.text, q.answer, q.tags) for q in part] for part in (loaded.questions, loaded.held_out)]
    return questions, loaded.fingerprint, loaded.notes[0]


def rows(rng, n):
    """Questions that repeat each other, each other's ids, and those of the benchmark."""
    for _ in range(n):
        i = rng.randrange(n // 2)
        text = rng.choice(
            [f"What is {i} + 1?", f" What  is\n{i} + 1? ", f"½ of {i}?", f"1⁄2 of {i}?", LONG.format(i % 6, 4), "  "]
        )
        row = {"question": text, "answer": rng.choice(["1", "2"]), "solution": "Größe 🙂" * rng.randrange(9)}
        yield row | ({"id": f"i{rng.randrange(n)}"} if rng.random() < 0.7 else {})


def write_lines(path, rng, found):
    """JSON lines with all that lines may come with."""
    end = rng.choice(["\n", "\r\n"])
    lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5).encode() for row in found]
    for _ in range(len(lines) // 5):
        bad = [b"", b"  ", b"[1]", b'{"question": "q"', b'{"question": "\xff", "answer": 1}', b'{"question": "x"}']
        lines.insert(rng.randrange(len(lines)), rng.choice(bad))
    whole = end.encode().join(lines) + rng.choice([b"", end.encode()])
    path.write_bytes(rng.choice([b"", b"\xef\xbb\xbf"]) + whole)


def write_files(folder, seed):
    rng = random.Random(seed)
    names = ["a.jsonl", "b.ndjson", "c.jsonl", "d.jsonl.gz", "e.parquet", "f.json", "g.jsonl"]
    for name in names:
        found = list(rows(rng, 24))
        if name.endswith(".gz"):
            (folder / name).write_bytes(
                gzip.compress("".join(json.dumps(row) + "\n" for row in found).encode(), mtime=0)
            )
        elif name.endswith(".parquet"):
            table = pyarrow.Table.from_pylist([{"id": None, **row} for row in found])
            pyarrow.parquet.write_table(table, folder / name, row_group_size=3)
        elif name.endswith(".json"):
            (folder / name).write_text(json.dumps(found))  # on one line
        else:
            write_lines(folder / name, rng, found)
    return [folder / name for name in names]


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
                left.append((where, "bad", clean.used(id, ids[id])))
                continue
            ids[id] = where
            kept.append(id)
    return kept, left


def in_small_pieces(monkeypatch, n_bytes, n_rows):
    monkeypatch.setattr(pieces, "PIECE_BYTES", n_bytes)
    monkeypatch.setattr(writer, "CHUNK_ROWS", n_rows)
    monkeypatch.setattr(writer, "BATCH_ROWS", 3)


@pytest.mark.mpi
@pytest.mark.parametrize("seed, n_bytes, n_rows", [(0, 900, 4), (1, 600, 1000)])
def test_the_same_files_on_any_number_of_ranks(folder, world, monkeypatch, seed, n_bytes, n_rows):
    in_small_pieces(monkeypatch, n_bytes, n_rows)
    paths = world.on_root(lambda: write_files(folder, seed))
    loaded, lines, manifest = load(folder, paths, world, held_out=9)
    alone, *own = load(folder / f"alone-{world.rank}", paths, held_out=9)
    assert [lines, manifest] == own and seen(loaded) == seen(alone)
    assert len([name for name in manifest if name.startswith("chunk")]) > 1
    assert not any(name.startswith(("marks", "bad")) for name in manifest)


@pytest.mark.parametrize("seed", range(4))
def test_pieces_do_not_show_in_what_comes_of_a_pool(tmp_path, monkeypatch, seed):
    paths = write_files(tmp_path, seed)
    whole, lines, _ = load(tmp_path / "whole", paths, held_out=9)
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
        in_small_pieces(monkeypatch, n_bytes, n_rows)
        cut, cut_lines, _ = load(tmp_path / f"cut-{n_bytes}", paths, held_out=9)
        assert seen(cut) == seen(whole) and cut_lines == lines


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_bytes", [1, 50, 200, 4000, 10**6])
def test_pieces_hold_every_line_once_with_its_number(tmp_path, monkeypatch, seed, n_bytes):
    monkeypatch.setattr(pieces, "PIECE_BYTES", n_bytes)
    paths = write_files(tmp_path, seed)
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


def test_an_empty_file_and_a_line_longer_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10)
    paths = [tmp_path / "empty.jsonl", tmp_path / "long.jsonl"]
    paths[0].write_bytes(b"")
    paths[1].write_text("".join(json.dumps({"question": n * "x", "answer": 1}) + "\n" for n in (1, 999, 2)))
    assert [q.id for q in load(tmp_path, paths)[0].questions] == ["long-1", "long-2", "long-3"]


def test_small_files_share_a_chunk_and_large_ones_are_cut(tmp_path, monkeypatch):
    for i in range(9):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"question": f"q{i}", "answer": i}) + "\n")
    loaded, _, manifest = load(tmp_path / "small", tmp_path / "?.jsonl")
    assert len(loaded.questions) == 9 and len([name for name in manifest if name.startswith("chunk")]) == 1
    content = "".join(json.dumps({"question": f"q{i} {'long ' * 50}", "answer": i}) + "\n" for i in range(40))
    (tmp_path / "large.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    monkeypatch.setattr(writer, "BATCH_ROWS", 2)
    monkeypatch.setattr(writer, "CHUNK_CHARACTERS", 1000)
    loaded, _, manifest = load(tmp_path / "large", tmp_path / "large.jsonl.gz")
    assert [q.answer for q in loaded.questions] == list(map(str, range(40)))
    assert len([name for name in manifest if name.startswith("chunk")]) == 10


@pytest.mark.mpi
def test_a_damaged_file_ends_all_ranks_with_its_name(folder, world, monkeypatch):
    in_small_pieces(monkeypatch, 1, 4)
    damaged = [folder / f"{i}.jsonl.gz" for i in range(2, 6)]

    def write():
        paths = [folder / f"{i}.jsonl" for i in range(2)]
        for path in paths:
            write_lines(path, random.Random(0), [{"question": f"{path} {i}?", "answer": i} for i in range(8)])
        for path in damaged:
            path.write_bytes(gzip.compress(b'{"question": "q", "answer": 1}\n' * 99)[:-9])
        return [*paths, *damaged]

    paths = world.on_root(write)
    with pytest.raises(RunError, match=rf"{damaged[0]}: its compressed content is damaged or cut off"):
        load(folder, paths, world)
    assert {path.suffix for path in (folder / "runs/.shared").iterdir()} <= {".lock"}  # root gives it back last
    assert world.gather(world.rank) == list(range(world.size))


@pytest.mark.mpi
def test_a_rank_that_cannot_read_ends_all(folder, world, monkeypatch):
    in_small_pieces(monkeypatch, 1, 4)
    path = folder / "p.jsonl"
    world.on_root(lambda: path.write_text("".join(f'{{"question": "{i}?", "answer": 1}}\n' for i in range(30))))
    rows_of = clean.rows

    def torn(path, label, config, span, verifier):
        if world.rank == world.size - 1 and span.first >= 20:
            raise RunError(f"{path}:{span.first}: cannot be read")
        return rows_of(path, label, config, span, verifier)

    monkeypatch.setattr(clean, "rows", torn)
    with pytest.raises(RunError, match=rf"{path}:[23]\d: cannot be read"):
        load(folder, path, world)
    assert {path.suffix for path in (folder / "runs/.shared").iterdir()} <= {".lock"}  # root gives it back last


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
    loaded, (rejects, _), _ = load(tmp_path, tmp_path / "p.json")
    assert [q.text for q in loaded.questions] == ["1?"] and [r["kind"] for r in rejects] == ["duplicate", "bad"]
    with pytest.raises(RunError, match=r"2 of 3 rows(?s:.*)id 'a' was used in .*p\.json:1 already"):
        read_questions(str(tmp_path / "p.json"))


@pytest.mark.e2e
def test_the_program_ends_with_one_message(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(4):
        content = gzip.compress(b'{"question": "q", "answer": 1}\n' * 99)
        (folder / f"{i}.jsonl.gz").write_bytes(content[: -9 * (i > 1)] or content)
    given = ("experiment=tiny", "pool=jsonl", f"pool.path={folder}", "pool.held_out=5", f"run.root={tmp_path}/runs")
    done = start(*given, ranks=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("compressed content is damaged") == 1 and f"{folder}/2.jsonl.gz" in done.stderr
