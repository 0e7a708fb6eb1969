"""Rows of files -> shards of questions on disk, and lists of what was left out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..progress import log
from ..records import Columns, Question, Questions, RunError, column
from ..store import Stage
from . import clean, columns, decontaminate
from .settings import Config

SHARD_ROWS = 65_536
BATCH_ROWS = 4096


@dataclass(frozen=True)
class Split(Columns):
    """Which of the written questions are held out."""

    held_out_N: np.ndarray = column(np.bool_, "the question is held out: never trained on")


def make(config: Config, paths: Sequence[Path], avoided: Mapping[str, Sequence[Question]], stage: Stage) -> None:
    """Write the pool's questions in shards, and what was left out. Not collective: called on root.

    Raises:
        RunError: as `load` does.
    """
    log.info("pool: reading %d file%s, %s", len(paths), "s" * (len(paths) > 1), paths[0])
    named = {name: [(q.id, q.text) for q in questions] for name, questions in avoided.items()}
    known = decontaminate.Filter(named, config.ngram_words, config.overlap)
    # A second thread compresses and writes, mostly outside of Python's lock, while this one reads and compares.
    with ThreadPoolExecutor(1) as beside:
        ledger, writer = Ledger(stage, config.on_bad), Writer(stage, beside)
        found = ledger.usable(clean.rows(paths, config.columns))
        while batch := list(itertools.islice(found, BATCH_ROWS)):
            for row, match in zip(batch, known.matches([row[clean.TEXT] for row in batch]), strict=True):
                ledger.match(row, match) if match else writer.add(ledger.n_clean, row)
                ledger.n_clean += 1
            ledger.flush()
        ledger.check()
        _finish(config, ledger, writer, stage)


def _finish(config: Config, ledger: Ledger, writer: Writer, stage: Stage) -> None:
    if not writer.index:
        raise RunError(f"the question pool is empty ({config.path}): nothing to learn from{ledger.why_empty()}")
    if config.held_out >= ledger.n_clean:
        raise RunError(f"pool.held_out={config.held_out} leaves nothing of the {ledger.n_clean} in {config.path}")
    # Chosen before decontamination: with other benchmarks, nobody who was held out enters the pool.
    order = np.random.default_rng(config.seed).permutation(ledger.n_clean)
    held_out = np.isin(np.array(writer.index), order[: config.held_out])
    writer.flush()
    writer.flush()  # waits
    stage.write("split", Split(held_out))
    counts = {**ledger.counts(), "kept": len(held_out), "fingerprint": writer.hash.hexdigest()}
    stage.write_json("counts", {**counts, "unfilled": writer.unfilled(config.columns)})


class Ledger:
    """What is left out of a pool, by kind; lists of it beside the pool."""

    def __init__(self, stage: Stage, on_bad: str):
        self.stage, self.on_bad, self.n_clean = stage, on_bad, 0
        self._n = Counter()
        self._first: list[clean.Problem] = []
        self._lines: dict[str, list[str]] = {"rejects": [], "contaminated": []}

    def usable(self, found: Iterable[columns.Row | clean.Problem]) -> Iterable[columns.Row]:
        """The questions among these, while there is a chance that they will be used; notes the rest."""
        for item in found:
            self._n["read"] += 1
            if isinstance(item, clean.Problem):
                self._reject(item)
            elif not (self._n["bad"] and self.on_bad == "fail"):
                yield item

    def _reject(self, problem: clean.Problem) -> None:
        self._n[problem.kind] += 1
        if problem.kind == "bad" and len(self._first) < clean.FIRST:
            self._first.append(problem)
        self._lines["rejects"].append(json.dumps(asdict(problem), ensure_ascii=False))

    def match(self, row: columns.Row, match: decontaminate.Match) -> None:
        self._n["contaminated"] += 1
        self._n["exact"] += match.kind == "exact"
        facts = {"id": row[clean.ID], "question": row[clean.TEXT], **asdict(match)}
        self._lines["contaminated"].append(json.dumps(facts, ensure_ascii=False))

    def flush(self) -> None:
        for name, lines in self._lines.items():
            if lines:
                self.stage.append_lines(name, lines)
                lines.clear()

    def check(self) -> None:
        """Raises:
        RunError: there are bad rows, and the pool shall have none.
        """
        self.flush()
        if self._n["bad"] and self.on_bad == "fail":
            remedy = "mend them, or leave them out with pool.on_bad=skip, which lists them all in a file rejects.jsonl"
            raise clean.told(self._first, self._n["bad"], self._n["read"], remedy)

    def counts(self) -> dict[str, int]:
        return {key: self._n[key] for key in ("read", "bad", "duplicate", "conflict", "contaminated", "exact")}

    def why_empty(self) -> str:
        listed = "".join(f"\n  {p.where}: {p.reason}" for p in self._first)
        return f": {self._n['bad']} of {self._n['read']} rows are bad:{listed}" if listed else ""


class Writer:
    """Questions -> shards of a stage."""

    def __init__(self, stage: Stage, beside: ThreadPoolExecutor):
        self.stage, self.index, self.hash = stage, [], hashlib.sha256()
        self._beside, self._under_way = beside, beside.submit(bool)
        self._rows: list[columns.Row] = []
        self._n_shards, self._filled = 0, set()

    def add(self, index: int, row: columns.Row) -> None:
        """Args:
        index: its number among all clean questions.
        """
        self.index.append(index)
        self._rows.append(row)
        if len(self._rows) == SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Have what was added written; the shard before it is on disk by then."""
        self._under_way.result()
        if self._rows:
            self._under_way = self._beside.submit(self._write, self._rows, self._n_shards)
            self._rows = []
            self._n_shards += 1

    def _write(self, rows: list[columns.Row], number: int) -> None:
        table = Questions.of(rows)
        for texts in (table.id_N, table.text_N, table.answer_N):
            self.hash.update("\n".join(texts).encode())
        self._filled |= {name for name in columns.WANTED if any(getattr(table, f"{name}_N", ["text"]))}
        self.stage.write_chunk(number, table)

    def unfilled(self, config: columns.Config) -> dict[str, str]:
        """Columns that were named otherwise than by default, and that no question has."""
        default = columns.Config()
        named = {n: getattr(config, n) for n in columns.WANTED if getattr(config, n) != getattr(default, n)}
        return {n: " or ".join(columns.names(v)) for n, v in named.items() if v and n not in self._filled}
