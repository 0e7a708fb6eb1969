"""The program that a rank starts for one response: request in, verdict out, as JSON on standard streams."""

from __future__ import annotations

import json
import os
import sys

from . import box, response, tests, values


def main() -> None:
    """Judge one response and write {"verdict", "reason"}; or {"unusable": reason} if this machine cannot confine it.

    Argument: JSON of `cpu_s`, `wall_s`, `memory_bytes` and `is_confined`. Standard input: JSON of `code` and `tests`.
    """
    limits = json.loads(sys.argv[1])
    box.end_with_parent()
    sys.set_int_max_str_digits(values.MAX_DIGITS)
    nowhere, verdict = os.open("/dev/null", os.O_RDWR), os.dup(1)
    try:
        if limits["is_confined"]:
            box.enter()
        result = _judge(limits, nowhere)
    except OSError as error:
        result = {"unusable": str(error)}
    os.write(verdict, json.dumps(result).encode())


def _judge(limits: dict, nowhere: int) -> dict:
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
    process = tests.Response(child, calls, replies, limits["wall_s"])
    verdict, reason = tests.judge(request["tests"], request["code"], process)
    return {"verdict": verdict, "reason": reason}


def _be_response(limits: dict, nowhere: int, calls: int, replies: int) -> None:
    try:
        for standard in range(3):
            os.dup2(nowhere, standard)
        box.renounce(limits["cpu_s"], limits["memory_bytes"], limits["is_confined"])
        response.serve(calls, replies)
    finally:
        os._exit(1)  # in any case: this process never continues with the work of its parent
