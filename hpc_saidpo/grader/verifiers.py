"""Verifier by name -> how a response to a question is judged, and what is checked before any is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .. import settings
from ..errors import RunError
from ..records import CORRECT, UNGRADABLE, WRONG, Judgement, Question
from ..settings.pool import VERIFIER_NAMES
from . import code
from .answers.stated import code_of, same_blanks, stated


class Checkers(Protocol):
    """What a verifier may use: checks that run in processes which may be killed. `grader.Grader` has them."""

    def grade(self, response: str, gold: str, alternatives: Sequence[str] = ()) -> Judgement:
        """The verdict on a response, by mathematics."""
        ...

    def ask(self, *request: str) -> Judgement:
        """The verdict of the worker process on ("reasoning_gym", entry, answer)."""
        ...

    def run_tests(self, program: str, tests: str) -> Judgement:
        """The verdict on a program, by tests."""
        ...


@dataclass(frozen=True)
class Verifier:
    """How responses to one kind of question are graded.

    Attributes:
        judge: (checkers, response, question) -> the verdict.
        own_response: question -> a response that must be right; "" where none is known, which must be wrong.
        obstacle: why it cannot grade here; "" when it can.
    """

    judge: Callable[[Checkers, str, Question], Judgement]
    own_response: Callable[[Question], str]
    obstacle: Callable[[settings.Grader], str] = lambda limits: ""


def _by_mathematics(checkers: Checkers, response: str, question: Question) -> Judgement:
    return checkers.grade(response, question.answer, question.alt_answers)


def _by_text(checkers: Checkers, response: str, question: Question) -> Judgement:
    answer = stated(response, "exact")
    if not question.answer.strip():
        return Judgement(UNGRADABLE, "the gold answer is empty")
    if answer is None:
        return Judgement(WRONG, "no answer stated")
    golds = map(same_blanks, (question.answer, *question.alt_answers))
    is_one = same_blanks(answer) in golds
    return Judgement(CORRECT, "the same text") if is_one else Judgement(WRONG, "another text")


def _by_scorer(checkers: Checkers, response: str, question: Question) -> Judgement:
    answer = stated(response, "reasoning_gym")
    whole = response.rpartition("</think>")[2].strip()
    judged = [checkers.ask("reasoning_gym", question.entry, text) for text in dict.fromkeys((answer, whole)) if text]
    return max(judged, key=lambda j: j.verdict == CORRECT, default=Judgement(WRONG, "no answer stated"))


def _by_tests(checkers: Checkers, response: str, question: Question) -> Judgement:
    return checkers.run_tests(code_of(response), question.answer)


def _solution(question: Question) -> str:
    return f"```python\n{question.solution}\n```" if question.solution else ""


def _scorer_obstacle(limits: settings.Grader) -> str:
    return "" if importlib.util.find_spec("reasoning_gym") else "it needs reasoning-gym: pip install 'hpc_saidpo[demo]'"


VERIFIERS: dict[str, Verifier] = {
    "math": Verifier(_by_mathematics, lambda question: f"\\boxed{{{question.answer}}}"),
    "exact": Verifier(_by_text, lambda question: f"\\boxed{{{question.answer}}}"),
    "reasoning_gym": Verifier(_by_scorer, lambda question: f"<answer>{question.answer}</answer>", _scorer_obstacle),
    "code": Verifier(_by_tests, _solution, code.obstacle),
}
assert set(VERIFIERS) == set(VERIFIER_NAMES)


def check(names, limits: settings.Grader) -> None:
    """Refuse verifiers that cannot grade here.

    Raises:
        RunError: says which, why, and what to do.
    """
    for name in names:
        if obstacle := VERIFIERS[name].obstacle(limits):
            raise RunError(f"questions with the verifier {name}: {obstacle}")
