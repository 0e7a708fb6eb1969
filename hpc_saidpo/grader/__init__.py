"""Grading for a rank: verdicts from text in place, the rest in processes that may be killed, each pair once."""

from .grader import Grader
from .limits import Limits
from .scorer import EVALUATING
from .self_check import GoldReport, by_grading, self_check, together
from .verifiers import check

__all__ = ["EVALUATING", "GoldReport", "Grader", "Limits", "by_grading", "check", "self_check", "together"]
