"""The settings of a pool from files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..records import Verifier, settings
from .columns import Config as Columns
from .columns import Name, Names, Needed
from .pools import Count


@settings()
class Config:
    """Questions from files, folders, saved datasets or a dataset in the Hub cache."""

    kind: Literal["files"] = "files"
    path: Needed
    files: Names = None
    columns: Columns = Field(default_factory=Columns)
    verifier: Verifier = "math"
    on_bad: Literal["fail", "skip"] = "fail"
    decontaminate: bool = True
    benchmarks: tuple[Name, ...] = ()
    ngram_words: Annotated[int, Field(ge=2)] = 13
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.5
    examples: str | None = None
    held_out: Count = 0
    seed: Count = 0
