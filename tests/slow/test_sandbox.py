"""Programs of responses: what their tests may be, limits, a kernel that refuses. Hostile ones are in test_hostile."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.needs import needs_sandbox
from support.processes import what_is_left

from hpc_saidpo import settings
from hpc_saidpo.grader.code import run_tests
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.records import CORRECT, UNGRADABLE, VERDICTS, WRONG, Question
from hpc_saidpo.sandbox import values

LIMITS = settings.Grader(cpu_s=1.0, wall_s=10.0, memory_gib=0.5)
TESTS = "assert add(2, 3) == 5\nassert add(-7, 0) == -7"
NOBODY = ("unshare", "--user", "--map-user=1000")  # who may make no user namespace, for lack of a group

pytestmark = needs_sandbox


def judged(code, tests=TESTS, limits=LIMITS):
    found = run_tests(code, tests, limits)
    return found.verdict, found.reason


@pytest.mark.parametrize(
    "tests, says",
    [
        ("assert add(2, 3) = 5", "the tests do not parse"),
        ("assert True", "the tests call no function of it"),
        ("assert add(lambda x: x, 3)", "the tests call add() with a value of type function"),
        ("assert add(10 ** 30_000, 3)", "the tests call add() with Exceeds the limit (20000 digits)"),
        ("import os\nos._exit(0)", "the tests call no function of it"),
        ("def f(x): return x\nclass A: y = 1\nassert all([f(A.y) for i in range(3)])", "call no function of it"),
        ("(" * 300 + "add(1, 2)" + ")" * 300, "the tests do not parse"),
    ],
)
def test_tests_that_do_not_run_make_it_ungradable(tests, says):
    verdict, reason = judged("def add(a, b): return a + b", tests)
    assert verdict == UNGRADABLE and says in reason


@pytest.mark.parametrize(
    "code, tests",
    [
        ("def f(x): return {'a': (1, 2), 3: {4, 5}, None: [b'x', 1.5, 2j]}",
         "assert f(0) == {'a': (1, 2), 3: {4, 5}, None: [b'x', 1.5, 2j]}"),
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(x): return x", "assert f((1, 2)) == (1, 2) and f([1, 2]) != (1, 2)\nassert f(x=True) is True"),
        ("def f(n):\n    if n < 0: raise ValueError('negative')\n    return n",
         "try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False\nassert f(1) == 1"),
        ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("import math\ndef f(n): return math.factorial(n)", "import math\nassert f(2000) == math.factorial(2000)"),
        ("def f(x): return x + 1", "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)"),
        ("def f(x): return x + 1", "def check(f):\n    assert f(1) == 2\ncheck(f)"),
        ("def f(x): return x + 1", "assert eval('f(1)') == 2"),
        ("def f(x): return x + 1",
         "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)\n"
         "T('test').debug()"),
    ],
)  # fmt: skip
def test_tests_may_be_written_as_tests_are(code, tests):
    assert judged(code, tests)[0] == CORRECT


REFUSING = """
import ctypes, errno
from hpc_saidpo.sandbox import kernel, syscalls
number = {numbers}[kernel.machine()]
is_first = {first}
kernel.call("prctl", 38, 1, 0, 0, 0)
refuse, allow = (6, 0, 0, 0x50000 | errno.EPERM), (6, 0, 0, 0x7FFF0000)
syscalls.install([(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, is_first), refuse, allow])
"""  # the kernel refuses system call `numbers` with this first argument from now on


@pytest.mark.parametrize(
    ("prefix", "before", "says"),
    [
        (NOBODY, "", "unshare: Operation not permitted"),
        ((), REFUSING.format(numbers={"x86_64": 250, "aarch64": 219}, first=1), "keyctl: Operation not permitted"),
        (
            (),
            REFUSING.format(numbers={"x86_64": 157, "aarch64": 167}, first=22),
            "seccomp: prctl: Operation not permit",
        ),
    ],
    ids=["namespaces", "keyring", "filter"],
)
def test_where_the_kernel_refuses_a_part_of_it_the_message_says_so_unless_forced(prefix, before, says):
    """The sandbox is never weaker without a word."""
    line = (
        f"{before}\nfrom hpc_saidpo import settings\nfrom hpc_saidpo.errors import RunError\n"
        "from hpc_saidpo.grader.code import run_tests\nfrom hpc_saidpo.grader.verifiers import check\n"
        f"print(run_tests('def add(a, b): return a + b', {TESTS!r}, settings.Grader(code_unsandboxed=True)).verdict)\n"
        "try: check(['math', 'code'], settings.Grader())\nexcept RunError as error: print(error)"
    )
    done = subprocess.run([*prefix, sys.executable, "-c", line], capture_output=True, text=True, timeout=100)
    if prefix and "unshare failed" in done.stderr:
        pytest.skip("not run: this user may make no user namespace")
    verdict, message = done.stdout.split("\n", 1)
    assert verdict == str(CORRECT)
    for part in ("verifier code", says, "seccomp filter", "keyctl", "rollouts.grader.code_unsandboxed=true"):
        assert part in message


def test_without_the_sandbox_limits_hold_all_the_same():
    limits = settings.Grader(cpu_s=1.0, wall_s=5.0, memory_gib=0.5, code_unsandboxed=True)
    assert judged("def add(a, b): return a + b", limits=limits)[0] == CORRECT
    assert judged("while True: pass", limits=limits) == (WRONG, "took too much CPU time")
    assert judged("x = []\nwhile True: x.append(bytearray(2**20))", limits=limits)[0] == WRONG


def test_nothing_is_left_when_a_response_is_judged():
    with what_is_left() as left:
        for code in ("while True: pass", "import os\nos.setsid()\nos._exit(3)", "def add(a, b): return a + b"):
            judged(code)
    assert not left
    with what_is_left() as left:  # a process whose parent ends is found
        start = "sleep 60 >/dev/null 2>&1 & echo $!"
        pid = int(subprocess.run(start, shell=True, check=True, capture_output=True, text=True).stdout)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert left == [b"sleep\x0060\0"]


def test_values_come_back_as_they_went_and_of_plain_types():
    whole = {"a": [1, -2.5, None, True, "ü"], (1, 2): {3}, b"\0": frozenset({4}), 1j: {}}
    assert values.unpack(json.loads(values.line(values.pack(whole)))) == whole

    class Sly(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    assert type(values.unpack(json.loads(values.line(values.pack([Sly("x")]))))[0]) is str
    for wrong in ([1], {"list": 3}, {"set": [{"list": []}]}, {"object": []}, {"dict": [1]}, {"list": [], "set": []}):
        with pytest.raises((TypeError, ValueError)):
            values.unpack(wrong)


def test_a_verdict_is_computed_once():
    question = Question("q", "add", TESTS, verifier="code")
    with Grader(LIMITS) as grader:
        first = grader.judge("```python\ndef add(a, b): return a + b\n```", question)
        again = grader.judge("So:\n```python\ndef add(a, b): return a + b\n```\nDone.", question)
    assert VERDICTS[first.verdict] == "correct" and again is first
