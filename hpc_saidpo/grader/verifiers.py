"""Verifier by name -> how a response to a question is judged, and what is checked before any is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import verify
from ..records import CORRECT, UNGRADABLE, VERIFIERS, WRONG, Question, RunError
from ..verify import Judgement
from . import code
from .limits import Limits

if TYPE_CHECKING:
    from .grader import Grader


@dataclass(frozen=True)
class Way:
    """How one verifier grades.

    Attributes:
        judge: (grader, response, question) -> the verdict.
        own_response: question -> a response that must be right; "" where none is known, which must be wrong.
        obstacle: why it cannot grade here; "" when it can.
    """

    judge: Callable[[Grader, str, Question], Judgement]
    own_response: Callable[[Question], str]
    obstacle: Callable[[Limits], str] = lambda limits: ""


def _by_mathematics(grader: Grader, response: str, question: Question) -> Judgement:
    return grader.grade(response, question.answer, question.alt_answers)


def _by_text(grader: Grader, response: str, question: Question) -> Judgement:
    answer = verify.stated(response, "exact")
    if not question.answer.strip():
        return Judgement(UNGRADABLE, "the gold answer is empty")
    if answer is None:
        return Judgement(WRONG, "no answer stated")
    golds = map(verify.same_blanks, (question.answer, *question.alt_answers))
    is_one = verify.same_blanks(answer) in golds
    return Judgement(CORRECT, "the same text") if is_one else Judgement(WRONG, "another text")


def _by_scorer(grader: Grader, response: str, question: Question) -> Judgement:
    answer = verify.stated(response, "reasoning_gym")
    whole = response.rpartition("</think>")[2].strip()
    judged = [grader.ask("reasoning_gym", question.entry, text) for text in dict.fromkeys((answer, whole)) if text]
    return max(judged, key=lambda j: j.verdict == CORRECT, default=Judgement(WRONG, "no answer stated"))


def _by_tests(grader: Grader, response: str, question: Question) -> Judgement:
    return grader.run_tests(verify.code_of(response), question.answer)


def _solution(question: Question) -> str:
    return f"```python\n{question.solution}\n```" if question.solution else ""


def _scorer_obstacle(limits: Limits) -> str:
    return "" if importlib.util.find_spec("reasoning_gym") else "it needs reasoning-gym: pip install 'hpc_saidpo[demo]'"


WAYS: dict[str, Way] = {
    "math": Way(_by_mathematics, lambda question: f"\\boxed{{{question.answer}}}"),
    "exact": Way(_by_text, lambda question: f"\\boxed{{{question.answer}}}"),
    "reasoning_gym": Way(_by_scorer, lambda question: f"<answer>{question.answer}</answer>", _scorer_obstacle),
    "code": Way(_by_tests, _solution, code.obstacle),
}
assert set(WAYS) == set(VERIFIERS)


def check(names, limits: Limits) -> None:
    """Refuse verifiers that cannot grade here.

    Raises:
        RunError: says which, why, and what to do.
    """
    for name in names:
        if obstacle := WAYS[name].obstacle(limits):
            raise RunError(f"questions with the verifier {name}: {obstacle}")
