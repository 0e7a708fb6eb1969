"""What all ranks found in their pieces -> what the pool consists of: by whole arrays, in the order of the files."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import settings
from ..errors import RunError
from ..records import Question, Questions
from ..store.stage import Stage
from . import clean, columns
from .decontaminate import Filter
from .marks import Bad, Marks, Split, first_of, has

BATCH_ROWS = 4096
_REMEDY = "mend them, or leave them out with pool.on_bad=skip, which lists them all in a file rejects.jsonl"


class Merge:
    """The rows of all files, compared with each other. Not collective: used on root.

    Args:
        known: what the rows were compared with.
        questions, marks: the rows that are questions, their texts on disk.
        bad: the rows that are none.
    """

    def __init__(
        self,
        config: settings.Files,
        paths: Sequence[Path],
        known: Filter,
        stage: Stage,
        questions: Questions,
        marks: Marks,
        bad: Bad,
    ):
        self._config, self._paths, self._known, self._stage = config, paths, known, stage
        self._questions, self._marks, self._bad = questions, marks, bad
        # Of each row, the first one with the same question; of one that uses another one's id, that one.
        self._first_N = first_of(marks.text_NH)
        self._is_repeated_N = self._first_N != np.arange(len(marks))
        fresh = np.flatnonzero(~self._is_repeated_N)
        first_with_id = fresh[first_of(marks.id_NH[fresh])]  # a repeated question uses no id
        is_used = first_with_id != fresh
        self._first_N[fresh[is_used]] = first_with_id[is_used]
        self._is_used_N = np.zeros(len(marks), dtype=bool)
        self._is_used_N[fresh[is_used]] = True
        self._clean = fresh[~is_used]
        self._n = Counter(read=len(marks) + len(bad), bad=len(bad) + int(is_used.sum()))

    def write(self) -> None:
        """Write which rows are the pool, and lists of the others.

        Raises:
            RunError: rows are bad and `on_bad` is fail; nothing is left.
        """
        first = list(itertools.islice(self._problems(self._is_used_N), clean.FIRST))
        if first and self._config.on_bad == "fail":
            raise clean.told(first, self._n["bad"], self._n["read"], _REMEDY)
        split = self._split(first)
        self._stage.write("split", split)
        self._list("rejects", map(self._rejected, self._problems(self._is_repeated_N | self._is_used_N)))
        matched = self._clean[self._marks.known_N[self._clean] >= 0]
        self._list("contaminated", self._contaminated(matched))
        keys = ("read", "bad", "duplicate", "conflict", "contaminated", "exact")
        counts = {key: self._n[key] for key in keys} | {"kept": len(split)}
        fingerprint = hashlib.sha256(self._marks.row_NH[split.row_N].tobytes()).hexdigest()
        unfilled = self._unfilled(split.row_N)
        self._stage.write_json("counts", {**counts, "fingerprint": fingerprint, "unfilled": unfilled})

    def _split(self, first_bad: Sequence[clean.Problem]) -> Split:
        config, n_clean = self._config, len(self._clean)
        is_kept = self._marks.known_N[self._clean] < 0
        if not is_kept.any():
            listed = "".join(f"\n  {p.where}: {p.reason}" for p in first_bad)
            why = f": {self._n['bad']} of {self._n['read']} rows are bad:{listed}" if listed else ""
            raise RunError(f"the question pool is empty ({config.path}): nothing to learn from{why}")
        if config.held_out >= n_clean:
            raise RunError(f"pool.held_out={config.held_out} leaves nothing of the {n_clean} in {config.path}")
        # Chosen before decontamination: with other benchmarks, nobody who was held out enters the pool.
        is_held_out = np.zeros(n_clean, dtype=bool)
        is_held_out[np.random.default_rng(config.seed).permutation(n_clean)[: config.held_out]] = True
        return Split(self._clean[is_kept], is_held_out[is_kept])

    def _problems(self, among_N: np.ndarray) -> Iterator[clean.Problem]:
        """The bad rows and these, in the order of the files.

        Args:
            among_N: which rows; each uses another one's id, or repeats a question.
        """
        rows, n_bad = np.flatnonzero(among_N), len(self._bad)
        mixed = np.argsort(np.concatenate([self._bad.order_N, self._marks.order_N[rows]]), kind="stable")
        for begin in range(0, len(mixed), BATCH_ROWS):
            batch = mixed[begin : begin + BATCH_ROWS]
            bad = self._bad.take(batch[batch < n_bad])
            found = zip(bad.where_N, bad.reason_N, bad.raw_N, strict=True)
            told = (clean.Problem(where, "bad", reason, raw) for where, reason, raw in found)
            own = self._repeats(rows[batch[batch >= n_bad] - n_bad])
            yield from (next(told if i < n_bad else own) for i in batch.tolist())

    def _repeats(self, rows: np.ndarray) -> Iterator[clean.Problem]:
        questions, first = self._questions.take(rows), self._first_N[rows]
        answers = self._questions.take(first).answer_N
        for row, other, answer, question in zip(rows, first, answers, questions, strict=True):
            where, raw = self._where(other), clean.raw(_row(question))
            if self._is_used_N[row]:
                kind, reason = "bad", clean.used(question.id, where)
            elif answer == question.answer:
                kind, reason = "duplicate", f"the same question as {where}"
            else:
                kind, reason = "conflict", f"the same question as {where}, where the answer is {answer!r}"
            yield clean.Problem(self._where(row), kind, reason, raw)

    def _where(self, row: int) -> str:
        return f"{self._paths[self._marks.file_N[row]]}:{self._marks.line_N[row]}"

    def _rejected(self, problem: clean.Problem) -> dict:
        if problem.kind != "bad":
            self._n[problem.kind] += 1
        return asdict(problem)

    def _contaminated(self, rows: np.ndarray) -> Iterator[dict]:
        own = self._marks.take(rows)
        self._n["contaminated"], self._n["exact"] = len(rows), int(own.exact_N.sum())
        ids, texts = self._questions.id_N.take(rows), self._questions.text_N.take(rows)
        for id, text, number, is_exact, overlap in zip(
            ids, texts, own.known_N, own.exact_N, own.overlap_N.tolist(), strict=True
        ):
            benchmark, benchmark_id = self._known.named[number]
            of = {"benchmark": benchmark, "benchmark_id": benchmark_id}
            yield {"id": id, "question": text, **of, "kind": "exact" if is_exact else "ngrams", "overlap": overlap}

    def _list(self, name: str, facts: Iterator[dict]) -> None:
        while batch := [json.dumps(item, ensure_ascii=False) for item in itertools.islice(facts, BATCH_ROWS)]:
            self._stage.append_lines(name, batch)

    def _unfilled(self, rows: np.ndarray) -> dict[str, str]:
        """Columns that were named otherwise than by default, and that no question has."""
        filled = int(np.bitwise_or.reduce(self._marks.filled_N[rows]))
        named = columns.renamed(self._config.columns)
        return {name: " or ".join(columns.names(own)) for name, own in named.items() if not has(filled, name)}


def _row(question: Question) -> dict:
    """A question much as a file has it."""
    return {"question" if name == "text" else name: value for name, value in asdict(question).items() if value}
