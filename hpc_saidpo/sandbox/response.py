"""The process that runs a response's code: told what to call, it gives back values. Nothing in it is believed."""

from __future__ import annotations

import json
import os

from . import values

FIRST_FD = 3  # after the three standard ones, which lead nowhere
MAX_FD = 2**16  # of which the process that starts this one has opened a handful
MAX_TOLD = 200  # characters of an exception


def serve(calls: int, replies: int) -> None:
    """Run the code that comes first on `calls`, then what is to be called, one line of JSON each, until there is none.

    Args:
        calls, replies: the only file descriptors that stay open, besides the standard ones.
    """
    kept = sorted((calls, replies))
    for begin, end in zip((FIRST_FD, *(fd + 1 for fd in kept)), (*kept, MAX_FD), strict=True):
        os.closerange(begin, end)
    with open(calls, "rb") as asked, open(replies, "wb", buffering=0) as told:
        scope = {"__name__": "response"}
        told.write(values.line(_defined(json.loads(asked.readline()), scope)))
        for line in asked:
            told.write(values.line(_called(json.loads(line), scope)))


def _defined(code: str, scope: dict) -> dict:
    """Run the code: what can be called then, or why it failed."""
    try:
        exec(compile(code, "<response>", "exec"), scope)  # noqa: S102 - what this process, confined, is for
    except BaseException as error:  # noqa: BLE001 - whatever the code raises, exits included, is its failure
        return {"failed": f"{type(error).__name__}: {_told(error)}"}
    return {"names": [name for name, value in scope.items() if callable(value)]}


def _called(call: list, scope: dict) -> dict:
    name, arguments, named = call
    try:
        found = scope[name](*map(values.unpack, arguments), **{key: values.unpack(v) for key, v in named.items()})
        return {"value": values.pack(found)}
    except BaseException as error:  # noqa: BLE001 - as above
        return {"raised": [type(error).__name__, _told(error)]}


def _told(error: BaseException) -> str:
    return str(error)[:MAX_TOLD]
