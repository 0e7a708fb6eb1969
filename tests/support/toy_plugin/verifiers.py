"""Verifiers of a user, good ones and bad ones."""

import os
import re
import time

from hpc_saidpo.grader.verifiers import Verifier
from hpc_saidpo.records import CORRECT, WRONG, Judgement

calls = []


def last_number(response, question):
    """Whether the last number of a response is the gold answer; None without a number."""
    calls.append(question.id)
    numbers = re.findall(r"-?\d+", response)
    return numbers[-1] == question.answer if numbers else None


def unhurried(response, question):
    """`last_number` after a pause of TOY_PAUSE_S seconds: a run lasts as long as a test needs and computes little."""
    time.sleep(float(os.environ.get("TOY_PAUSE_S", 0)))
    return last_number(response, question)


def _judge(checkers, response, question):
    if "raise" in response:
        raise KeyError("no such case")
    if "odd" in response:
        return "correct"
    if "tests" in response:
        return checkers.run_tests(response, question.answer)
    return Judgement(CORRECT if question.answer in response else WRONG, "by the toy")


contains = Verifier(_judge, lambda question: question.answer, stated=lambda r: 1 / 0, counted=lambda a: 1 / 0)
unavailable = Verifier(_judge, obstacle=lambda limits: "the toy needs batteries: buy some")
unready = Verifier(_judge, lambda question: question.missing, lambda limits: 1 / 0)


def raises(response, question):
    raise RuntimeError(f"cannot read {response!r}")


def leaves(response, question):
    raise SystemExit(0)


def talks(response, question):
    return "yes"


def one_argument(response):
    return True


class Judge:
    """Its objects are verifiers, the class itself is none."""

    def __call__(self, response, question):
        return response == question.answer


judge = Judge()
number = 3
