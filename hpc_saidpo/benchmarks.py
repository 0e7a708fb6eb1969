"""Benchmarks by name or by file -> their questions, and how each is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from . import evaluate, pool
from .records import Question, RunError


@dataclass(frozen=True)
class Benchmark:
    """The questions of a benchmark.

    Attributes:
        name: in the run folder and in tables.
    """

    name: str
    how: evaluate.How
    questions: list[Question]

    def notes(self) -> list[str]:
        """What a reader of its figures has to know."""
        found, how = [], self.how
        if how.n_questions and how.n_questions != len(self.questions):
            found.append(
                f"{self.name}: {how.file} has {len(self.questions)} questions, the benchmark has {how.n_questions}: "
                "not to be compared with figures of the whole"
            )
        if how.samples > 1 and how.temperature == 0:
            found.append(
                f"{self.name}: {how.samples} greedy responses to a question are {how.samples} times the same: set "
                "evaluate.temperature, or evaluate.samples=1"
            )
        return found


def load(config: evaluate.Config, held_out: list[Question]) -> list[Benchmark]:
    """The benchmarks asked for. Not collective: called on root.

    Raises:
        RunError: there are no held-out questions; a file is not readable, or has none.
    """
    found = []
    for name, how in config.plan().items():
        questions = pool.read_jsonl(how.file) if how.file else held_out
        if not questions:
            remedy = "give a file with questions" if how.file else "set pool.held_out above 0"
            raise RunError(f"evaluate.benchmarks: {how.file or name} has no questions: {remedy}")
        found.append(Benchmark(name, how, questions))
    return found
