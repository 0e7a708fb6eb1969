"""Plain values as JSON and back: what a call may carry between the tests and the response's code.

What arrives is of Python's own types, whatever was sent: nothing with an `__eq__` of its own crosses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

MAX_BYTES = 2**20  # of a message
MAX_ITEMS = 100_000  # that are taken from an iterator
MAX_DIGITS = 20_000  # of an integer: more would take long to read
_SCALARS = (bool, int, float, str)
_GROUPS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}


def pack(value):
    """A value as JSON's own types.

    Raises:
        TypeError: it is no plain value.
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


def unpack(packed):
    """The value that `pack` was given.

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


def line(message) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\n"
