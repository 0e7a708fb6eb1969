"""Grade a file of responses, as a run would.

    hpc-saidpo grade IN.jsonl
    hpc-saidpo grade IN.jsonl --out OUT.jsonl

Each line is a JSON object with `prediction_text`, the response, and `gold`, the right answer; `alt_answers`, a list of
others that are right as well, `verifier` and `entry` may be there too, as in a pool. OUT.jsonl has the same lines with
`answer` (what was taken for the answer), `verdict` (correct, wrong, ungradable) and `reason`. Where lines carry
`expected` (true or false), the share of verdicts that agree is printed, and the lines that do not. Exits 0 when the
file is graded, 2 when something has to be mended first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import settings
from ..errors import RunError
from ..grader.answers.stated import stated
from ..grader.grader import Grader
from ..grader.verifiers import check
from ..records import CORRECT, VERDICTS, Question
from ..settings.pool import VERIFIER_NAMES


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo grade", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="JSON lines with prediction_text and gold")
    parser.add_argument("--out", type=Path, help="write the lines with their verdicts here")
    parser.add_argument(
        "--cpu-s", type=float, default=settings.Grader().cpu_s, help="CPU seconds that one pair may cost"
    )
    asked = parser.parse_args(arguments)
    try:
        grade(asked.file, asked.out, settings.Grader(cpu_s=asked.cpu_s))
    except (RunError, OSError) as error:
        print(f"grade: {error}", file=sys.stderr)
        return 2
    return 0


def grade(path: Path, out: Path | None, limits: settings.Grader) -> None:
    """Grade a file, write the verdicts, print the counts."""
    counts, agreed, differ, checked = Counter(), 0, [], set()
    with Grader(limits) as grader, contextlib.ExitStack() as stack:
        written = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
        for number, row in rows(path):
            question = asked(row, f"{path}:{number}")
            if question.verifier not in checked:
                check([question.verifier], limits)
                checked.add(question.verifier)
            judgement = grader.judge(row["prediction_text"], question)
            verdict = VERDICTS[judgement.verdict]
            counts[verdict] += 1
            if "expected" in row:
                right = (judgement.verdict == CORRECT) == bool(row["expected"])
                agreed += right
                differ += [] if right else [f"  line {number}: {verdict}, gold {row['gold']!r} ({judgement.reason})"]
            if written:
                answer = stated(row["prediction_text"], question.verifier)
                row |= {"answer": answer, "verdict": verdict, "reason": judgement.reason}
                written.write(json.dumps(row) + "\n")
    total = sum(counts.values())
    print(f"{path}: {total:,} responses")
    for verdict in VERDICTS.values():
        print(f"  {verdict:10s} {counts[verdict]:8,d}  {100 * counts[verdict] / max(1, total):5.1f} %")
    if agreed or differ:
        print(f"as expected: {agreed} of {agreed + len(differ)} ({100 * agreed / (agreed + len(differ)):.1f} %)")
        print("\n".join(differ[:50]))


def asked(row: dict, where: str) -> Question:
    """The question that a line tells of.

    Raises:
        RunError: there is no such verifier, or what it needs is not there.
    """
    verifier, entry = row.get("verifier") or "math", row.get("entry") or ""
    if verifier not in VERIFIER_NAMES:
        raise RunError(f"{where}: the verifier is {verifier!r}: there are {', '.join(VERIFIER_NAMES)}")
    entry = entry if isinstance(entry, str) else json.dumps(entry)
    others = tuple(row.get("alt_answers") or ())
    return Question(where, "", row["gold"], alt_answers=others, verifier=verifier, entry=entry)


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of every line that is not blank.

    Raises:
        RunError: a line is not JSON, or lacks a field: file and line named.
    """
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise RunError(f"{path}:{number}: not JSON: {error}") from error
            for key in ("prediction_text", "gold"):
                if not isinstance(row, dict) or not isinstance(row.get(key), str):
                    raise RunError(f"{path}:{number}: {key!r} must be there, a string")
            yield number, row
