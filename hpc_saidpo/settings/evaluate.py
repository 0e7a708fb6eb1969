"""The settings of the groups `evaluate` and `benchmark`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..errors import RunError
from .base import Name, Positive, group

HELD_OUT = "held_out"  # the pool's own questions that are never trained on
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@group
class Benchmark:
    """A benchmark by name (conf/benchmark/). None: as evaluate.samples, .temperature and .top_p say."""

    file: Name
    n_questions: Positive | None = None
    samples: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


@dataclass(frozen=True)
class BenchmarkPlan:
    """How a benchmark is evaluated.

    Attributes:
        file: its questions; "" for the pool's held-out ones.
        n_questions: how many the file should have; None where nothing is known of it.
        samples, temperature, top_p: of the responses; temperature 0 is greedy.
    """

    file: str
    n_questions: int | None
    samples: int
    temperature: float
    top_p: float


@group
class Evaluate:
    benchmarks: tuple[Name, ...] = (HELD_OUT,)
    folder: Name = "benchmarks"
    samples: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    every: Positive = 1
    known: dict[str, Benchmark] = Field(default_factory=dict)

    def __post_init__(self):
        given: dict[str, str] = {}
        for name in self.benchmarks:
            if not _is_file(name) and name not in (HELD_OUT, *self.known):  # in pool.benchmarks: told by `plan`
                raise ValueError(self._unknown(name))
            if given.setdefault(short(name), name) != name or self.benchmarks.count(name) > 1:
                raise ValueError(f"two of benchmarks are called {short(name)!r}: rename one of the files")

    def _unknown(self, name: str) -> str:
        valid = [HELD_OUT, *self.known]
        near = difflib.get_close_matches(name, valid, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return (
            f"{name!r} in benchmarks is none.{hint} There are {', '.join(valid)}, and files by their "
            f"path ({name}.jsonl, ./{name})"
        )

    def plan(self, names: Sequence[str] | None = None) -> dict[str, BenchmarkPlan]:
        """How each benchmark asked for, or each of these, is evaluated, by its short name.

        A file that is called as a known benchmark is taken for that, wherever it lies.

        Raises:
            RunError: one of `names` is neither known nor a file.
        """
        return {short(name): self._how(name) for name in (self.benchmarks if names is None else names)}

    def _how(self, name: str) -> BenchmarkPlan:
        known = self.known.get(short(name))
        if not (known or _is_file(name) or name == HELD_OUT):
            raise RunError(self._unknown(name))
        own = known or Benchmark(file="-")
        file = name
        if not _is_file(name):
            file = f"{self.folder}/{known.file}" if known and not known.file.startswith("/") else own.file
        return BenchmarkPlan(
            "" if name == HELD_OUT else file,
            own.n_questions,
            own.samples or self.samples,
            self.temperature if own.temperature is None else own.temperature,
            own.top_p or self.top_p,
        )


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith(SUFFIXES)


def short(name: str) -> str:
    """A benchmark's name in the run folder and in tables: of a file, its own without folder and ending."""
    return name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2] if _is_file(name) else name
