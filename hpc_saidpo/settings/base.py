"""The decorator of every settings class, and types that several groups share."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, cast, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains the character NUL, which no path has")
    return text


Name = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Needed = Name | Annotated[tuple[Name, ...], Field(min_length=1)]  # of several columns, the first that a row has is read
Message = Literal["last_user", "only"]  # of a chat in the column of the question
Names = Needed | None  # None: the file has no such column


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def group(cls: type[T]) -> type[T]:
    """Make a class a group of settings: a frozen dataclass that checks its values and refuses unknown keys.

    Raises (when such a class is instantiated):
        pydantic.ValidationError: an unknown key, a wrong type, or a value out of range.
    """
    return cast("type[T]", dataclass(cls, frozen=True, kw_only=True, config=ConfigDict(extra="forbid")))


@group
class Limits:
    """The largest input that is read. A row beyond a limit is a bad row; the message names the limit.

    Attributes:
        line_mib: a line of JSON lines, or a row of CSV, Parquet or Arrow.
        json_mib: a whole JSON file.
        columns: the columns of a table.
        cell_chars: each text of a row: the question, the solution, tests.
        answer_chars: a gold answer; all alternative answers of a row together.
        alt_answers: alternative answers of a row.
    """

    GROUP = "pool"
    line_mib: Positive = 16
    json_mib: Positive = 256
    columns: Positive = 1000
    cell_chars: Positive = 1_000_000
    answer_chars: Positive = 10_000
    alt_answers: Positive = 100

    def describe(self, name: str) -> str:
        """Return a limit as a message shows it: "at most 1,000 (pool.limits.columns)"."""
        unit = name.rpartition("_")[2]
        unit = {"mib": " MiB", "chars": " characters"}.get(unit, "")
        return f"at most {getattr(self, name):,}{unit} ({self.GROUP}.limits.{name})"


@group
class Columns:
    """Names of the columns. A dot leads into a nested value; on a list it leads into each item."""

    question: Needed = "question"
    answer: Names = "answer"
    answer_from: Literal["column", "boxed", "hash"] = "column"
    no_answer: tuple[str, ...] = ()
    id: Names = "id"
    solution: Names = "solution"
    subject: Names = "subject"
    level: Names = "level"
    tags: Names = "tags"
    source: Names = "source"
    alt_answers: Names = "alt_answers"
    verifier: Names = "verifier"
    entry: Names = "entry"
    rows: Name | None = None
    message: Message = "last_user"
