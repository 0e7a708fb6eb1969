"""Names of settings: which exist under a group, and messages about wrong ones."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import RunError
from .pool import Pool
from .whole import Settings

KINDS = {cls.kind for cls in typing.get_args(typing.get_args(Pool)[0])}
FREE = ("experiment", "sweep")  # groups of conf/ that are no settings of their own


def check_key(key: str) -> None:
    """Refuse a key of a setting that does not exist.

    Raises:
        RunError: names the key, the nearest valid one, and all valid ones beside it.
    """
    parts = key.split(".")
    for depth, part in enumerate(parts):
        valid = fields_at(parts[:depth])
        if depth == 0:
            valid = [*valid, *FREE]
        # Names in a mapping are free, and what is below a plain value is for the type check.
        if valid and part not in valid:
            raise RunError(unknown(parts[: depth + 1], valid))


def fields_at(path: Iterable[str], kind: str | None = None) -> list[str]:
    """Names of the settings under a path such as ["rollouts", "prompt"]; empty where there are none.

    Args:
        kind: where a group comes in several kinds (`pool`), the one that is meant; None means all of them.
    """
    hints = [Settings]
    for part in path:
        hints = [inner for hint in hints for inner in _below(hint, part)]
    found = [cls for hint in hints for cls in _dataclasses(hint)]
    meant = [cls for cls in found if kind is None or getattr(cls, "kind", kind) == kind]
    return list(dict.fromkeys(f.name for cls in meant for f in dataclasses.fields(cls)))


def _below(hint, part: str) -> list:
    """The type hints of a part of what has this type hint."""
    if typing.get_origin(hint) is dict:  # by name: evaluate.known.math500
        return [typing.get_args(hint)[1]]
    return [typing.get_type_hints(cls, include_extras=True).get(part) for cls in _dataclasses(hint)]


def _dataclasses(hint) -> list[type]:
    """The dataclasses in a type hint: itself, or the members of a union."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    if typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        return [found for argument in typing.get_args(hint) for found in _dataclasses(argument)]
    return []


def explain(error: Mapping) -> str:
    """One error of pydantic as a line for the user: the key, what is wrong, the value."""
    # In a group of several kinds, the kind stands second in the location: pool, files, path.
    kind = str(error["loc"][1]) if len(error["loc"]) > 1 and error["loc"][1] in KINDS else None
    parts = [str(part) for i, part in enumerate(error["loc"]) if not (i == 1 and kind)]
    path = [part for part in parts if not re.search(r"^constrained-|\[", part)]  # which of several types was tried
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return "  " + unknown(path, fields_at(path[:-1], kind))
    if error["type"] in ("missing", "missing_argument"):
        return f"  {key} must be given"
    got = "" if isinstance(error["input"], Mapping) else f" (got {error['input']!r})"
    return "  " + f"{key}: " * bool(key) + error["msg"].removeprefix("Value error, ") + got


def unknown(path: list[str], valid: list[str]) -> str:
    near = difflib.get_close_matches(path[-1], valid, n=1)
    hint = f"; did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else "."
    where = f"of {'.'.join(path[:-1])}" if path[:-1] else "at the top"
    return f"unknown key {'.'.join(path)!r}{hint} Valid keys {where}: {', '.join(valid)}"


def conf_folder() -> Path:
    """Where the YAML files lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def options_of(group: str) -> list[str]:
    """Names of the YAML files of a group of conf/, such as "experiment" or "rollouts/prompt"; sorted."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
