#!/usr/bin/env python3
"""Measure the store: how fast rollouts are written and read back, and how large they are, beside plain HDF5 layouts.

    tools/bench/bench_store.py --quick
    tools/bench/bench_store.py --json bench.json

First a table of layouts, all of the same rollouts: 600-byte texts of words with Zipf's frequencies, and every other
column. Each repeat goes through all layouts, and medians are shown. Writing counts CPU-seconds, encoding included;
reading is wall-clock time of random batches of 1,000 texts, files open, offsets in memory, pages cached. Everything
carries Fletcher32 checksums, except variable-length texts: HDF5 refuses checksums and compression for them.

Then a run of 10,000,000 rollouts is written shard by shard into a temporary folder (about 3 GB, removed afterwards;
TMPDIR says where; --rows for fewer), and a fresh process lists it, numbers only, and reads 1,000 random texts.
--quick takes fewer rows and repeats, and 1,000,000 rollouts (0.3 GB): about a minute.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar
from unittest import mock

import common

common.start()

import h5py
import numpy as np

from hpc_saidpo.records import Rollouts
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.store.stored import StoredRows
from hpc_saidpo.table import Ids

TEXT_BYTES = 600
VOCABULARY = 5000
SAMPLES = 8  # of one question
SHARD_ROWS = 32_768
BLOCK_BYTES = 32 * 1024
BLOCK_ROWS = 8192
BATCH = 1000
READS = 5  # random batches in one repeat
TEXT = h5py.string_dtype()
UNITS = ("s", "peak_mib", "text_bytes", "file_bytes")
LABELS = {
    "listing": "listing, numbers only", "sample": f"{BATCH:,} random texts, first time",
    "sample_again": f"{BATCH:,} other random texts",
}  # fmt: skip

Read = Callable[[np.ndarray], list[str]]  # the texts of ascending rows
Write = Callable[[Path, Rollouts], None]
T = TypeVar("T")


def make_rollouts(n: int, seed: int = 0) -> Rollouts:
    """Rollouts sorted by question and sample, with texts of random words."""
    rng = np.random.default_rng(seed)
    letters = list("etaoinshrdlucmfwypvbgkjqxz")
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(VOCABULARY)]
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    drawn = rng.choice(VOCABULARY, n * TEXT_BYTES // 3, p=frequency / frequency.sum())  # a word and a blank: 3 or more
    content = " ".join([words[i] for i in drawn])
    question = np.arange(n) // SAMPLES
    return Rollouts(
        question_R=question,
        sample_R=np.arange(n) % SAMPLES,
        verdict_R=rng.integers(0, 2, n),
        n_tokens_R=rng.integers(50, 400, n),
        n_steps_R=rng.integers(1, 9, n),
        finished_R=rng.random(n) < 0.9,
        seed_R=rng.integers(0, 2**63, n).astype(np.uint64),
        seconds_R=rng.random(n),
        id_R=[f"pool-{q}" for q in question],
        text_R=[content[i * TEXT_BYTES : (i + 1) * TEXT_BYTES] for i in range(n)],
    )


def write_shard(stage: Stage, index: int, table: Rollouts) -> None:
    stage.write(f"shard-{index:06d}-{index:06d}", table, first_chunk=index, last_chunk=index)


# Each layout has a function that writes a table into a folder, and one that opens it for reading.
def write_ours(folder: Path, table: Rollouts) -> None:
    stage = Stage(folder)
    for index, start in enumerate(range(0, len(table), SHARD_ROWS)):
        write_shard(stage, index, table.take(np.arange(start, min(start + SHARD_ROWS, len(table)))))


@contextmanager
def open_ours(folder: Path) -> Iterator[Read]:
    table = Stage(folder).read_chunks(Rollouts).sorted()
    yield lambda rows: table.take(rows).text_R.read(np.arange(len(rows)))


def plain_file(folder: Path, table: Rollouts, **filters) -> h5py.File:
    """A new file with the columns that are numbers, each written at once."""
    file = h5py.File(folder / "plain.h5", "w")
    for f in fields(table):
        if f.metadata["dtype"] not in (str, Ids):  # these have no token ids
            column = np.asarray(getattr(table, f.name), dtype=f.metadata["dtype"])
            file.create_dataset(f.name, data=column, chunks=(min(BLOCK_ROWS, len(column)),), fletcher32=True, **filters)
    return file


def write_variable(batch: int) -> Write:
    def write(folder: Path, table: Rollouts) -> None:
        with plain_file(folder, table) as file:
            for name in ("id_R", "text_R"):
                column = getattr(table, name)
                texts = file.create_dataset(name, (len(table),), TEXT, chunks=(BATCH,))  # takes no filters
                for start in range(0, len(table), batch):
                    texts[start : start + batch] = column[start] if batch == 1 else column[start : start + batch]

    return write


@contextmanager
def open_variable(folder: Path) -> Iterator[Read]:
    with h5py.File(folder / "plain.h5") as file:
        texts = file["text_R"]
        yield lambda rows: [text.decode() for text in texts[rows]]  # five times as fast as one by one


def write_flat(**filters) -> Write:
    def write(folder: Path, table: Rollouts) -> None:
        with plain_file(folder, table, **({"shuffle": True} if filters else {}), **filters) as file:
            for name in ("id_R", "text_R"):
                encoded = [text.encode() for text in getattr(table, name)]
                content = np.frombuffer(b"".join(encoded), dtype=np.uint8)
                blocks = (min(BLOCK_BYTES, len(content)),)
                file.create_dataset(f"{name}/bytes", data=content, chunks=blocks, fletcher32=True, **filters)
                offsets = np.cumsum([0, *map(len, encoded)])
                file.create_dataset(
                    f"{name}/offsets", data=offsets, chunks=(BLOCK_ROWS,), shuffle=bool(filters), fletcher32=True,
                    **filters,
                )  # fmt: skip

    return write


@contextmanager
def open_flat(folder: Path) -> Iterator[Read]:
    with h5py.File(folder / "plain.h5") as file:
        content, offsets = file["text_R/bytes"], file["text_R/offsets"][:].tolist()
        yield lambda rows: [content[offsets[r] : offsets[r + 1]].tobytes().decode() for r in rows.tolist()]


@dataclass
class Layout:
    """A way to store rollouts, and its measurements, one per repeat.

    Attributes:
        key: its prefix in the JSON file.
        share: of the rows that it is written with. Less than 1 where that is slow; then nothing is read: random rows of
            a smaller file lie closer together, which would not compare.
    """

    key: str
    name: str
    write: Write
    open: Callable[[Path], AbstractContextManager[Read]]
    share: float = 1.0
    written: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    size: float = 0.0

    def measure(self, table: Rollouts, rng: np.random.Generator) -> None:
        """One repeat: write, size, read; checks that what is read is what was written."""
        table = table.take(np.arange(int(len(table) * self.share)))
        with tempfile.TemporaryDirectory() as name:
            seconds, _ = common.cpu_s(lambda: self.write(Path(name), table))
            self.written.append(len(table) / seconds)
            self.size = sum(path.stat().st_size for path in Path(name).iterdir()) / len(table)
            if self.share < 1:
                return
            with self.open(Path(name)) as read:
                read(np.arange(0, len(table), len(table) // BATCH))  # opens every file, and reads its offsets
                for _ in range(READS):
                    rows = np.sort(rng.choice(len(table), BATCH, replace=False))
                    seconds, texts = common.wall_s(lambda rows=rows: read(rows))
                    self.read.append(BATCH / seconds)
                    if texts != [table.text_R[row] for row in rows]:
                        raise AssertionError(f"{self.name}: other texts are read than were written")

    def figures(self) -> dict[str, float]:
        prefix = f"{self.key}_" if self.key else ""
        figures = {f"{prefix}write_rows_per_cpu_s": statistics.median(self.written)}
        if self.read:
            figures[f"{prefix}read_rows_per_s"] = statistics.median(self.read)
        return {**figures, f"{prefix}bytes_per_row": self.size}


def compare(n_rows: int, repeats: int) -> dict[str, float]:
    """Measure the layouts and print the table. Returns the figures."""
    layouts = [
        Layout("", "ours: blocks of Zstandard 9", write_ours, open_ours),
        Layout("vlen_single", "variable-length, one by one", write_variable(1), open_variable, 1 / 8),
        Layout("vlen_batches", f"variable-length, {BATCH:,} at once", write_variable(BATCH), open_variable),
        Layout("flat", "bytes + offsets", write_flat(), open_flat),
        Layout("flat_gzip1", "bytes + offsets, gzip 1", write_flat(compression="gzip", compression_opts=1), open_flat),
    ]
    table, rng = make_rollouts(n_rows), np.random.default_rng(1)
    common.in_turn({layout.name: lambda _, layout=layout: layout.measure(table, rng) for layout in layouts}, repeats)
    print(f"{n_rows:,} rollouts with texts of {TEXT_BYTES} bytes, medians of {repeats} repeats")
    print(f"{'layout':32} {'rows':>8} {'rows written':>14} {'rows read':>12} {'bytes':>8}")
    print(f"{'':32} {'':8} {'per CPU-second':>14} {'per second':>12} {'per row':>8}")
    for layout in layouts:
        written, *read, size = layout.figures().values()
        shown = f"{read[0]:,.0f}" if read else "as the next"
        print(f"{layout.name:32} {int(n_rows * layout.share):8,} {written:14,.0f} {shown:>12} {size:8.1f}")
    return {key: value for layout in layouts for key, value in layout.figures().items()}


def write_many(folder: Path, n_rows: int) -> float:
    """Write a stage of n_rows rollouts. Returns the seconds. Texts repeat after a few shards, questions do not."""
    stage, some, seconds = Stage(folder), 4, 0.0
    content = [make_rollouts(min(SHARD_ROWS, n_rows), seed) for seed in range(some)]
    for index, start in enumerate(range(0, n_rows, SHARD_ROWS)):
        table = content[index % some].take(np.arange(min(SHARD_ROWS, n_rows - start)))
        question = table.question_R + start // SAMPLES
        table = replace(table, question_R=question, id_R=[f"pool-{q}" for q in question])
        seconds += common.wall_s(lambda index=index, table=table: write_shard(stage, index, table))[0]
    return seconds


def list_many(folder: Path) -> dict[str, float]:
    """List a stage and read random texts of it; called in a process of its own, for its peak memory."""
    text_bytes, read_texts = 0, StoredRows.read

    def counted(self: StoredRows, rows: np.ndarray) -> list[str]:
        nonlocal text_bytes
        texts = read_texts(self, rows)
        text_bytes += sum(map(len, texts))  # ASCII
        return texts

    rng, measured = np.random.default_rng(2), {"imports_peak_mib": peak_mib()}
    with mock.patch.object(StoredRows, "read", counted):

        def timed(name: str, action: Callable[[], T]) -> T:
            nonlocal text_bytes
            text_bytes, file_bytes = 0, bytes_read()
            seconds, result = common.wall_s(action)
            measured.update({
                f"{name}_s": seconds, f"{name}_peak_mib": peak_mib(), f"{name}_text_bytes": text_bytes,
                f"{name}_file_bytes": bytes_read() - file_bytes,
            })  # fmt: skip
            return result

        table = timed("listing", lambda: Stage(folder).read_chunks(Rollouts).sorted())
        for name in ("sample", "sample_again"):
            rows = rng.choice(len(table), BATCH, replace=False)
            timed(name, lambda rows=rows: table.take(rows).text_R.read(np.arange(BATCH)))
    return measured


def peak_mib() -> float:
    return 1024 * common.memory_gib()


def bytes_read() -> int:
    """By this process from files, cached or not."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def large_run(n_rows: int) -> dict[str, float]:
    """Write many rollouts, list and sample them, and print the table. Returns the figures."""
    with tempfile.TemporaryDirectory() as name:
        seconds = write_many(Path(name), n_rows)
        n_files, size = len(list(Path(name).iterdir())), sum(path.stat().st_size for path in Path(name).iterdir())
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            measured = fresh.submit(list_many, Path(name)).result()
    print(f"\n{n_rows:,} rollouts in {n_files} files, {size / 1e9:.2f} GB, written in {seconds:.0f} s")
    print(f"{'':32} {'seconds':>8} {'text read':>14} {'files read':>14} {'peak memory':>14}")
    for key, label in LABELS.items():
        seconds_, peak, text, read = (measured[f"{key}_{unit}"] for unit in UNITS)
        print(f"{label:32} {seconds_:8.2f} {text:10,} B   {read / 1e6:11,.1f} MB {peak:10,.0f} MiB")
    print(f"Peak memory counts from the start; {measured['imports_peak_mib']:,.0f} MiB of it are the imports.")
    return {"large_rows": n_rows, "large_files": n_files, "large_bytes": size, "large_write_s": seconds, **measured}


def main() -> int:
    parser = common.parser(__doc__, "fewer rows and repeats: about a minute", repeats=7, quick_repeats=3)
    parser.add_argument("--rows", type=int, help="rollouts to list: 10,000,000 (about 3 GB); quick: 1,000,000")
    arguments = parser.parse_args()
    figures = compare(65_536 if arguments.quick else 98_304, common.repeats_of(arguments))
    figures |= large_run(arguments.rows or (1_000_000 if arguments.quick else 10_000_000))
    common.write_figures(figures, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
