"""Programs of responses against tests: verdicts, and what hostile code can do where it runs."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.needs import needs_sandbox

from hpc_saidpo import settings
from hpc_saidpo.grader.code import run_tests
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.records import CORRECT, UNGRADABLE, VERDICTS, WRONG, Question
from hpc_saidpo.sandbox import values

LIMITS = settings.Grader(cpu_s=1.0, wall_s=10.0, memory_gib=0.5)
TESTS = "assert add(2, 3) == 5\nassert add(-7, 0) == -7"
SOMEBODY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")  # who is not root
NOBODY = ("unshare", "--user", "--map-user=1000")  # who may make no user namespace, for lack of a group

LOOK = """{}
def look():
    try:
        return repr({})
    except BaseException as error:
        return repr(error)
"""
pytestmark = needs_sandbox


def judged(code, tests=TESTS, limits=LIMITS):
    found = run_tests(code, tests, limits)
    return found.verdict, found.reason


def seen(expression, imports=""):
    """What an expression is to code in the sandbox, or how it fails."""
    verdict, reason = judged(LOOK.format(imports, expression), "assert False, look()")
    assert verdict == WRONG
    return reason.partition("AssertionError: ")[2]


@pytest.mark.parametrize(
    "code, verdict, says",
    [
        ("def add(a, b): return a + b", CORRECT, "passes"),
        ("def add(a, b): return a - b", WRONG, "line 1 of the tests: AssertionError"),
        ("def add(a, b): return abs(a + b)", WRONG, "line 2 of the tests: AssertionError"),
        ("def add(a, b) return a + b", WRONG, "its code fails: SyntaxError"),
        ("def plus(a, b): return a + b", WRONG, "NameError: name 'add' is not defined"),
        ("def add(a, b): return a / 0", WRONG, "ZeroDivisionError"),
        ("def add(a, b): return lambda: a + b", WRONG, "a value of type function"),
        ("", WRONG, "NameError"),
        ("import hashlib, zlib, decimal, sqlite3\nadd = lambda a, b: a + b", CORRECT, "passes"),
    ],
)  # fmt: skip
def test_a_program_is_right_when_it_passes_the_tests(code, verdict, says):
    found, reason = judged(code)
    assert (found, says in reason) == (verdict, True), reason


@pytest.mark.parametrize(
    "tests, says",
    [
        ("assert add(2, 3) = 5", "the tests do not parse"),
        ("assert True", "the tests call no function of it"),
        ("assert add(lambda x: x, 3)", "the tests call add() with a value of type function"),
        ("import sys\nadd(1, 2)\nsys.exit(0)", "the tests end themselves: SystemExit"),
        ("import os\nos._exit(0)", "the tests do not come to an end"),
        ("add(1, 2)\nwhile True: pass", "the tests do not come to an end"),
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
    ],
)  # fmt: skip
def test_tests_may_be_written_as_tests_are(code, tests):
    assert judged(code, tests)[0] == CORRECT


FORGED = {
    "exit 0": r"""
import sys
sys.exit(0)
""",
    "exit 0 at a call": r"""
import sys
def add(a, b): sys.exit(0)
""",
    "exit 0 without cleaning up": r"""
import os
os._exit(0)
""",
    "exit 0 at a call, without cleaning up": r"""
import os
def add(a, b): os._exit(0)
""",
    "prints what would be a verdict": r"""
print('{"verdict": "correct", "reason": ""}', flush=True)
def add(a, b): return 0
""",
    "writes it everywhere": r"""
import os
for fd in range(64):
    try:
        os.write(fd, b'{"verdict": "correct", "reason": ""}\n')
    except OSError:
        pass
def add(a, b): return 0
""",
    "replies for itself": r"""
import os
for fd in range(64):
    try:
        os.write(fd, b'{"names": ["add"]}\n' b'{"value": true}\n{"value": true}\n')
    except OSError:
        pass
os._exit(0)
""",
    "equals everything": r"""
class Any:
    def __eq__(self, other): return True
def add(a, b): return Any()
""",
    "equals everything as a number": r"""
class Any(int):
    def __eq__(self, other): return True
def add(a, b): return Any()
""",
    "another builtin": r"""
import builtins
builtins.AssertionError = None
def add(a, b): return 0
""",
    "functions that the tests use": r"""
def all(x): return True
def sum(x): return 5
len = isinstance = all
def add(a, b): return 0
""",
    "frames and the collector": r"""
import gc, sys
def add(a, b):
    texts = [o for o in gc.get_objects() if 'assert' in str(o)[:10_000]]
    frame = sys._getframe()
    while frame:
        frame.f_globals['__builtins__'] = {}
        frame = frame.f_back
    return 0
""",
    "ends iterations": r"""
def add(a, b): raise StopIteration
""",
    "kills": r"""
import os, signal
for pid in (-1, 1, 2, os.getppid()):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
def add(a, b): return 0
""",
    "closes its pipes": r"""
import os
os.closerange(0, 64)
import time
time.sleep(60)
""",
    "stops itself": r"""
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
def add(a, b): return 0
""",
    "crashes": r"""
import ctypes
ctypes.string_at(0)
""",
    "no JSON": r"""
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'[' * 100_000 + b'\n')
    except OSError:
        pass
""",
}


@pytest.mark.parametrize("code", FORGED.values(), ids=FORGED)
def test_nothing_but_right_values_passes(code):
    tests = (
        "assert all(map(add, [2, 3], [1, 1]))\nassert add(2, 3) == 5 and sum([add(1, 1)]) == 2\n"
        "assert all([add(2, 3) == 5]) and isinstance(add(2, 3), int)"
    )
    assert judged(code, tests)[0] == WRONG
    assert judged("def add(a, b): return a + b", tests)[0] == CORRECT


def test_an_endless_loop_is_ended():
    assert judged("while True: pass") == (WRONG, "took too much CPU time")
    assert judged("def add(a, b):\n    while True:\n        try: pass\n        except BaseException: pass")[0] == WRONG
    stubborn = (
        "import signal\nfor s in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)\n"
    )
    assert judged(stubborn + "while True: pass") == (WRONG, "took too much CPU time")
    c_code = "def add(a, b): return 10 ** 10 ** 10"
    assert judged(c_code)[0] == WRONG


def test_sleep_is_ended():
    limits = settings.Grader(wall_s=1.0)
    assert judged("import time\ntime.sleep(1e6)", limits=limits) == (WRONG, "took more than 1 s on the clock")
    waits = "import time\ndef add(a, b): time.sleep(1e6)"
    swallows = "try:\n    add(1, 2)\nexcept BaseException:\n    pass"
    assert judged(waits, swallows, limits) == (WRONG, "took more than 1 s on the clock")


@pytest.mark.parametrize(
    "bomb",
    ["x = 'a' * 2**34", "x = []\nwhile True: x.append(bytearray(2**20))", "x = [0]\nwhile True: x = x * 2"],
)
def test_a_memory_bomb_is_ended(bomb):
    assert (
        judged(bomb)[0] == WRONG
        and judged(f"def add(a, b):\n    {bomb.replace(chr(10), chr(10) + '    ')}")[0] == WRONG
    )


def test_memory_that_is_no_address_space_is_none():
    assert "File too large" in seen("os.write(os.memfd_create('x'), b'x' * 2**20)", "import os")


def test_no_process_and_no_thread_can_be_made():
    for made in ("os.fork()", "threading.Thread(target=print).start()", "subprocess.run(['/bin/true'])"):
        assert any(e in seen(made, "import os, threading, subprocess") for e in ("Error", "can't start")), made
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    with what_is_left() as left:
        assert judged(bomb)[0] == WRONG
    assert not left


@contextmanager
def what_is_left():
    """A list that holds, at the end, the command lines of the processes that the block started and did not end.

    A process whose parent has ended becomes a child of this one (PR_SET_CHILD_SUBREAPER), so that what other tests
    start meanwhile is not counted.
    """
    prctl, subreaper = ctypes.CDLL(None).prctl, 36
    left, before = [], set(children())
    prctl(subreaper, 1)
    try:
        yield left
        left += [line for pid, line in children().items() if pid not in before]
    finally:
        prctl(subreaper, 0)


def children():
    """The command line of each living child of this process, by its process number."""
    lines = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return lines


def test_the_network_is_unreachable():
    arrived = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def accept():
            while True:
                try:
                    arrived.append(server.accept()[1])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        connect = f"socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        exec(f"import socket\n{connect}.close()")  # noqa: S102 - the same words reach it from outside
        assert "Network is unreachable" in seen(connect, "import socket")
        assert "refused" in seen(f"socket.socket(socket.AF_UNIX).connect('\\0hpc_saidpo_{port}')", "import socket")
        server.shutdown(socket.SHUT_RDWR)
    assert len(arrived) == 1


def test_files_outside_can_be_neither_read_nor_written(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    secret.chmod(0o666)
    assert "No such file" in seen(f"open({str(secret)!r}).read()")
    assert "s3cret" not in seen(f"open({str(secret)!r}).read()")
    here = os.path.dirname(__file__)
    for path in (
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/mem",
        "/sys",
        "/dev/null",
        "/root/.bashrc",
        here,
        "/home",
    ):
        assert "No such file" in seen(f"os.stat({path!r})", "import os"), path
    for path in ("/x", "/tmp/x", "/usr/x", "/usr/lib/x", os.path.dirname(os.__file__) + "/x.py"):
        assert any(e in seen(f"open({path!r}, 'w')") for e in ("Read-only", "No such file")), path
    for path in (os.__file__, "/usr/lib/os-release"):
        assert any(e in seen(f"open({path!r}, 'a')") for e in ("Read-only", "Permission", "No such file")), path


def test_there_is_no_way_back_to_privileges():
    libc = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    for call in (
        "libc.unshare(0x10000000)", "libc.unshare(0x20000)", "libc.chroot(b'/')", "libc.setuid(0) or os.getuid() or -1",
        "libc.mount(b'none', b'/', b'tmpfs', 0, None)", "libc.ptrace(16, 1, 0, 0)", "libc.umount2(b'/', 2)",
    ):  # fmt: skip
        assert seen(call, libc) == "-1", call
    assert seen("(os.getpid(), os.environ.get('HOME'), os.getcwd())", "import os") == "(1, None, '/')"
    raise_limits = "[resource.setrlimit(getattr(resource, n), (2**40, 2**40)) for n in ('RLIMIT_CPU', 'RLIMIT_AS')]"
    assert "Error" in seen(raise_limits, "import resource")


def test_output_goes_nowhere_and_huge_values_are_refused():
    assert (
        judged("import sys\nfor _ in range(1000): print('x' * 10**5)\n" + "def add(a, b): return a + b")[0] == CORRECT
    )
    verdict, reason = judged("def add(a, b): return 'x' * 10**8")
    assert verdict == WRONG and "more than 1,048,576 bytes" in reason
    verdict, reason = judged("def add(a, b): raise ValueError('x' * 10**6)")
    assert verdict == WRONG and len(reason) < 400


def test_programs_in_a_user_namespace_are_judged_alike():
    """As somebody who is not root: then the sandbox is in a user namespace."""
    line = (
        "import sys, json\nfrom hpc_saidpo.grader.code import run_tests\nfrom hpc_saidpo import settings\n"
        "limits = settings.Grader(cpu_s=1.0, wall_s=10.0, memory_gib=0.5)\n"
        f"found = [run_tests(code, {TESTS!r}, limits) for code in json.load(sys.stdin)]\n"
        "print(json.dumps([[f.verdict, f.reason] for f in found]))"
    )
    fork = "import os\ndef add(a, b): return [os.listdir('/'), os.getuid(), os.listdir('/tmp')]"
    codes = ["def add(a, b): return a + b", "def add(a, b): return a - b", "while True: pass", fork]
    done = subprocess.run(
        [*SOMEBODY, sys.executable, "-c", line], input=json.dumps(codes), capture_output=True, text=True, timeout=100
    )
    if "unshare failed" in done.stderr:
        pytest.skip("not run: this user may make no user namespace")
    (first, *others) = json.loads(done.stdout)
    assert first[0] == CORRECT and [verdict for verdict, _ in others] == [WRONG] * 3
    assert "too much CPU time" in others[1][1] and "No such file" in others[2][1]


def test_where_the_kernel_refuses_namespaces_the_message_says_so_unless_forced():
    line = (
        "from hpc_saidpo import settings\nfrom hpc_saidpo.errors import RunError\n"
        "from hpc_saidpo.grader.code import run_tests\nfrom hpc_saidpo.grader.verifiers import check\n"
        f"print(run_tests('def add(a, b): return a + b', {TESTS!r}, settings.Grader(code_unsandboxed=True)).verdict)\n"
        "try: check(['math', 'code'], settings.Grader())\nexcept RunError as error: print(error)"
    )
    done = subprocess.run(
        [*NOBODY, sys.executable, "-c", line],
        capture_output=True,
        text=True,
        timeout=100,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("not run: this user may make no user namespace")
    verdict, message = done.stdout.split("\n", 1)
    assert verdict == str(CORRECT)
    for says in ("verifier code", "unshare: Operation not permitted", "rollouts.grader.code_unsandboxed=true"):
        assert says in message


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
