"""The process that runs tests against a response's code, which runs in another process, and decides the verdict."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from . import values

CORRECT, WRONG, UNGRADABLE = "correct", "wrong", "ungradable"
_BLOCK = 65536
_TESTS = "<tests>"
# Exceptions when a message from the other side cannot be read.
_MALFORMED = (ValueError, TypeError, KeyError, RecursionError, MemoryError)


class Ended(BaseException):
    """The response sends no more replies. Tests that catch exceptions do not catch this one."""


class NotPlain(BaseException):
    """A test calls a function with an argument that is not a plain value."""


class Response:
    """The process that runs the response's code.

    Attributes:
        ended: the reason why it sends no more replies; "" while it does.
        not_plain: the call that could not be sent, because an argument is not a plain value; "" if there is none.
        n_calls: calls of its functions.
    """

    def __init__(self, pid: int, calls: int, replies: int, wall_s: float):
        self._pid, self._calls, self._replies = pid, calls, replies
        self.ended, self.not_plain, self.n_calls = "", "", 0

        def late(*_: object) -> None:
            self._end(f"took more than {wall_s:g} s on the clock")

        # With a handler: other signals do not reach the first process of a namespace.
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, wall_s)

    def define(self, code: str) -> dict[str, Any]:
        """Run the code. Returns {"names": names of its functions}, or {"failed": reason}."""
        return self._request(code)

    def function(self, name: str) -> Callable[..., Any]:
        """A function that calls the response's function of this name."""

        def call(*arguments: object, **named: object) -> Any:
            self.n_calls += 1
            try:
                packed = [name, [*map(values.pack, arguments)], {key: values.pack(v) for key, v in named.items()}]
            except (TypeError, RecursionError) as error:
                self.not_plain = f"the tests call {name}() with {error}"
                raise NotPlain from error
            reply = self._request(packed)
            try:
                if "value" in reply:
                    return values.unpack(reply["value"])
                error = _exception(*reply["raised"])
            except _MALFORMED:
                self._end("returned something that is not a value")
            raise error

        return call

    def _request(self, message: object) -> dict[str, Any]:
        if self.ended:
            raise Ended
        sent, received = values.line(message), b""
        try:
            while sent:
                sent = sent[os.write(self._calls, sent) :]
            while not received.endswith(b"\n"):
                received += os.read(self._replies, _BLOCK) or self._end(self._death())
                if len(received) > values.MAX_BYTES:
                    self._end(f"returned a value of more than {values.MAX_BYTES:,} bytes")
            return dict(json.loads(received))
        except BrokenPipeError:
            self._end(self._death())
        except _MALFORMED:
            self._end("returned something that is not a value")

    def _end(self, reason: str) -> NoReturn:
        self.ended = self.ended or reason
        raise Ended

    def _death(self) -> str:
        os.kill(self._pid, signal.SIGKILL)  # it may have closed its pipes and still run
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code >= 0:
            return f"ended by itself (exit {code})"
        return "took too much CPU time" if code == -signal.SIGKILL else f"crashed ({signal.Signals(-code).name})"


def _exception(name: str, message: str) -> Exception:
    """An exception of the same kind as the one in the response's code.

    StopIteration is replaced: it would end a test's `all(map(f, ...))` before its first value.
    """
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        with contextlib.suppress(TypeError):  # some need more than a text
            return kind(message)
    return RuntimeError(f"{name}: {message}")


def judge(tests: str, code: str, response: Response) -> tuple[str, str]:
    """Run the tests. Returns (verdict, reason).

    Args:
        tests: assertions, in Python, on the functions that the response must define.
        code: the program of the response.
    """
    try:
        compiled = compile(tests, _TESTS, "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return UNGRADABLE, f"the tests do not parse: {error}"
    failure = None
    try:
        defined = response.define(code)
        if "names" not in defined:
            return WRONG, f"its code fails: {defined.get('failed')}"
        scope = {"__name__": "tests", **_functions(defined["names"], response)}
        exec(compiled, scope)  # noqa: S102 - the purpose of this process, which is confined too
    except BaseException as error:  # noqa: BLE001 - any end of the tests decides the verdict
        failure = error
    return _verdict(failure, response)


def _functions(names: Iterable[object], response: Response) -> dict[str, Callable[..., Any]]:
    """The response's functions, without those that have the name of a built-in one, such as `all`."""
    return {str(name): response.function(str(name)) for name in names if not hasattr(builtins, str(name))}


def _verdict(failure: BaseException | None, response: Response) -> tuple[str, str]:
    if response.not_plain:
        return UNGRADABLE, response.not_plain
    if response.ended:
        return WRONG, response.ended
    if failure is None:
        return (CORRECT, "passes the tests") if response.n_calls else (UNGRADABLE, "the tests call no function of it")
    if not isinstance(failure, Exception):
        return UNGRADABLE, f"the tests end themselves: {type(failure).__name__}"
    return WRONG, f"{_where(failure)}{type(failure).__name__}: {failure}"[:300]


def _where(failure: Exception) -> str:
    frame = failure.__traceback__
    while frame and frame.tb_frame.f_code.co_filename != _TESTS:
        frame = frame.tb_next
    return f"line {frame.tb_lineno} of the tests: " if frame else ""
