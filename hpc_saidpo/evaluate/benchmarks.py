"""Benchmarks by name or by file -> their questions, and the plan of each evaluation."""

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
        name: the name in the run folder and in tables.
        plan: the file, and the sampling of responses.
    """

    name: str
    plan: settings.BenchmarkPlan
    questions: Sequence[Question]

    def notes(self) -> list[str]:
        """Remarks for readers of its figures."""
        notes, plan = [], self.plan
        if plan.limit == len(self.questions):
            notes.append(
                f"{self.name}: its first {plan.limit} questions alone (evaluate.limit): not to be compared with "
                "figures of the whole"
            )
        elif plan.n_questions and plan.n_questions != len(self.questions):
            notes.append(
                f"{self.name}: {plan.file} has {len(self.questions)} questions, the benchmark has {plan.n_questions}: "
                "not to be compared with figures of the whole"
            )
        if plan.samples > 1 and plan.temperature == 0:
            notes.append(
                f"{self.name}: {plan.samples} greedy responses to a question are {plan.samples} times the same: set "
                "evaluate.temperature, or evaluate.samples=1"
            )
        return notes


def read(config: settings.Evaluate, also: Sequence[str] = ()) -> dict[str, list[Question]]:
    """Read the questions of the benchmarks that are files, by short name. Called on root.

    Args:
        also: further benchmarks, for comparison with the pool (pool.benchmarks).

    Raises:
        RunError: a file cannot be read.
    """
    plans = {**config.plan(also), **config.plan()}
    return {name: _questions(plan, config) for name, plan in plans.items() if plan.file}


def _questions(plan: settings.BenchmarkPlan, config: settings.Evaluate) -> list[Question]:
    return read_questions(plan.file, plan.columns, config.limits)


def load(
    config: settings.Evaluate, held_out: Sequence[Question], known: Mapping[str, list[Question]] | None = None
) -> list[Benchmark]:
    """Load the benchmarks of evaluate.benchmarks. Not collective: called on root.

    Args:
        held_out: held-out questions of the pool.
        known: questions that `read` has read already, by name.

    Raises:
        RunError: there are no held-out questions; a file cannot be read, or has no questions.
    """
    benchmarks = []
    for name, plan in config.plan().items():
        questions = (known or {}).get(name) or held_out
        if plan.file and name not in (known or {}):
            questions = _questions(plan, config)
        if not questions:
            remedy = "name a file with questions" if plan.file else "set pool.held_out above 0"
            raise RunError(f"evaluate.benchmarks: {plan.file or name} has no questions: {remedy}")
        benchmarks.append(Benchmark(name, plan, questions[: plan.limit]))
    return benchmarks
