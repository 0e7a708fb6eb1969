"""The process that runs tests against a response's code, which runs elsewhere, and settles what they say."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from . import values

CORRECT, WRONG, UNGRADABLE = "correct", "wrong", "ungradable"
_BLOCK = 65536
_TESTS = "<tests>"
# What reading a message raises when the other side did not send one.
_MALFORMED = (ValueError, TypeError, KeyError, RecursionError, MemoryError)


class Ended(BaseException):
    """The response gives no more answers. Tests that catch exceptions do not catch this one."""


class Unasked(BaseException):
    """A test calls a function with what is no plain value."""


class Response:
    """The process that runs the response's code.

    Attributes:
        ended: why it gives no more answers; "" while it does.
        unasked: what it could not be asked; "" for nothing.
        n_calls: of its functions.
    """

    def __init__(self, pid: int, calls: int, replies: int, wall_s: float):
        self._pid, self._calls, self._replies = pid, calls, replies
        self.ended, self.unasked, self.n_calls = "", "", 0

        def late(*_):
            self._end(f"took more than {wall_s:g} s on the clock")

        # A handler, because signals without one do not reach the first process of a namespace.
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, wall_s)

    def define(self, code: str) -> dict:
        """Run the code: {"names": [what can be called then]}, or {"failed": why}."""
        return self._ask(code)

    def function(self, name: str) -> Callable:
        """A function that stands for the response's own of this name."""

        def call(*arguments, **named):
            self.n_calls += 1
            try:
                packed = [name, [*map(values.pack, arguments)], {key: values.pack(v) for key, v in named.items()}]
            except (TypeError, RecursionError) as error:
                self.unasked = f"the tests call {name}() with {error}"
                raise Unasked from error
            reply = self._ask(packed)
            try:
                value = values.unpack(reply["value"]) if "value" in reply else _exception(*reply["raised"])
            except _MALFORMED:
                self._end("gave what is no value")
            if "value" in reply:
                return value
            raise value

        return call

    def _ask(self, message) -> dict:
        if self.ended:
            raise Ended
        sent, received = values.line(message), b""
        try:
            while sent:
                sent = sent[os.write(self._calls, sent) :]
            while not received.endswith(b"\n"):
                received += os.read(self._replies, _BLOCK) or self._end(self._death())
                if len(received) > values.MAX_BYTES:
                    self._end(f"gave a value of more than {values.MAX_BYTES:,} bytes")
            return dict(json.loads(received))
        except BrokenPipeError:
            self._end(self._death())
        except _MALFORMED:
            self._end("gave what is no value")

    def _end(self, why: str) -> NoReturn:
        self.ended = self.ended or why
        raise Ended

    def _death(self) -> str:
        os.kill(self._pid, signal.SIGKILL)  # it may have closed its pipes and go on
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code >= 0:
            return f"ended by itself (exit {code})"
        return "took too much CPU time" if code == -signal.SIGKILL else f"crashed ({signal.Signals(-code).name})"


def _exception(name: str, told: str) -> Exception:
    """An exception like the one that the response's code raised.

    StopIteration is another one: it would end a test's `all(map(f, ...))` before its first value.
    """
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        with contextlib.suppress(TypeError):  # some need more than a text
            return kind(told)
    return RuntimeError(f"{name}: {told}")


def judge(tests: str, code: str, response: Response) -> tuple[str, str]:
    """(verdict, reason) of a response by what the tests say.

    Args:
        tests: Python: assertions on the functions that the response must define.
        code: the response's.
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
        exec(compiled, scope)  # noqa: S102 - what this process, confined too, is for
    except BaseException as error:  # noqa: BLE001 - whatever ends the tests is what is judged
        failure = error
    return _settled(failure, response)


def _functions(names, response: Response) -> dict[str, Callable]:
    """The response's functions. What it calls as Python calls its own is not among them: `all` must not be its."""
    own = [str(name) for name in names if not hasattr(builtins, str(name))]
    return {name: response.function(name) for name in own}


def _settled(failure: BaseException | None, response: Response) -> tuple[str, str]:
    if response.unasked:
        return UNGRADABLE, response.unasked
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
