"""Plain values as JSON and back: arguments and results of calls between the tests and the response's code.

A received value always has one of Python's built-in types: an object with a special `__eq__` cannot cross.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

# A value in JSON's types, as `pack` makes it.
Packed = None | bool | int | float | str | dict[str, Any]

READY = "ready"  # the first message of the response's process; another one is the reason why it cannot be confined
MAX_BYTES = 2**20  # of a message
MAX_BYTES_IN_ALL = 2**24  # of the messages of a response
MAX_ITEMS = 100_000  # of an iterator
MAX_DIGITS = 20_000  # of an integer: more would be slow to read
_SCALARS = (bool, int, float, str)
_GROUPS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}


def pack(value: Any) -> Packed:
    """A value in JSON's types.

    Raises:
        TypeError: it is not a plain value.
    """
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    if isinstance(value, Iterator):
        return {"iterator": [pack(item) for item in islice(value, MAX_ITEMS)]}
    for name in ("list", "tuple", "set", "frozenset"):
        if isinstance(value, _GROUPS[name]):
            return {name: [pack(item) for item in value]}
    raise TypeError(f"a value of type {type(value).__name__}")


def unpack(packed: object) -> Any:
    """The value from which `pack` made this.

    Raises:
        TypeError, ValueError: it was not made by `pack`.
    """
    if packed is None or isinstance(packed, _SCALARS):
        return packed
    if not isinstance(packed, dict) or len(packed) != 1:
        raise ValueError("not a packed value")
    ((name, content),) = packed.items()
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "complex":
        return complex(*content)
    if name == "dict":
        return {unpack(key): unpack(item) for key, item in content}
    if name not in _GROUPS or not isinstance(content, list):
        raise ValueError("not a packed value")
    return _GROUPS[name](map(unpack, content)) if name != "iterator" else iter([unpack(item) for item in content])


def line(message: object) -> bytes:
    """A message as one line of JSON."""
    return json.dumps(message).encode() + b"\n"
