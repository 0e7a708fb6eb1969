"""The program that a rank starts for one response: request in, verdict out, as JSON on standard streams.

It becomes three processes. This one is the supervisor: it waits for the verdict, and ends the others at the limit of
time on the clock. Its child runs the tests, and the child of that one the response's code.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from . import box, response, tests, values

_BLOCK = 4096
_BEGUN, _END = b"begun\n", b"\n\n"  # what the tests' process reports: the response's code begins; the end of a result


def main() -> None:
    """Judge one response and write {"verdict", "reason"}; or {"unusable": reason} if this machine cannot confine it.

    Argument: JSON of `cpu_s`, `wall_s`, `memory_bytes`, `is_confined`, and `libraries`, which the code may load.
    Standard input: JSON of `code` and `tests`.
    """
    limits = json.loads(sys.argv[1])
    box.end_with_parent()
    sys.set_int_max_str_digits(values.MAX_DIGITS)
    try:
        if limits["is_confined"]:
            box.enter()
    except OSError as error:
        result = {"unusable": str(error)}
    else:
        reports, report = os.pipe()
        child = os.fork()
        if not child:
            os.close(reports)
            _be_tests(limits, report)
        os.close(report)
        result = _supervise(child, reports, limits)
    os.write(1, json.dumps(result).encode())


def _supervise(child: int, reports: int, limits: dict) -> dict[str, Any]:
    """The result that the tests' process reports; or, if it ends or is late without one, what that means.

    Once the response's code has begun, such an end is the response's doing: its values or its silence cause it.
    """
    received, until, is_late = b"", None, False
    while not received.endswith(_END):
        left_s = None if until is None else max(0.0, until - time.monotonic())
        is_late = not select.select([reports], [], [], left_s)[0]
        block = b"" if is_late else os.read(reports, _BLOCK)
        if not block:
            break
        received += block
        if until is None and received.startswith(_BEGUN):
            until = time.monotonic() + limits["wall_s"]
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if received.endswith(_END):
        return json.loads(received.removeprefix(_BEGUN))
    if is_late:
        return {"verdict": tests.WRONG, "reason": f"took more than {limits['wall_s']:g} s on the clock"}
    code = os.waitstatus_to_exitcode(status)
    end = "too much CPU time" if code == -signal.SIGKILL else tests.name_end(code)
    if until is None:
        return {"unusable": f"the process of the tests ends too early ({end})"}
    return {"verdict": tests.WRONG, "reason": f"the tests do not come to an end with its values ({end})"}


def _be_tests(limits: dict, report: int) -> NoReturn:
    try:
        box.end_with_parent()
        try:
            response_, request = _prepare(limits)
        except OSError as error:
            result = {"unusable": str(error)}
        else:
            begin = functools.partial(os.write, report, _BEGUN)
            verdict, reason = tests.judge(request["tests"], request["code"], response_, begin)
            result = {"verdict": verdict, "reason": tests.shown(reason)}
        os.write(report, json.dumps(result).encode() + _END)
    finally:
        os._exit(1)  # in any case: this process never continues with the work of its parent


def _prepare(limits: dict) -> tuple[tests.Response, dict[str, str]]:
    """Start the response's process, read the request, and confine this process.

    Raises:
        OSError: one of the two processes cannot be confined.
    """
    nowhere = os.open("/dev/null", os.O_RDWR)
    if limits["is_confined"]:
        box.change_root(limits["libraries"])
    (calls_out, calls), (replies, replies_in) = os.pipe(), os.pipe()
    # Before the request is read: the tests must not be in the memory of the response's process.
    child = box.fork_unseen() if limits["is_confined"] else os.fork()
    if not child:
        _be_response(limits, nowhere, calls_out, replies_in)
    os.close(calls_out)
    os.close(replies_in)
    request = json.loads(sys.stdin.buffer.read())
    for standard in range(3):
        os.dup2(nowhere, standard)
    box.renounce(limits["cpu_s"], limits["memory_bytes"], limits["is_confined"])
    return tests.Response(child, calls, replies), request


def _be_response(limits: dict, nowhere: int, calls: int, replies: int) -> NoReturn:
    try:
        os.setsid()  # a signal to its process group must not reach the other processes
        for standard in range(3):
            os.dup2(nowhere, standard)
        try:
            box.renounce(limits["cpu_s"], limits["memory_bytes"], limits["is_confined"])
        except OSError as error:
            os.write(replies, values.line(str(error)))
        else:
            response.serve(calls, replies)
    finally:
        os._exit(1)  # in any case: this process never continues with the work of its parent
