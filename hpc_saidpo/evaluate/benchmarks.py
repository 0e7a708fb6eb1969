"""Benchmarks by name or by file -> their questions, and how each is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import settings
from ..errors import RunError
from ..pool.questions import read_questions
from ..records import Question


@dataclass(frozen=True)
class Benchmark:
    """The questions of a benchmark.

    Attributes:
        name: in the run folder and in tables.
    """

    name: str
    plan: settings.BenchmarkPlan
    questions: Sequence[Question]

    def notes(self) -> list[str]:
        """What a reader of its figures has to know."""
        found, how = [], self.plan
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


def read(config: settings.Evaluate, also: Sequence[str] = ()) -> dict[str, list[Question]]:
    """The questions of the benchmarks that are files, by short name. Called on root.

    Args:
        also: further benchmarks to read, for comparison with the pool (pool.benchmarks).

    Raises:
        RunError: a file is not readable.
    """
    plans = {**config.plan(also), **config.plan()}
    return {name: read_questions(how.file) for name, how in plans.items() if how.file}


def load(
    config: settings.Evaluate, held_out: Sequence[Question], known: Mapping[str, list[Question]] | None = None
) -> list[Benchmark]:
    """The benchmarks asked for. Not collective: called on root.

    Args:
        known: what `read` has read already.

    Raises:
        RunError: there are no held-out questions; a file is not readable, or has none.
    """
    found = []
    for name, how in config.plan().items():
        questions = (known or {}).get(name) or (read_questions(how.file) if how.file else held_out)
        if not questions:
            remedy = "give a file with questions" if how.file else "set pool.held_out above 0"
            raise RunError(f"evaluate.benchmarks: {how.file or name} has no questions: {remedy}")
        found.append(Benchmark(name, how, questions))
    return found
