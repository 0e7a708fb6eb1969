"""Grading for a rank: verdicts from text in place, mathematics in a process of its own, each pair once."""

from .grader import Grader, Limits
from .self_check import GoldReport, self_check, together

__all__ = ["GoldReport", "Grader", "Limits", "self_check", "together"]
