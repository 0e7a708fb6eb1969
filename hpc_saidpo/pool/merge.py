"""Rows that all ranks have read -> the questions of the pool, by whole arrays, in the order of the files."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import settings
from ..errors import RunError, shown, visible
from ..records import Question, Questions
from ..store.stage import Stage
from . import clean, columns
from .decontaminate import KINDS, LEAKS, NUMBERS
from .leaks import EXAMPLES, HELD_OUT, Comparison
from .marks import Bad, Marks, Split, first_of, has_text

BATCH_ROWS = 4096
_REMEDY = "mend them, or leave them out with pool.on_bad=skip, which lists them all in a file rejects.jsonl"


@dataclass(frozen=True)
class Written:
    """The rows of all files, as the ranks wrote them.

    Attributes:
        questions, marks: the rows that are questions; their texts stay on disk.
        bad: the other rows.
    """

    questions: Questions
    marks: Marks
    bad: Bad


class Merge:
    """The rows of all files, compared with each other. Not collective: used on root.

    Raises:
        RunError: rows are bad and `on_bad` is fail; too few questions for `held_out`.
    """

    def __init__(self, config: settings.Files, paths: Sequence[Path], stage: Stage, written: Written):
        self._config, self._paths, self._stage = config, paths, stage
        self._questions, self._bad = written.questions, written.bad
        marks = written.marks
        # The hashes of texts and ids are needed here alone: of a million rows they take 32 MB.
        self._order_N, self._file_N, self._line_N = marks.order_N, marks.file_N, marks.line_N
        self._row_NH, self._filled_N = marks.row_NH, marks.filled_N
        # For each row: the first row with the same question. For a row with a used id: the row that used it first.
        self._first_N = first_of(marks.text_NH)
        self._is_repeated_N = self._first_N != np.arange(len(marks))
        fresh = np.flatnonzero(~self._is_repeated_N)
        first_with_id = fresh[first_of(marks.id_NH[fresh])]  # a repeated question uses no id
        is_used = first_with_id != fresh
        self._first_N[fresh[is_used]] = first_with_id[is_used]
        self._is_used_N = np.zeros(len(marks), dtype=bool)
        self._is_used_N[fresh[is_used]] = True
        self._clean = fresh[~is_used]
        self._n = Counter(read=len(marks) + len(self._bad), bad=len(self._bad) + int(is_used.sum()))

        self._first_bad = list(itertools.islice(self._problems(self._is_used_N), clean.FIRST))
        if self._first_bad and config.on_bad == "fail":
            raise clean.bad_rows_error(self._first_bad, self._n["bad"], self._n["read"], _REMEDY)
        self.held_out = self._draw_held_out()

    def _draw_held_out(self) -> np.ndarray:
        """Return the rows that are held out, ascending."""
        n_clean, n_held_out = len(self._clean), self._config.held_out
        if n_held_out and n_held_out >= n_clean:
            raise RunError(
                f"pool.held_out={n_held_out} leaves none of the {n_clean} questions in "
                f"{shown(self._config.path)}: lower it"
            )
        # Chosen before decontamination: with other benchmarks, no held-out question enters the pool.
        return np.sort(self._clean[np.random.default_rng(self._config.seed).permutation(n_clean)[:n_held_out]])

    def __len__(self) -> int:
        """Number of rows that are questions."""
        return len(self._order_N)

    def held_out_texts(self) -> list[tuple[str, str]]:
        """Return id and text of every held-out question."""
        questions = self._questions.take(self.held_out)
        return list(zip(questions.id_N, questions.text_N, strict=True))

    def write(self, known: Comparison, near: Comparison) -> None:
        """Write the split of the rows, and lists of the rows that are left out.

        Args:
            known: the rows compared with benchmarks and few-shot examples.
            near: the rows compared with the held-out questions.

        Raises:
            RunError: no question is left.
        """
        is_clean_N, is_held_out_N = np.zeros((2, len(self._order_N)), dtype=bool)
        is_clean_N[self._clean], is_held_out_N[self.held_out] = True, True
        found = known.joined(near, except_N=is_held_out_N)
        is_removed_N = is_clean_N & found.of_kinds(LEAKS if self._config.other_numbers == "keep" else KINDS)
        kept = np.flatnonzero(is_clean_N & ~is_removed_N)
        if not len(kept):
            listed = clean.list_first(self._first_bad)
            why = f": {self._n['bad']} of {self._n['read']} rows are bad:{listed}" if listed else ""
            raise RunError(f"the question pool is empty (pool.path={shown(self._config.path)}){why}")
        self._stage.write("split", Split(kept, is_held_out_N[kept]))
        self._list("rejects", map(self._count_reject, self._problems(self._is_repeated_N | self._is_used_N)))
        is_reported_N = is_clean_N & ~is_removed_N & found.of_kinds([NUMBERS])
        for name, mask_N in (("contaminated", is_removed_N), ("other_numbers", is_reported_N)):
            self._list(name, found.lines(np.flatnonzero(mask_N), self._questions))
        counts = {key: self._n[key] for key in ("read", "bad", "duplicate", "conflict")}
        counts |= {"kept": len(kept), "other_numbers": int(is_reported_N.sum()), **_count(found, is_removed_N)}
        fingerprint = hashlib.sha256(self._row_NH[kept].data).hexdigest()
        self._stage.write_json("counts", {**counts, "fingerprint": fingerprint, "unfilled": self._unfilled(kept)})

    def _problems(self, among_N: np.ndarray) -> Iterator[clean.Problem]:
        """Yield the problems of the bad rows and of some others, in the order of the files.

        Args:
            among_N: mask of the other rows; each repeats a question or uses the id of another row.
        """
        rows, n_bad = np.flatnonzero(among_N), len(self._bad)
        mixed = np.argsort(np.concatenate([self._bad.order_N, self._order_N[rows]]), kind="stable")
        for begin in range(0, len(mixed), BATCH_ROWS):
            batch = mixed[begin : begin + BATCH_ROWS]
            bad = self._bad.take(batch[batch < n_bad])
            columns_of_bad = zip(bad.where_N, bad.reason_N, bad.raw_N, strict=True)
            unusable = (clean.Problem(where, "bad", reason, raw) for where, reason, raw in columns_of_bad)
            repeats = self._repeats(rows[batch[batch >= n_bad] - n_bad])
            yield from (next(unusable if i < n_bad else repeats) for i in batch.tolist())

    def _repeats(self, rows: np.ndarray) -> Iterator[clean.Problem]:
        questions, first = self._questions.take(rows), self._first_N[rows]
        answers = self._questions.take(first).answer_N
        for row, other, answer, question in zip(rows, first, answers, questions, strict=True):
            where, raw = self._where(other), clean.show(_row(question))
            if self._is_used_N[row]:
                yield clean.Problem(self._where(row), "bad", clean.describe_used_id(question.id, where), raw)
            elif answer == question.answer:
                yield clean.Problem(self._where(row), "duplicate", f"the same question as {shown(where)}", raw)
            else:
                reason = f"the same question as {where}, where the answer is {shown(repr(answer))}"
                yield clean.Problem(self._where(row), "conflict", reason, raw)

    def _where(self, row: int) -> str:
        path = self._paths[self._file_N[row]]
        return f"{visible(str(path), kept='')}:{self._line_N[row]}"

    def _count_reject(self, problem: clean.Problem) -> dict:
        """Return a problem as a line of rejects.jsonl; count the repeated questions."""
        if problem.kind != "bad":
            self._n[problem.kind] += 1
        return asdict(problem)

    def _list(self, name: str, facts: Iterable[dict]) -> None:
        """Write facts as JSON lines, in batches."""
        lines = (json.dumps(item, ensure_ascii=False) for item in facts)
        while batch := list(itertools.islice(lines, BATCH_ROWS)):
            self._stage.append_lines(name, batch)

    def _unfilled(self, rows: np.ndarray) -> dict[str, str]:
        """Return the columns with names other than the default ones that no question has."""
        filled = int(np.bitwise_or.reduce(self._filled_N[rows]))
        renamed = columns.list_renamed(self._config.columns)
        return {
            field: " or ".join(columns.as_tuple(names))
            for field, names in renamed.items()
            if not has_text(filled, field)
        }


def _count(found: Comparison, is_removed_N: np.ndarray) -> dict[str, int]:
    """Return the numbers of removed rows: those in pool.examples, those near held-out questions, others by class."""
    special = {"in_examples": found.of_benchmarks(EXAMPLES), "near_held_out": found.of_benchmarks(HELD_OUT)}
    is_in_benchmark_N = is_removed_N & ~special["in_examples"] & ~special["near_held_out"]
    masks = {name: is_removed_N & mask_N for name, mask_N in special.items()} | {"in_benchmark": is_in_benchmark_N}
    masks |= {f"in_benchmark_{kind}": is_in_benchmark_N & found.of_kinds([kind]) for kind in KINDS}
    return {name: int(mask_N.sum()) for name, mask_N in masks.items()}


def _row(question: Question) -> dict:
    """Return a question much like a row of a file."""
    return {"question" if name == "text" else name: value for name, value in asdict(question).items() if value}
