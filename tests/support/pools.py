"""Question pools from files, for tests: write the files, load the pool, read the lists of what was left out."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import generated, pieces, writer
from hpc_saidpo.pool.pool import Pool
from hpc_saidpo.pool.stage import load_pool
from hpc_saidpo.records import Question
from hpc_saidpo.store.run import RunDir

Paths = Path | str | Sequence[Path | str]


def run_dir(folder: Path, world: World | None = None) -> RunDir:
    """A run folder in `folder`, without configuration or lock."""
    return RunDir(folder / "runs/run", world or World(), {}, print)


def load(
    folder: Path,
    path: Paths,
    benchmarks: Mapping[str, Sequence[Question]] | None = None,
    world: World | None = None,
    **config: Any,
) -> Pool:
    """The pool of a run in `folder`, from one or several files."""
    several = isinstance(path, list | tuple)
    paths = tuple(map(str, path)) if several else str(path)
    return load_pool(settings.Files(path=paths, **config), run_dir(folder, world), benchmarks)


def left_out(folder: Path, name: str = "rejects") -> list[dict]:
    """The lines of a list of what was left out: rejects or contaminated."""
    return [json.loads(line) for path in folder.glob(f"runs/.shared/pool-*/{name}.jsonl") for line in path.open()]


def write_jsonl(path: Path, *rows: dict | str) -> str:
    """Write rows, or lines as they are; returns the path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def numbered(n: int, **others: Any) -> list[dict]:
    """The rows of n easy questions, with ids q0 ... and one tag."""
    return [
        {"id": f"q{i}", "question": f"What is {i} + 1?", "answer": i + 1, "tags": "sums", **others} for i in range(n)
    ]


LONG = "The sum of the first {} odd numbers is asked, and then the sum of their squares, {} times over"
BENCHMARKS = {"b": [Question("7", "What is 7 + 1?", "8"), Question("long", LONG.format(3, 4), "0")]}
Whole = tuple[Pool, list[list[dict]], dict]


def load_whole(folder: Path, path: Paths, world: World | None = None, **config: Any) -> Whole:
    """The pool without the questions of BENCHMARKS, the lines of its two lists, and its manifest."""
    pool = load(folder, path, BENCHMARKS, world, on_bad="skip", **config)
    (stage,) = (folder / "runs/.shared").glob("pool-*")
    return (
        pool,
        [left_out(folder, name) for name in ("rejects", "contaminated")],
        json.loads((stage / "DONE").read_text())["files"],
    )


def contents(pool: Pool) -> tuple:
    """Everything of a pool that does not depend on its place."""
    questions = [[(q.id, q.text, q.answer, q.tags) for q in part] for part in (pool.questions, pool.held_out)]
    return questions, pool.fingerprint, pool.notes[0]


def mixed_rows(rng: random.Random, n: int) -> Iterator[dict]:
    """Questions that repeat each other, each other's ids, and those of the benchmark."""
    for _ in range(n):
        i = rng.randrange(n // 2)
        text = rng.choice(
            [f"What is {i} + 1?", f" What  is\n{i} + 1? ", f"½ of {i}?", f"1⁄2 of {i}?", LONG.format(i % 6, 4), "  "]
        )
        row = {"question": text, "answer": rng.choice(["1", "2"]), "solution": "Größe 🙂" * rng.randrange(9)}
        yield row | ({"id": f"i{rng.randrange(n)}"} if rng.random() < 0.7 else {})


def write_rough_lines(path: Path, rng: random.Random, rows: Sequence[dict]) -> None:
    """JSON lines with all that lines may come with: other ends, a byte order mark, bad rows, no last end."""
    end = rng.choice(["\n", "\r\n"])
    lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5).encode() for row in rows]
    for _ in range(len(lines) // 5):
        bad = [b"", b"  ", b"[1]", b'{"question": "q"', b'{"question": "\xff", "answer": 1}', b'{"question": "x"}']
        lines.insert(rng.randrange(len(lines)), rng.choice(bad))
    whole = end.encode().join(lines) + rng.choice([b"", end.encode()])
    path.write_bytes(rng.choice([b"", b"\xef\xbb\xbf"]) + whole)


def write_mixed_files(folder: Path, seed: int) -> list[Path]:
    """Files of several formats, with all kinds of rows."""
    rng = random.Random(seed)
    names = ["a.jsonl", "b.ndjson", "c.jsonl", "d.jsonl.gz", "e.parquet", "f.json", "g.jsonl"]
    for name in names:
        rows = list(mixed_rows(rng, 24))
        if name.endswith(".gz"):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name).write_bytes(gzip.compress(lines.encode(), mtime=0))
        elif name.endswith(".parquet"):
            table = pyarrow.Table.from_pylist([{"id": None, **row} for row in rows])
            pyarrow.parquet.write_table(table, folder / name, row_group_size=3)
        elif name.endswith(".json"):
            (folder / name).write_text(json.dumps(rows))  # on one line
        else:
            write_rough_lines(folder / name, rng, rows)
    return [folder / name for name in names]


def use_small_pieces(monkeypatch: pytest.MonkeyPatch, n_bytes: int, n_rows: int) -> None:
    """Cut files into pieces and chunks that are small enough for a test."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", n_bytes)
    monkeypatch.setattr(writer, "CHUNK_ROWS", n_rows)
    monkeypatch.setattr(writer, "BATCH_ROWS", 3)


def write_arithmetic(path: Path, n: int) -> None:
    """Write `n` questions of pool=arithmetic as a file."""
    made = generated.make(settings.Arithmetic(n=n, held_out=0)).questions
    names = ("id", "answer", "solution", "subject", "level")
    rows = [{"question": q.text, "tags": q.tags, **{name: getattr(q, name) for name in names}} for q in made]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
