"""Verifiers: the rules that grade responses, each by its name.

A verifier of the package is one entry of `VERIFIERS`, and one name in `settings.pool.VERIFIER_NAMES`.

With `pool.verifier=package.module:name`, an object of the user's module grades the questions that name no verifier:

    def check(response: str, question: hpc_saidpo.records.Question) -> bool | None

returns True for a correct response, False for a wrong one, and None for one that it cannot grade. Or the object is a
`Verifier`, which can also use the checkers of the package and check gold answers. Only the setting can name such an
object, on the command line or in YAML; a row of a file must name a verifier of the package. The module is imported once
per rank. It must be installed, or its folder must be in PYTHONPATH. The function runs in the process of the rank,
without a time limit. Its result must depend on its arguments alone, because a resumed run may grade a response again.
If it raises, the response is ungradable, and the run continues.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from .. import settings
from ..errors import RunError, words_of
from ..plugin import choose, describe
from ..records import CORRECT, UNGRADABLE, VERDICTS, WRONG, Judgement, Question
from ..settings.pool import VERIFIER_NAMES
from . import code
from .answers.exact import normalise
from .answers.extract import extract
from .answers.stated import code_of, same_blanks, tagged

A = TypeVar("A")
KEY = "pool.verifier"


class Checkers(Protocol):
    """Checks for a verifier to use; they run in processes that may be killed. `grader.Grader` implements them."""

    def grade(self, response: str, gold: str, alternatives: Sequence[str] = ()) -> Judgement:
        """The verdict on a response, by mathematics."""
        ...

    def request(self, kind: str, gold: str, answer: str) -> Judgement:
        """The verdict of the worker process on "reasoning_gym", an entry and an answer."""
        ...

    def run_tests(self, program: str, tests: str) -> Judgement:
        """The verdict on a program, by tests."""
        ...


@dataclass(frozen=True)
class Verifier:
    """The grading of one kind of question.

    Attributes:
        judge: (checkers, response, question) -> the verdict.
        own_response: question -> a response that must be correct; "" if none is known, and "" must be wrong. It checks
            gold answers against themselves before the first rollout. None: they are not checked.
        obstacle: limits -> the reason why this machine cannot grade, and what to do; "" if it can.
        stated: response -> the answer that it states; None if it states none. For majority votes and reports.
        counted: answer -> a text that is the same for equal answers, for majority votes.
    """

    judge: Callable[[Checkers, str, Question], Judgement]
    own_response: Callable[[Question], str] | None = None
    obstacle: Callable[[settings.Grader], str] = lambda limits: ""
    stated: Callable[[str], str | None] = extract
    counted: Callable[[str], str] = same_blanks

    def verdict(self, checkers: Checkers, response: str, question: Question) -> Judgement:
        """Grade a response by `judge`. Where that raises, or returns no Judgement, the response is ungradable.

        Raises:
            RunError: a checker's process does not start, so no verdict could be trusted.
        """
        try:
            judgement = self.judge(checkers, response, question)
            if not isinstance(judgement, Judgement) or judgement.verdict not in VERDICTS:
                raise TypeError(f"the verifier must return a Judgement, not {judgement!r}")
        except RunError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - no response and no gold answer ends a run
            return Judgement(UNGRADABLE, f"gave up: {words_of(error, with_type=True)}")
        return judgement

    def answer(self, response: str) -> str | None:
        """The answer that a response states; None where there is none, or `stated` raises."""
        try:
            answer = self.stated(response)
        except (Exception, SystemExit):  # noqa: BLE001 - as in `verdict`
            return None
        return answer if isinstance(answer, str) else None

    def ballot(self, response: str) -> str | None:
        """The text by which equal answers are counted; None for a response without an answer."""
        answer = self.answer(response)
        try:
            return None if answer is None else self.counted(answer)
        except (Exception, SystemExit):  # noqa: BLE001 - as in `verdict`
            return same_blanks(answer or "")


def _by_mathematics(checkers: Checkers, response: str, question: Question) -> Judgement:
    return checkers.grade(response, question.answer, question.alt_answers)


def _by_text(checkers: Checkers, response: str, question: Question) -> Judgement:
    answer = extract(response)
    if not question.answer.strip():
        return Judgement(UNGRADABLE, "the gold answer is empty")
    if answer is None:
        return Judgement(WRONG, "no answer stated")
    golds = map(same_blanks, (question.answer, *question.alt_answers))
    is_one = same_blanks(answer) in golds
    return Judgement(CORRECT, "the same text") if is_one else Judgement(WRONG, "another text")


def _by_scorer(checkers: Checkers, response: str, question: Question) -> Judgement:
    answer = tagged(response)
    whole = response.rpartition("</think>")[2].strip()
    judged = [checkers.request("reasoning_gym", question.entry, t) for t in dict.fromkeys((answer, whole)) if t]
    return max(judged, key=lambda j: j.verdict == CORRECT, default=Judgement(WRONG, "no answer stated"))


def _by_tests(checkers: Checkers, response: str, question: Question) -> Judgement:
    return checkers.run_tests(code_of(response), question.answer)


def _boxed(question: Question) -> str:
    return f"\\boxed{{{question.answer}}}"


def _solution(question: Question) -> str:
    return f"```python\n{question.solution}\n```" if question.solution else ""


def _scorer_obstacle(limits: settings.Grader) -> str:
    return "" if importlib.util.find_spec("reasoning_gym") else "it needs reasoning-gym: pip install 'hpc_saidpo[demo]'"


VERIFIERS: dict[str, Verifier] = {
    "math": Verifier(_by_mathematics, _boxed, counted=normalise),
    "exact": Verifier(_by_text, _boxed),
    "reasoning_gym": Verifier(_by_scorer, lambda q: f"<answer>{q.answer}</answer>", _scorer_obstacle, tagged),
    "code": Verifier(_by_tests, _solution, code.obstacle, code_of),
}
assert set(VERIFIERS) == set(VERIFIER_NAMES)
_of_setting: dict[str, Verifier] = {}  # verifiers of the user that the settings of this process name


def use_verifier(name: str) -> Verifier:
    """Return the verifier that `pool.verifier` names, and allow questions to name it. Imports the user's module.

    Raises:
        RunError: there is no such verifier, or the object is neither a function of (response, question) nor a Verifier.
    """
    if name not in VERIFIERS and name not in _of_setting:
        _of_setting[name] = _of_user(name, choose(KEY, name, VERIFIERS, object))
    return find_verifier(name)


def find_verifier(name: str) -> Verifier:
    """Return the verifier that a question names.

    Raises:
        RunError: it is neither a verifier of the package nor the one that `pool.verifier` names.
    """
    verifier = VERIFIERS.get(name) or _of_setting.get(name)
    if verifier is None:
        raise RunError(
            f"a question names the verifier {name!r}: there are {', '.join(VERIFIERS)}, and a verifier of your own "
            f"must be named by {KEY}"
        )
    return verifier


def check(names: Iterable[str], limits: settings.Grader) -> None:
    """Refuse verifiers that cannot grade on this machine.

    Raises:
        RunError: names the verifier, the reason, and what to do.
    """
    for name in names:
        if obstacle := find_verifier(name).obstacle(limits):
            raise RunError(f"questions with the verifier {name}: {obstacle}")


def _of_user(name: str, value: object) -> Verifier:
    """A verifier made of the user's functions: those that are called before the first rollout report exceptions."""
    if isinstance(value, Verifier):
        own_response = value.own_response and _reported(name, "own_response", value.own_response)
        return replace(value, own_response=own_response, obstacle=_reported(name, "obstacle", value.obstacle))
    if isinstance(value, type) or not callable(value) or not _accepts_two(value):
        raise RunError(
            f"{KEY}={name}: it must be a function of (response, question) that returns True, False or None, or an "
            f"object of the class {Verifier.__module__}.{Verifier.__name__}, but it is {describe(value)}"
        )
    return Verifier(lambda checkers, response, question: _judgement(value(response, question)))


def _accepts_two(function: Callable) -> bool:
    try:
        inspect.signature(function).bind("response", "question")
    except TypeError:
        return False
    except ValueError:  # a function of a C library shows no signature
        return True
    return True


def _judgement(result: object) -> Judgement:
    """The verdict of a user's function: True, False, or None for a response that it cannot grade."""
    if result is None:
        return Judgement(UNGRADABLE, "the verifier returned None")
    if not isinstance(result, bool | np.bool_):
        raise TypeError(f"the verifier must return True, False or None, not {result!r}")
    return Judgement(CORRECT if result else WRONG, f"the verifier returned {bool(result)}")


def _reported(name: str, attribute: str, function: Callable[[A], str]) -> Callable[[A], str]:
    """A user's function that is called before the first rollout: an exception in it is a message to the user."""

    def call(argument: A) -> str:
        try:
            return function(argument)
        except (Exception, SystemExit) as error:
            raise RunError(f"{KEY}={name}: its {attribute} fails: {words_of(error, with_type=True)}") from error

    return call
