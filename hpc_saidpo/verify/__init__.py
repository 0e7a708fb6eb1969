"""Response text + gold answer -> correct, wrong or ungradable.

Model output is hostile input: it is compared as text, as exact rationals and by the values of a small grammar. Nothing
of it is evaluated. `grader` adds the library that knows more mathematics, in a process of its own, and the verifiers
that are not for mathematics.
"""

from .extract import MAX_ANSWER_CHARS, boxed_apart, boxes, candidates, extract
from .fast import Judgement, normalise, settle, thorough
from .gold import cleaned, defects, is_prose
from .stated import ballot, code_of, same_blanks, stated

__all__ = [
    "MAX_ANSWER_CHARS", "Judgement", "ballot", "boxed_apart", "boxes", "candidates", "cleaned", "code_of", "defects",
    "extract", "is_prose", "normalise", "same_blanks", "settle", "stated", "thorough",
]  # fmt: skip
