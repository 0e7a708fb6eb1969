"""Hostile programs and answers (tests/slow/hostile), judged one after the other beside things that they must not reach.

As a program it writes the verdicts, and what changed, as JSON. So it can run as another user.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_saidpo import settings
from hpc_saidpo.grader.code import run_tests
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.records import VERDICTS
from hpc_saidpo.sandbox import kernel, syscalls

from .processes import what_is_left

FOLDER = Path(__file__).parents[1] / "slow" / "hostile"
PROGRAM_LIMITS = settings.Grader(cpu_s=1.0, wall_s=100.0, memory_gib=0.5)
SLEEPER_LIMITS = settings.Grader(cpu_s=1.0, wall_s=2.0, memory_gib=0.5)  # where the reason is to be the clock
ANSWER_LIMITS = settings.Grader(cpu_s=0.5)
TESTS = """\
assert all(map(add, [2, 3], [1, 1])) and add(2, 3) == 5 and sum([add(1, 1)]) == 2
assert all([add(4, 4) == 8]) and isinstance(add(2, 3), int)
"""
LOOK = "assert False, look()"
REFUSED = """\
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def reached():
    found, me = [], os.getpid()
    for name, number in {}.items():
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), -1, 0, 0, 0, 0, 0)  # -1: no harm, should the sandbox be broken
        if os.getpid() != me: os._exit(0)
        if result != -1 or ctypes.get_errno() != errno.ENOSYS: found.append(name)
    return found
"""
REACHED = "assert reached() == []"
SECRET = "s3cret"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Program:
    """A program of the table, its tests, and the expected verdict and words of the reason."""

    name: str
    code: str
    tests: str
    verdict: str
    says: str

    def expects(self, reason: str) -> bool:
        """Whether a reason has the expected words."""
        return any(words in reason for words in self.says.split(" or "))


def programs() -> list[Program]:
    """The table of programs, with names for what only a run knows."""
    blocks = re.split(r"^=== ", (FOLDER / "programs.txt").read_text(), flags=re.MULTILINE)[1:]
    return [_program(block) for block in blocks]


def _program(block: str) -> Program:
    head, _, body = block.partition("\n")
    name, verdict, says = head.split(" | ")
    code, _, tests = body.partition("--- tests\n")
    code = re.sub(r"<refused (.*)>", lambda m: REFUSED.format(f"<calls {m[1]}>"), code)
    code = re.sub(r"<others>", lambda m: REFUSED.format(_others()), code)
    code = re.sub(r"<calls (.*?)>", lambda m: repr(_numbers(m[1].split())), code)
    if not tests:
        tests = LOOK if "def look" in code else REACHED if "def reached" in code else TESTS
    return Program(name, code.replace("<surrogate>", "\ud800"), tests, verdict, says)


def all_numbers(machine: str) -> dict[str, int]:
    """The system calls of a machine: name -> number."""
    lines = [line.split() for line in (FOLDER / "syscalls.txt").read_text().splitlines() if not line.startswith("#")]
    column = {"x86_64": 1, "aarch64": 2}[machine]
    return {line[0]: int(line[column]) for line in lines if line[column] != "-"}


NUMBERS = all_numbers(os.uname().machine)


def _numbers(names: list[str]) -> dict[str, int]:
    """The numbers of these system calls, as far as this machine has them."""
    assert not set(names) - {*all_numbers("x86_64"), *all_numbers("aarch64")}, names
    return {name: NUMBERS[name] for name in names if name in NUMBERS}


def _others() -> dict[str, int]:
    """The numbers of all system calls that are not allowed, and of those that the next kernels will have."""
    allowed = {*syscalls.ALLOWED, *syscalls.ALLOWED_WITH}
    known = {name: number for name, number in NUMBERS.items() if name not in allowed}
    return known | {str(number): number for number in range(max(NUMBERS.values()) + 1, 600)}


def answers() -> list[dict]:
    """The table of answers: `name`, `response` (texts, and pairs of a text and how often), `golds`, `verdict`."""
    return [json.loads(line) for line in (FOLDER / "answers.jsonl").read_text().splitlines()]


def text_of(pieces: list) -> str:
    """The response of a line of the table."""
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces)


@dataclass(frozen=True)
class Surroundings:
    """Things of the user that no program may reach.

    Attributes:
        words: the words of the table, and their values.
    """

    words: dict[str, str]
    servers: list[socket.socket]

    def state(self) -> dict[str, object]:
        """What a program could read or change."""
        arrived = []
        for server in self.servers:
            with contextlib.suppress(BlockingIOError):
                arrived.append(server.accept())
        text = ctypes.create_string_buffer(99)
        _libc.syscall(ctypes.c_long(NUMBERS["keyctl"]), 11, ctypes.c_long(int(self.words["key"])), text, 99)
        at = _libc.shmat(int(self.words["segment"]), None, 0)
        shared = ctypes.string_at(at)
        _libc.shmdt(ctypes.c_void_p(at))
        return {
            "secret": Path(self.words["secret"]).read_text(),
            "folder": sorted(os.listdir(self.words["folder"])),
            "arrived": arrived,
            "key": text.value,
            "segment": shared,
            "is alive": Path(f"/proc/{self.words['process']}/stat").read_text().rpartition(") ")[2][0] in "RS",
            "null": oct(os.stat("/dev/null").st_mode),
        }


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """Make them in a folder; LD_LIBRARY_PATH names one of its folders. `known` is what they hold."""
    secret, beside = folder / "secret.txt", folder / "libraries"
    beside.mkdir()
    for file in (secret, beside / "id_rsa"):
        file.write_text(SECRET)
        file.chmod(0o666)
    for library in (path for path in kernel.libraries() if "/libz.so" in path):
        shutil.copy(library, beside)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.socket(f)) for f in (socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)]
        servers[0].bind(("127.0.0.1", 0))
        port = servers[0].getsockname()[1]
        servers[1].bind(str(folder / "socket"))
        servers[2].bind(f"\0hpc_saidpo_{port}")
        for server in servers:
            server.listen()
            server.setblocking(False)
        process = stack.enter_context(subprocess.Popen(["sleep", "1000"], start_new_session=True))
        stack.callback(process.kill)
        key, segment = _key(), stack.enter_context(_segment())
        os.environ["LD_LIBRARY_PATH"] = str(beside)
        words = {
            "secret": secret, "folder": beside, "port": port, "socket": folder / "socket", "process": process.pid,
            "key": key, "segment": segment, "tests": FOLDER, "package": Path(settings.__file__).parents[1],
        }  # fmt: skip
        yield Surroundings({word: str(value) for word, value in words.items()}, servers)


def _key() -> int:
    """A key in a session keyring of this process alone."""
    assert _libc.syscall(ctypes.c_long(NUMBERS["keyctl"]), 1, None) > 0
    number = ctypes.c_long(NUMBERS["add_key"])
    key = _libc.syscall(number, b"user", b"hpc_saidpo", SECRET.encode(), ctypes.c_long(len(SECRET)), ctypes.c_long(-3))
    assert key > 0, os.strerror(ctypes.get_errno())
    return key


@contextlib.contextmanager
def _segment() -> Iterator[int]:
    """Shared memory of System V, with a secret in it."""
    _libc.shmat.restype = ctypes.c_long
    segment = _libc.shmget(0, 4096, 0o1666)
    assert segment >= 0
    at = _libc.shmat(segment, None, 0)
    ctypes.memmove(at, SECRET.encode(), len(SECRET))
    _libc.shmdt(ctypes.c_void_p(at))
    try:
        yield segment
    finally:
        _libc.shmctl(segment, 0, None)


def replaced(text: str, words: dict[str, str]) -> str:
    """A program or its tests, with the words of a run."""
    for word, value in words.items():
        text = text.replace(f"<{word}>", value)
    return text


def judge_programs(names: Container[str], is_confined: bool = True) -> dict[str, list]:
    """name -> [verdict, reason, what changed in the surroundings] of each of these programs; "" -> processes left."""
    found: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as folder, surroundings(Path(folder)) as around, what_is_left() as found[""]:
        for program in (p for p in programs() if p.name in names):
            before = around.state()
            texts = [replaced(text, around.words) for text in (program.code, program.tests)]
            limits = SLEEPER_LIMITS if "on the clock" in program.says else PROGRAM_LIMITS
            judged = run_tests(*texts, replace(limits, code_unsandboxed=not is_confined))
            after = around.state()
            changed = [f"{key}: {after[key]}" for key in after if after[key] != before[key]]
            found[program.name] = [VERDICTS[judged.verdict], judged.reason, changed]
    found[""] = list(map(os.fsdecode, found[""]))
    return found


def judge_answers() -> dict[str, list]:
    """name -> [verdict, reason, files that appeared] of each answer and gold answer."""
    found = {}
    with Grader(ANSWER_LIMITS) as grader, tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for row in answers():
            for gold in row["golds"]:
                judged = grader.grade(text_of(row["response"]), gold)
                found[f"{row['name']} / {gold}"] = [VERDICTS[judged.verdict], judged.reason, os.listdir(folder)]
    return found


def main() -> None:
    """Judge all programs and answers. No signal may arrive meanwhile."""
    received = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: received.append(number))
    judged = {"answers": judge_answers(), "programs": judge_programs([p.name for p in programs()])}
    print(json.dumps({**judged, "signals": received}))


if __name__ == "__main__":
    main()
