"""The process that runs a response's code: it reads calls and writes values. Nothing in it is trusted."""

from __future__ import annotations

import json
import os
from typing import Any

from . import values

FIRST_FD = 3  # after the three standard ones, which are /dev/null
MAX_FD = 2**16  # the process that starts this one has opened only a few
MAX_MESSAGE_CHARS = 200  # of an exception


def serve(calls: int, replies: int) -> None:
    """Run the code from the first line of `calls`, then the call of each further line (JSON), until there is no more.

    Args:
        calls, replies: the only file descriptors that stay open, with the standard ones.
    """
    kept = sorted((calls, replies))
    for begin, end in zip((FIRST_FD, *(fd + 1 for fd in kept)), (*kept, MAX_FD), strict=True):
        os.closerange(begin, end)
    requests, results = open(calls, "rb"), open(replies, "wb", buffering=0)  # noqa: SIM115 - open as long as the process
    results.write(values.line(values.READY))
    scope: dict[str, Any] = {"__name__": "response"}
    results.write(values.line(_define(json.loads(requests.readline()), scope)))
    for line in requests:
        results.write(_call(json.loads(line), scope))


def _define(code: str, scope: dict[str, Any]) -> dict[str, Any]:
    """Run the code. Returns {"names": names of its functions}, or {"failed": reason}."""
    try:
        exec(compile(code, "<response>", "exec"), scope)  # noqa: S102 - the purpose of this process, which is confined
    except BaseException as error:  # noqa: BLE001 - whatever the code raises, exits included, is its failure
        return {"failed": f"{type(error).__name__}: {_message(error)}"}
    return {"names": [name for name, value in scope.items() if callable(value)]}


def _call(call: list, scope: dict[str, Any]) -> bytes:
    """Call a function. Returns the line of {"value": its value}, or of {"raised": [exception, message]}."""
    name, arguments, named = call
    try:
        value = scope[name](*map(values.unpack, arguments), **{key: values.unpack(v) for key, v in named.items()})
        return values.line({"value": values.pack(value)})
    except BaseException as error:  # noqa: BLE001 - as above
        return values.line({"raised": [type(error).__name__, _message(error)]})


def _message(error: BaseException) -> str:
    return str(error)[:MAX_MESSAGE_CHARS]
