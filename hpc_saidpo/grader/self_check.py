"""Check gold answers against themselves, before the first rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..records import CORRECT, WRONG, Judgement, Question
from .answers.extract import extract
from .answers.fast import decide
from .answers.gold import defects
from .grader import Grader
from .verifiers import find_verifier

HALF, FEW = 0.5, 0.95  # shares of gold answers: with fewer a run is refused; with fewer it is warned
_UNUSABLE = frozenset(("prose", "empty", "not a number"))  # defects of gold answers that nothing equals


@dataclass(frozen=True)
class GoldReport:
    """The share of gold answers of a pool or benchmark that can be graded.

    Attributes:
        n: gold answers that were checked.
        n_passed: those for which a response with that answer is correct.
        defects: number of gold answers with each defect (`answers.gold.defects`).
        failed: ids of the first ones that do not pass.
    """

    n: int
    n_passed: int
    defects: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        return self.n_passed / self.n if self.n else 1.0

    def fault(self) -> str:
        """What is wrong if so many gold answers fail, and what to do; "" if few do."""
        if self.rate >= FEW:
            return ""
        return (
            f"{self.n - self.n_passed:,} of {self.n:,} gold answers can never be right, so their questions never give "
            "a pair: choose another verifier (pool.verifier), or another column (pool.columns.answer), mend the "
            "answers, or leave these questions out"
        )

    def text(self) -> str:
        """The report in one line."""
        if self.n == 0:
            return "no gold answer is checked: their verifier has no own_response"
        line = f"{100 * self.rate:.2f} % of {self.n:,} gold answers are right by themselves"
        if self.defects:
            line += "; doubtful: " + ", ".join(f"{count:,} {defect}" for defect, count in sorted(self.defects.items()))
        if self.failed:
            line += f"; fail: {', '.join(self.failed)}" + " ..." * (self.n - self.n_passed > len(self.failed))
        return line


def self_check(golds: Iterable[tuple[str, str]], show: int = 5) -> GoldReport:
    """Grade `\\boxed{gold}` against gold for each (id, gold), by mathematics.

    By text alone, in microseconds: it detects gold answers that are empty, that break the box, or that extraction
    loses.
    """
    n, passed, counts, failed = 0, 0, Counter(), []
    for name, gold in golds:
        n += 1
        faults = defects(gold)
        counts.update(faults)
        if not _UNUSABLE.intersection(faults) and _is_itself(gold):
            passed += 1
        elif len(failed) < show:
            failed.append(name)
    return GoldReport(n, passed, dict(counts), tuple(failed))


def _is_itself(gold: str) -> bool:
    gold = " ".join(gold.split())
    if "{" not in gold and "}" not in gold:  # nothing can break the box
        return True
    answer = extract(f"\\boxed{{{gold}}}")
    judgement = Judgement(CORRECT, "") if answer == gold else decide(gold, answer)
    return judgement is not None and judgement.verdict == CORRECT


def by_grading(questions: Iterable[Question], grader: Grader, show: int = 5) -> GoldReport:
    """Grade the known response of each question (`Verifier.own_response`): its gold answer, or its solution.

    If a question has tests and no solution, an empty response must be wrong. Questions whose verifier has no
    `own_response` are left out.
    """
    verifiers = ((question, find_verifier(question.verifier)) for question in questions)
    responses = [(question, v.own_response(question)) for question, v in verifiers if v.own_response is not None]
    failed = [q.id for q, text in responses if grader.judge(text, q).verdict != (CORRECT if text else WRONG)]
    return GoldReport(len(responses), len(responses) - len(failed), {}, tuple(failed[:show]))


def together(reports: Sequence[GoldReport], show: int = 5) -> GoldReport:
    """One report from the reports of several parts."""
    counts = sum((Counter(r.defects) for r in reports), Counter())
    failed = [name for r in reports for name in r.failed]
    return GoldReport(sum(r.n for r in reports), sum(r.n_passed for r in reports), dict(counts), tuple(failed[:show]))
