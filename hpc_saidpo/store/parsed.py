"""Texts, JSON and YAML of files that another program may have written: whatever they hold, one exception reports it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 2**28  # of a file that is read at once
MAX_VALUES = 1_000_000  # of a YAML file, with those of each alias


def read_text(path: Path) -> str:
    """Return the content of a plain file in UTF-8. Waits for no pipe.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is a pipe, a device or a folder, or is longer than MAX_BYTES, or is not UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no plain file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES:,} bytes")
    return content.decode("utf-8")


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. Raises as `read_text`, and ValueError where it is not JSON."""
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def parse_object(text: str) -> dict[str, Any]:
    """Return the object of a JSON text. Raises as `parse_json`, and ValueError where it is another value."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


def parse_objects(text: str) -> list[dict[str, Any]]:
    """Return the list of objects of a JSON text. Raises as `parse_object`."""
    value = parse_json(text)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("is no list of JSON objects")
    return value


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: it is not YAML, is nested too deep, or repeats aliases until it is too large.
    """
    import yaml  # `hpc-saidpo status` needs none

    try:
        value = yaml.safe_load(text)
        for n, _ in enumerate(_values(value)):
            if n > MAX_VALUES:
                raise ValueError("has too many values")
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    return value


def _values(value: Any) -> Iterator[Any]:
    """Yield every value inside lists and mappings; one with several aliases, several times."""
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)
