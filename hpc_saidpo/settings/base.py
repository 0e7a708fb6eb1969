"""The decorator of every settings class, and types that many fields share."""

from __future__ import annotations

from typing import Annotated, TypeVar, cast, dataclass_transform

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


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def group(cls: type[T]) -> type[T]:
    """Make a class a group of settings: a frozen dataclass that checks its values and refuses unknown keys.

    Raises (when such a class is instantiated):
        pydantic.ValidationError: an unknown key, a wrong type, or a value out of range.
    """
    return cast("type[T]", dataclass(cls, frozen=True, kw_only=True, config=ConfigDict(extra="forbid")))
