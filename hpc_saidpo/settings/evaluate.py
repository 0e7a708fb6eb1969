"""The settings of the groups `evaluate` and `benchmark`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ..errors import RunError
from ..names import RULE, fault_of
from .base import Columns, Limits, Name, Positive, group

HELD_OUT = "held_out"  # name of the benchmark of the pool's own questions that are never trained on
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@group
class Benchmark:
    """A benchmark that has a name (conf/benchmark/).

    None means the value of evaluate.columns, .limit, .samples, .temperature, .top_p.
    """

    file: Name
    columns: Columns | None = None
    limit: Positive | None = None
    n_questions: Positive | None = None
    samples: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


@dataclass(frozen=True)
class BenchmarkPlan:
    """The evaluation of one benchmark.

    Attributes:
        file: file of its questions; "" for the pool's held-out questions.
        n_questions: number of questions that the file should have; None for any number.
        columns: names of the columns of the file.
        limit: only so many questions are used, the first ones; None for all.
        samples: responses to each question.
        temperature, top_p: sampling of the responses; temperature 0 is greedy.
    """

    file: str
    n_questions: int | None
    samples: int
    temperature: float
    top_p: float
    columns: Columns = field(default_factory=Columns)
    limit: int | None = None


@group
class BenchmarkLimits(Limits):
    """The largest input that is read of a benchmark; the same limits as those of a pool."""

    GROUP = "evaluate"


@group
class Evaluate:
    """The benchmarks on which a policy is evaluated, and the sampling of its responses."""

    benchmarks: tuple[Name, ...] = ()
    folder: Name = "benchmarks"
    columns: Columns | None = None
    limit: Positive | None = None
    samples: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    every: Positive = 1
    limits: BenchmarkLimits = Field(default_factory=BenchmarkLimits)
    known: dict[str, Benchmark] = Field(default_factory=dict)

    def __post_init__(self):
        first: dict[str, str] = {}
        for name in (*self.benchmarks, *self.known):
            check_name(name)
        for name in self.benchmarks:
            if not _is_file(name) and name not in (HELD_OUT, *self.known):  # `plan` checks those of pool.benchmarks
                raise ValueError(self._unknown(name))
            if first.setdefault(short_name(name), name) != name or self.benchmarks.count(name) > 1:
                raise ValueError(f"two of benchmarks are called {short_name(name)!r}: rename one of the files")

    def _unknown(self, name: str) -> str:
        valid = [HELD_OUT, *self.known]
        near = difflib.get_close_matches(name, valid, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return (
            f"{name!r} in benchmarks is not the name of a benchmark.{hint} Names are {', '.join(valid)}. A file is "
            f"named by its path ({name}.jsonl, ./{name})"
        )

    def plan(self, names: Sequence[str] | None = None) -> dict[str, BenchmarkPlan]:
        """Return the evaluation of each benchmark in `benchmarks`, or of each one in `names`, by its short name.

        A file whose short name is the name of a benchmark in `known` is treated as that benchmark, in any folder.

        Raises:
            RunError: one of `names` is neither the name of a benchmark nor a file.
        """
        return {short_name(name): self._plan_of_one(name) for name in (self.benchmarks if names is None else names)}

    def _plan_of_one(self, name: str) -> BenchmarkPlan:
        try:
            known = self.known.get(check_name(name))
        except ValueError as error:
            raise RunError(str(error)) from None
        if not (known or _is_file(name) or name == HELD_OUT):
            raise RunError(self._unknown(name))
        benchmark = known or Benchmark(file="-")
        file = name
        if not _is_file(name):
            file = f"{self.folder}/{known.file}" if known and not known.file.startswith("/") else benchmark.file
        return BenchmarkPlan(
            "" if name == HELD_OUT else file,
            benchmark.n_questions,
            benchmark.samples or self.samples,
            self.temperature if benchmark.temperature is None else benchmark.temperature,
            benchmark.top_p or self.top_p,
            benchmark.columns or self.columns or Columns(),
            benchmark.limit or self.limit,
        )


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith(SUFFIXES)


def short_name(name: str) -> str:
    """Return a benchmark's name in the run folder and in tables: a file's name without folder and suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2] if _is_file(name) else name


def check_name(name: str) -> str:
    """Return the short name of a benchmark, which becomes the name of a folder.

    Raises:
        ValueError: it cannot be one.
    """
    short = short_name(name)
    if fault := fault_of(short):
        raise ValueError(
            f"the benchmark {name!r:.300} would have the name {short!r:.200}, which {fault}: rename the file or its "
            f"key in evaluate.known; {RULE}"
        )
    return short
