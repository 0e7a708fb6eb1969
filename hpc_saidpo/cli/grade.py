"""Grade a file of responses, as a run would.

    hpc-saidpo grade IN.jsonl
    hpc-saidpo grade IN.jsonl --out OUT.jsonl

Each line is a JSON object with `prediction_text`, the response, and `gold`, the
correct answer. It may also have `alt_answers` (a list of other correct
answers), `verifier` and `entry`, as in a pool. OUT.jsonl has the same lines
with `answer` (the answer that was extracted), `verdict` (correct, wrong,
ungradable) and `reason`. Where lines have `expected` (true or false), the share
of verdicts that agree is printed, and the lines that do not.
Exits 0 when the file is graded, 2 on a problem that you can solve.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .. import settings
from ..errors import RunError, shown, words_of
from ..grader.grader import Grader
from ..grader.verifiers import VERIFIERS, check
from ..pool.text_files import MIB, lines_of
from ..records import CORRECT, VERDICTS, Question
from ..terminal import complain
from .help import parser

SHOWN = 50  # lines that differ from `expected`, at most


def main(arguments: Sequence[str]) -> int:
    """Grade the file and print the counts. Returns the exit code."""
    options = parser("grade", __doc__)
    options.add_argument("file", type=Path, help="JSON lines with prediction_text and gold")
    options.add_argument("--out", type=Path, help="write the lines with their verdicts to this file")
    options.add_argument(
        "--cpu-s", type=float, default=settings.Grader().cpu_s, help="limit of CPU seconds for one response"
    )
    limit_mib = settings.Limits().line_mib
    options.add_argument("--line-mib", type=int, default=limit_mib, help=f"MiB of a line, at most ({limit_mib})")
    values = options.parse_args(arguments)
    try:
        grade(values.file, values.out, settings.Grader(cpu_s=values.cpu_s), values.line_mib)
    except (RunError, OSError) as error:
        complain("grade", error if isinstance(error, RunError) else words_of(error))
        return 2
    return 0


@dataclass
class Counts:
    """Counts of the verdicts, and the lines whose verdict differs from `expected`."""

    verdicts: Counter[str] = field(default_factory=Counter)
    n_agreed: int = 0
    differing: list[str] = field(default_factory=list)

    def text(self, path: Path) -> str:
        total = sum(self.verdicts.values())
        lines = [f"{shown(path)}: {total:,} responses"]
        for verdict in VERDICTS.values():
            n = self.verdicts[verdict]
            lines.append(f"  {verdict:10s} {n:8,d}  {100 * n / max(1, total):5.1f} %")
        n_expected = self.n_agreed + len(self.differing)
        if n_expected:
            lines.append(f"as expected: {self.n_agreed} of {n_expected} ({100 * self.n_agreed / n_expected:.1f} %)")
        return "\n".join([*lines, *self.differing[:SHOWN]])


def grade(path: Path, out: Path | None, limits: settings.Grader, line_mib: int = settings.Limits().line_mib) -> None:
    """Grade a file, write the lines with their verdicts to `out`, print the counts.

    Args:
        line_mib: length of a line, at most.

    Raises:
        RunError: a line is wrong, or its verifier cannot grade here.
    """
    counts, checked = Counts(), set()
    with Grader(limits) as grader, contextlib.ExitStack() as stack:
        file = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
        for number, row in rows(path, line_mib):
            question = question_of(row, f"{shown(path)}:{number}")
            if question.verifier not in checked:
                check([question.verifier], limits)
                checked.add(question.verifier)
            grade_row(row, number, question, grader, counts, file)
    print(counts.text(path))


def grade_row(
    row: dict[str, Any], number: int, question: Question, grader: Grader, counts: Counts, file: TextIO | None
) -> None:
    """Grade one line: count its verdict, and write it to the file if there is one."""
    judgement = grader.judge(row["prediction_text"], question)
    verdict = VERDICTS[judgement.verdict]
    counts.verdicts[verdict] += 1
    if "expected" in row:
        if (judgement.verdict == CORRECT) == bool(row["expected"]):
            counts.n_agreed += 1
        else:
            counts.differing.append(f"  line {number}: {verdict}, gold {shown(repr(row['gold']))} ({judgement.reason})")
    if file:
        answer = VERIFIERS[question.verifier].answer(row["prediction_text"])
        graded = {**row, "answer": answer, "verdict": verdict, "reason": judgement.reason}
        file.write(json.dumps(graded) + "\n")


def question_of(row: dict[str, Any], where: str) -> Question:
    """Return the question that a line describes.

    Raises:
        RunError: there is no such verifier, or alt_answers is no list of texts.
    """
    verifier, entry, others = row.get("verifier") or "math", row.get("entry") or "", row.get("alt_answers") or []
    if not isinstance(verifier, str) or verifier not in VERIFIERS:
        raise RunError(f"{shown(where)}: the verifier is {shown(repr(verifier))}: there are {', '.join(VERIFIERS)}")
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise RunError(f"{shown(where)}: 'alt_answers' must be a list of strings")
    entry = entry if isinstance(entry, str) else json.dumps(entry)
    return Question(where, "", row["gold"], alt_answers=tuple(others), verifier=verifier, entry=entry)


def rows(path: Path, line_mib: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of every line that is not blank.

    Raises:
        RunError: a line is too long, is not JSON, or lacks a field; the message names file and line.
    """
    with open(path, "rb") as file:
        for number, line in lines_of(file, line_mib * MIB):
            where = f"{shown(path)}:{number}"
            if len(line) > line_mib * MIB:
                raise RunError(f"{shown(where)}: longer than {line_mib} MiB: raise --line-mib")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise RunError(f"{shown(where)}: not JSON: {words_of(error)}") from error
            for key in ("prediction_text", "gold"):
                if not isinstance(row, dict) or not isinstance(row.get(key), str):
                    raise RunError(f"{shown(where)}: {key!r} must be there, a string")
            yield number, row
