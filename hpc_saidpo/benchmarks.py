"""Benchmarks by name or by file -> their questions, and how each is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    questions: Sequence[Question]

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


def read(config) -> dict[str, list[Question]]:
    """The questions of the benchmarks that are files, and of those of pool.benchmarks, by short name. Called on root.

    Raises:
        RunError: a file is not readable.
    """
    is_compared = config.pool and config.pool.kind == "files" and config.pool.decontaminate
    also = config.pool.benchmarks if is_compared else ()
    plans = {**config.evaluate.plan(also), **config.evaluate.plan()}
    return {name: pool.read_questions(how.file) for name, how in plans.items() if how.file}


def load(
    config: evaluate.Config, held_out: Sequence[Question], known: Mapping[str, list[Question]] | None = None
) -> list[Benchmark]:
    """The benchmarks asked for. Not collective: called on root.

    Args:
        known: what `read` has read already.

    Raises:
        RunError: there are no held-out questions; a file is not readable, or has none.
    """
    found = []
    for name, how in config.plan().items():
        questions = (known or {}).get(name) or (pool.read_questions(how.file) if how.file else held_out)
        if not questions:
            remedy = "give a file with questions" if how.file else "set pool.held_out above 0"
            raise RunError(f"evaluate.benchmarks: {how.file or name} has no questions: {remedy}")
        found.append(Benchmark(name, how, questions))
    return found
