"""The process that runs tests against a response's code, which runs in another process, and decides the verdict.

A response must not be able to choose the verdict *ungradable*, which would leave it out of every figure. So only what
is certain before its code begins makes it ungradable; any later end of the tests but success is *wrong*. If the tests'
process itself comes to no end, the supervisor decides alike (`process`).
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import resource
import signal
import symtable
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from . import values

CORRECT, WRONG, UNGRADABLE = "correct", "wrong", "ungradable"
MAX_REASON_CHARS = 300
_BLOCK = 65536
_TESTS = "<tests>"
# Exceptions when a message from the other side cannot be read.
_MALFORMED = (ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError)
_BY_TEXT = {"eval", "exec", "globals", "locals", "vars"}  # through these, tests can reach a function by any name


class Ended(BaseException):
    """The response sends no more replies. Tests that catch exceptions do not catch this one."""


class NotPlain(BaseException):
    """A test calls a function with an argument that is not a plain value."""


class Response:
    """The process that runs the response's code.

    Attributes:
        ended: the reason why it sends no more replies; "" while it does.
        not_plain: the first call, if it could not be sent, because an argument is not a plain value; "" if it could.
        n_calls: calls of its functions.
    """

    def __init__(self, pid: int, calls: int, replies: int):
        """Wait until the process is confined.

        Raises:
            OSError: it cannot be.
        """
        self._pid, self._calls, self._replies = pid, calls, replies
        self.ended, self.not_plain, self.n_calls, self._n_bytes = "", "", 0, 0
        try:
            first = self._receive()
        except Ended:
            first = self.ended
        if first != values.READY:
            raise OSError(str(first))

    def define(self, code: str) -> dict[str, Any]:
        """Run the code. Returns {"names": names of its functions}, or {"failed": reason}."""
        return self._request(values.line(code))

    def function(self, name: str) -> Callable[..., Any]:
        """A function that calls the response's function of this name."""

        def call(*arguments: object, **named: object) -> Any:
            self.n_calls += 1
            try:
                packed = [name, [*map(values.pack, arguments)], {key: values.pack(v) for key, v in named.items()}]
                line = values.line(packed)
            except (TypeError, ValueError, RecursionError) as error:
                if self.n_calls == 1:  # later, the argument may be made of values of the response
                    self.not_plain = f"the tests call {name}() with {error}"
                raise NotPlain(f"{name}() is called with {error}") from error
            reply = self._request(line)
            try:
                if "value" in reply:
                    return values.unpack(reply["value"])
                error = _exception(*reply["raised"])
            except _MALFORMED:
                self._end("returned something that is not a value")
            raise error

        return call

    def _request(self, sent: bytes) -> dict[str, Any]:
        if self.ended:
            raise Ended
        try:
            while sent:
                sent = sent[os.write(self._calls, sent) :]
        except BrokenPipeError:
            self._end(self._death())
        reply = self._receive()
        if not isinstance(reply, dict):
            self._end("returned something that is not a value")
        return reply

    def _receive(self) -> object:
        received = bytearray()
        while not received.endswith(b"\n"):
            block = os.read(self._replies, _BLOCK) or self._end(self._death())
            received += block
            self._n_bytes += len(block)
            if len(received) > values.MAX_BYTES:
                self._end(f"returned a value of more than {values.MAX_BYTES:,} bytes")
            if self._n_bytes > values.MAX_BYTES_IN_ALL:
                self._end(f"returned values of more than {values.MAX_BYTES_IN_ALL:,} bytes in all")
        try:
            return json.loads(received)
        except _MALFORMED:
            self._end("returned something that is not a value")

    def _end(self, reason: str) -> NoReturn:
        self.ended = self.ended or reason
        raise Ended

    def _death(self) -> str:
        os.kill(self._pid, signal.SIGKILL)  # it may have closed its pipes and still run
        _, status, used = os.wait4(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"ended by itself ({name_end(code)})"
        if code != -signal.SIGKILL:
            return f"crashed ({name_end(code)})"
        limit_s = resource.getrlimit(resource.RLIMIT_CPU)[0]  # the same one; two clocks of the kernel differ a little
        is_used_up = used.ru_utime + used.ru_stime > limit_s / 2
        return "took too much CPU time" if is_used_up else "closed its pipes, or was killed"


def name_end(code: int) -> str:
    """The name of an exit code, or of a signal where the code is negative."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # most real-time signals have no name
        return f"signal {-code}"


def shown(text: str) -> str:
    """A text for a message: printable characters alone, the others escaped, and not too many."""
    text = text[:MAX_REASON_CHARS]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:MAX_REASON_CHARS]


def _exception(name: str, message: str) -> Exception:
    """An exception of the same kind as the one in the response's code.

    StopIteration is replaced: it would end a test's `all(map(f, ...))` before its first value.
    """
    if not isinstance(name, str) or not isinstance(message, str):
        raise TypeError("not an exception")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        with contextlib.suppress(TypeError):  # some need more than a text
            return kind(message)
    return RuntimeError(f"{name}: {message}")


def judge(tests: str, code: str, response: Response, begin: Callable[[], object]) -> tuple[str, str]:
    """Run the tests. Returns (verdict, reason).

    Args:
        tests: assertions, in Python, on the functions that the response must define.
        code: the program of the response.
        begin: called before the response's code begins.
    """
    try:
        compiled = compile(tests, _TESTS, "exec")
        needed = _needed(tests)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return UNGRADABLE, f"the tests do not parse: {error}"
    if not needed:
        return UNGRADABLE, "the tests call no function of it"
    begin()
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


def _needed(tests: str) -> set[str]:
    """The names that the tests use and do not define: the response must, or no verdict can depend on it."""
    tables = [symtable.symtable(tests, _TESTS, "exec")]
    for table in tables:  # it grows meanwhile
        tables += table.get_children()
    own = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is tables[0] or symbol.is_global())
    }
    return used - own - (set(dir(builtins)) - _BY_TEXT)


def _functions(names: Iterable[object], response: Response) -> dict[str, Callable[..., Any]]:
    """The response's functions, without those that have the name of a built-in one, such as `all`."""
    reserved = {*dir(builtins), "__builtins__"}
    return {str(name): response.function(str(name)) for name in names if str(name) not in reserved}


def _verdict(failure: BaseException | None, response: Response) -> tuple[str, str]:
    if response.not_plain:
        return UNGRADABLE, response.not_plain
    if response.ended:
        return WRONG, response.ended
    if failure is None:
        return (CORRECT, "passes the tests") if response.n_calls else (WRONG, "the tests end without a call of it")
    return WRONG, f"{_where(failure)}{type(failure).__name__}: {_text(failure)}"


def _text(failure: BaseException) -> str:
    try:
        return str(failure)
    except Exception:  # noqa: BLE001 - it holds a value of the response, which may be nested too deep to be shown
        return "..."


def _where(failure: BaseException) -> str:
    frame = failure.__traceback__
    while frame and frame.tb_frame.f_code.co_filename != _TESTS:
        frame = frame.tb_next
    return f"line {frame.tb_lineno} of the tests: " if frame else ""
