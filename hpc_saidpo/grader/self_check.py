"""Every gold answer against itself, at load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..records import CORRECT, WRONG, Judgement, Question
from .answers.extract import extract
from .answers.fast import settle
from .answers.gold import defects
from .grader import Grader
from .verifiers import VERIFIERS


@dataclass(frozen=True)
class GoldReport:
    """How gradable the gold answers of a pool or benchmark are.

    Attributes:
        n, n_passed: gold answers, and those that a response which boxes them is right for.
        defects: how many show each of `verify.defects`.
        failed: ids of the first ones that do not pass.
    """

    n: int
    n_passed: int
    defects: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        return self.n_passed / self.n if self.n else 1.0

    def text(self) -> str:
        """The report in a line."""
        line = f"{100 * self.rate:.2f} % of {self.n:,} gold answers are right by themselves"
        if self.defects:
            line += "; doubtful: " + ", ".join(f"{count:,} {what}" for what, count in sorted(self.defects.items()))
        return line + (
            f"; fail: {', '.join(self.failed)}" + " ..." * (self.n - self.n_passed > len(self.failed))
            if self.failed
            else ""
        )


def self_check(golds: Iterable[tuple[str, str]], show: int = 5) -> GoldReport:
    """Grade `\\boxed{gold}` against gold for each (id, gold).

    By text alone, in microseconds: it finds golds that are empty, that break the box, or that are lost in extraction.
    """
    n, passed, counts, failed = 0, 0, Counter(), []
    for name, gold in golds:
        n += 1
        found = defects(gold)
        counts.update(found)
        if "prose" not in found and "empty" not in found and _is_itself(gold):
            passed += 1
        elif len(failed) < show:
            failed.append(name)
    return GoldReport(n, passed, dict(counts), tuple(failed))


def _is_itself(gold: str) -> bool:
    gold = " ".join(gold.split())
    if "{" not in gold and "}" not in gold:  # nothing can break the box
        return True
    answer = extract(f"\\boxed{{{gold}}}")
    judgement = Judgement(CORRECT, "") if answer == gold else settle(gold, answer)
    return judgement is not None and judgement.verdict == CORRECT


def by_grading(questions: Iterable[Question], grader: Grader, show: int = 5) -> GoldReport:
    """Grade each question's own answer, or the solution of one with tests, against it: whatever its verifier takes.

    Tests without a solution pass when they run, and turn down a response that is empty.
    """
    own = [(question, VERIFIERS[question.verifier].own_response(question)) for question in questions]
    failed = [q.id for q, text in own if grader.judge(text, q).verdict != (CORRECT if text else WRONG)]
    return GoldReport(len(own), len(own) - len(failed), {}, tuple(failed[:show]))


def together(reports: Sequence[GoldReport], show: int = 5) -> GoldReport:
    """One report from those of several parts."""
    counts = sum((Counter(r.defects) for r in reports), Counter())
    failed = [name for r in reports for name in r.failed]
    return GoldReport(sum(r.n for r in reports), sum(r.n_passed for r in reports), dict(counts), tuple(failed[:show]))
