"""The system calls that a confined process may make, and the seccomp filter that refuses all others.

The filter knows what a program that computes needs: memory, time, its own signals, pipes, files to read. It leaves no
way to the network, to other processes, to keys, to shared memory, to limits of the kernel that count for the user, or
to parts of the kernel that no program of a response needs. A call that is refused fails with ENOSYS, as in a kernel
that does not have it; libraries then use another one, or report it.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable

from .kernel import AARCH64, X86_64, call

# name: (number on x86_64, number on aarch64), None where the machine has no such call. Numbers never change.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files, read-only by their mounts; and pipes
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66), "open": (2, None), "openat": (257, 56), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None),
    "pipe2": (293, 59), "close_range": (436, 436),
    # waiting
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    # memory, and locks within the process
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "futex": (202, 98),
    # time
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getitimer": (36, 102),
    "setitimer": (38, 103), "alarm": (37, None),
    # itself: its numbers, limits, signals and end
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getpgid": (121, 155), "getpgrp": (111, None),
    "getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "prlimit64": (302, 261), "getrlimit": (97, 163),
    "getpriority": (140, 141), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getrandom": (318, 278),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "restart_syscall": (219, 128), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "wait4": (61, 260), "exit": (60, 93), "exit_group": (231, 94),
    # the ends of a pair of sockets (`ALLOWED_WITH`)
    "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210),
}  # fmt: skip
_AF_UNIX = 1
_DUPFD, _GETFD, _SETFD, _GETFL, _SETFL, _DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
# name: (numbers, position of an argument of 32 bits, values that it may have)
ALLOWED_WITH = {
    "socket": ((41, 198), 0, (_AF_UNIX,)),
    "socketpair": ((53, 199), 0, (_AF_UNIX,)),
    "fcntl": ((72, 25), 1, (_DUPFD, _GETFD, _SETFD, _GETFL, _SETFL, _DUPFD_CLOEXEC)),
    "ioctl": ((16, 29), 1, (_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)),
}
# A call by another way, such as one of 32 bits, arrives with another architecture. A call of x32 has another number.
_ARCHITECTURE = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}
_COLUMN = {X86_64: 0, AARCH64: 1}

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_KILL_PROCESS, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.ENOSYS
# Instructions of classic BPF: load a word of seccomp_data, compare it with a constant, return.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT, _ARGUMENT_BYTES = 0, 4, 16, 8

Instruction = tuple[int, int, int, int]  # code, instructions to skip if equal, the same if not, constant


def program(machine: str) -> list[Instruction]:
    """The filter for a machine, in classic BPF."""
    column = _COLUMN[machine]
    numbers = [pair[column] for pair in ALLOWED.values()]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in numbers:
        if number is not None:
            lines += _if_equal(number, [(_RETURN, 0, 0, _ALLOW)])
    for pair, position, values in ALLOWED_WITH.values():
        checks = [(_LOAD, 0, 0, _ARGUMENTS_AT + _ARGUMENT_BYTES * position)]  # its low word: little-endian machines
        for value in values:
            checks += _if_equal(value, [(_RETURN, 0, 0, _ALLOW)])
        lines += _if_equal(pair[column], [*checks, (_RETURN, 0, 0, _REFUSE)])
    return [*lines, (_RETURN, 0, 0, _REFUSE)]


def _if_equal(constant: int, then: list[Instruction]) -> list[Instruction]:
    return [(_EQUAL, 0, len(then), constant), *then]


def install(lines: Iterable[Instruction]) -> None:
    """Have the kernel check every system call of this process by a filter, from now on and for ever.

    The process must have renounced new privileges (PR_SET_NO_NEW_PRIVS).

    Raises:
        OSError: the kernel has no such filters, or does not permit them.
    """
    packed = [struct.pack("=HBBI", *line) for line in lines]
    code = ctypes.create_string_buffer(b"".join(packed), 8 * len(packed))
    filter_ = _Filter(len(packed), ctypes.addressof(code))
    try:
        call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(filter_))
    except OSError as error:
        raise OSError(error.errno, f"seccomp: {error.strerror}") from error


class _Filter(ctypes.Structure):
    """sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
