"""The settings of the group `pool`: questions from files, or generated ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Columns, Count, Limits, Name, Names, Needed, Positive, group

# Verifiers that a row of a file may name. `pool.verifier` may also be package.module:name, a verifier of the user's own
# module: `grader.verifiers.use_verifier` checks the setting.
VERIFIER_NAMES = ("math", "exact", "reasoning_gym", "code")

# reasoning-gym tasks whose scorers evaluate the answer, or a part of the entry, as Python code. No response may reach
# such a scorer.
EVALUATING = {
    "binary_matrix", "bitwise_arithmetic", "composite", "countdown", "intermediate_integration", "n_queens",
    "number_sorting", "polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix",
    "string_insertion",
}  # fmt: skip
# Tasks whose answer is not one expression that can be compared with another. Only the task's own scorer can grade them.
NOT_GRADABLE = {
    "countdown": "many answers are right",
    "puzzle24": "many answers are right",
    "bitwise_arithmetic": "its answers are hexadecimal numbers",
    "time_intervals": "its answers are durations and dates in many forms",
    "calendar_arithmetic": "its answers are dates and days in many forms",
}


@group
class Files:
    """Questions from files, folders, saved datasets, or a dataset in the Hub cache."""

    kind: Literal["files"] = "files"
    path: Needed
    files: Names = None
    columns: Columns = Field(default_factory=Columns)
    # Left out of repr(): a stored pool has a key without the default limits (`pool.stage`).
    limits: Limits = Field(default_factory=Limits, repr=False)
    verifier: Name = "math"
    on_bad: Literal["fail", "skip"] = "fail"
    decontaminate: bool = True
    other_numbers: Literal["keep", "remove"] = "keep"
    benchmarks: tuple[Name, ...] = ()
    ngram_words: Annotated[int, Field(ge=2)] = 13
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.5
    examples: str | None = None
    held_out: Count = 0
    seed: Count = 0


@group
class Arithmetic:
    """Generated step-by-step arithmetic: topics × ranges of numbers. `shares` sets the share of each range."""

    kind: Literal["arithmetic"] = "arithmetic"
    n: Positive = 2400
    shares: dict[str, float] = Field(default_factory=lambda: {"hard": 0.6, "trained": 0.25, "small": 0.15})
    held_out: Count = 320
    seed: Count = 0


@group
class Task:
    """One reasoning-gym task with its parameters: a topic and a level of the pool."""

    name: str
    task: str
    params: dict = Field(default_factory=dict)
    tags: tuple[str, ...]
    n: Positive


@group
class ReasoningGym:
    """Questions from reasoning-gym. Few-shot examples and held-out questions never occur in the pool."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    settings: Annotated[tuple[Task, ...], Field(min_length=1)]
    verifier: Name = "math"
    examples: Count = 4
    held_out: Count = 200
    seed: Count = 0

    def __post_init__(self):
        refused = dict.fromkeys(EVALUATING, "its scorer evaluates answers as Python")
        if self.verifier == "code":
            raise ValueError("verifier=code grades programs, but these questions have no tests: use math or exact")
        if self.verifier != "reasoning_gym":
            refused = NOT_GRADABLE if self.verifier in VERIFIER_NAMES else {}
        for task in (task.task for task in self.settings):
            if task in refused:
                raise ValueError(f"task {task!r} cannot be graded by {self.verifier}: {refused[task]}")


Pool = Annotated[Files | Arithmetic | ReasoningGym, Field(discriminator="kind")]


def compared_benchmarks(pool: Files | Arithmetic | ReasoningGym | None) -> tuple[str, ...]:
    """Return the benchmarks of pool.benchmarks, whose questions are removed from the pool; () if none are removed."""
    return pool.benchmarks if isinstance(pool, Files) and pool.decontaminate else ()
