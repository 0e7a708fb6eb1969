"""Names of settings: the valid keys of a group, and messages about wrong keys and values."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError, shown
from .pool import Pool
from .whole import Settings

KINDS = {cls.kind for cls in typing.get_args(typing.get_args(Pool)[0])}
WHY = {"rollouts.k": "a pair needs a right and a wrong response to one question, so at least two"}
FREE = ("experiment", "sweep")  # groups of conf/ that set settings of other groups


def check_key(key: str) -> None:
    """Check that a key of a setting exists.

    Raises:
        RunError: it does not; the message names the key, the nearest valid key, and all valid keys beside it.
    """
    parts = key.split(".")
    for depth, part in enumerate(parts):
        valid = fields_at(parts[:depth])
        if depth == 0:
            valid = [*valid, *FREE]
        # A mapping may have any keys. A key below a plain value is left to the check of types.
        if valid and part not in valid:
            raise RunError(unknown(parts[: depth + 1], valid))


def fields_at(path: Iterable[str], kind: str | None = None) -> list[str]:
    """Return the names of the settings below a path such as ["rollouts", "prompt"]; [] where there are none.

    Args:
        kind: the kind of a group that has several (`pool`); None for the settings of all kinds.
    """
    hints: list[Any] = [Settings]
    for part in path:
        hints = [inner for hint in hints for inner in _below(hint, part)]
    classes = [cls for hint in hints for cls in _dataclasses(hint)]
    selected = [cls for cls in classes if kind is None or getattr(cls, "kind", kind) == kind]
    return list(dict.fromkeys(f.name for cls in selected for f in dataclasses.fields(cls)))


def _below(hint: Any, part: str) -> list[Any]:
    """Type hints of the field `part` in a value with this type hint."""
    if typing.get_origin(hint) is dict:  # evaluate.known.math500: every name has the same type
        return [typing.get_args(hint)[1]]
    return [typing.get_type_hints(cls, include_extras=True).get(part) for cls in _dataclasses(hint)]


def _dataclasses(hint: Any) -> list[type[Any]]:
    """The dataclasses in a type hint: the hint itself, or the members of a union."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    if typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        return [cls for argument in typing.get_args(hint) for cls in _dataclasses(argument)]
    return []


def explain(error: Mapping[str, Any]) -> str:
    """Turn one error of pydantic into a line for the user: the key, the problem, the value."""
    # In a group with several kinds, the kind comes second in the location: pool, files, path.
    kind = str(error["loc"][1]) if len(error["loc"]) > 1 and error["loc"][1] in KINDS else None
    parts = [str(part) for i, part in enumerate(error["loc"]) if not (i == 1 and kind)]
    path = [part for part in parts if not re.search(r"^constrained-|\[", part)]  # pydantic adds the type that it tried
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return "  " + unknown(path, fields_at(path[:-1], kind))
    if error["type"] in ("missing", "missing_argument"):
        return f"  {key} must be given"
    value = "" if isinstance(error["input"], Mapping) else f" (got {shown(repr(error['input']))})"
    return "  " + f"{key}: " * bool(key) + error["msg"].removeprefix("Value error, ") + value + _hint(key, error)


def _hint(key: str, error: Mapping[str, Any]) -> str:
    """What to write instead of a wrong value; "" where that is not known."""
    if error["type"] in ("tuple_type", "list_type"):
        return f": write a list, with quotation marks for the shell: '{key}=[{shown(error['input'])}]'"
    if error["type"] == "less_than_equal" and error["ctx"].get("le") == 1:
        return ": it is a share of 1; 5 % is 0.05"
    return f": {WHY[key]}" if key in WHY and error["type"].startswith("greater_than") else ""


def unknown(path: list[str], valid: list[str]) -> str:
    """Return the message about an unknown key: the nearest valid key, and all valid keys beside it."""
    near = [".".join([*path[:-1], name]) for name in difflib.get_close_matches(path[-1], valid, n=1)]
    elsewhere = [] if path[:-1] else _keys_called(path[-1])
    hint = f"; did you mean {' or '.join(map(repr, elsewhere or near))}?" if elsewhere or near else "."
    where = f"of {'.'.join(path[:-1])}" if path[:-1] else "at the top"
    return f"unknown key {'.'.join(path)!r}{hint} Valid keys {where}: {', '.join(valid)}"


def _keys_called(name: str) -> list[str]:
    """Return the keys of all groups whose last part is this name."""

    def below(path: list[str]) -> list[str]:
        fields = fields_at(path)
        found = [".".join([*path, name])] if name in fields and path else []
        return found + [key for field in fields for key in below([*path, field]) if len(path) < 3]

    return below([])


def conf_folder() -> Path:
    """Return the folder of the YAML files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def options_of(group: str) -> list[str]:
    """Return the names of the YAML files of a group such as "experiment" or "rollouts/prompt", sorted."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
