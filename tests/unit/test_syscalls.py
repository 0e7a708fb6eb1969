"""The filter of system calls, executed as the kernel does it, for both machines."""

import errno
import os
from types import SimpleNamespace

import pytest
from support.hostile import all_numbers

from hpc_saidpo.sandbox import kernel, syscalls

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHERS = (0x40000003, 0x40000028, 0xC00000F3, 0, 0x3E)  # i386, ARM, RISC-V, nothing
ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x50000 | errno.ENOSYS, 0x80000000


def decision(lines, architecture, number, *arguments):
    """The value that the filter returns for a call. Arguments have 64 bits, and are read in halves."""
    words = [number, architecture, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        words += [argument % 2**32, argument >> 32]
    at = accumulator = 0
    while True:
        code, if_equal, if_not, constant = lines[at]
        at += 1
        if code == 0x20:
            assert constant % 4 == 0
            accumulator = words[constant // 4]
        elif code == 0x15:
            at += if_equal if accumulator == constant else if_not
        else:
            assert code == 0x06
            return constant


@pytest.fixture(params=ARCHITECTURES)
def machine(request):
    return request.param


def test_what_is_not_listed_is_refused(machine):
    lines, numbers = syscalls.program(machine), all_numbers(machine)
    for number in {*numbers.values(), *range(600), *(2**30 + n for n in range(600)), 2**32 - 1}:
        names = [name for name, value in numbers.items() if value == number]
        expected = ALLOWED if names and names[0] in syscalls.ALLOWED else REFUSED
        if not names or names[0] not in syscalls.ALLOWED_WITH:
            assert decision(lines, ARCHITECTURES[machine], number) == expected, (number, names)


def test_the_numbers_are_those_of_the_kernel(machine):
    numbers, column = all_numbers(machine), list(ARCHITECTURES).index(machine)
    listed = {name: pair[column] for name, pair in syscalls.ALLOWED.items()}
    listed |= {name: pair[column] for name, (pair, *_) in syscalls.ALLOWED_WITH.items()}
    assert listed == {name: numbers.get(name) for name in listed}


@pytest.mark.parametrize(
    ("name", "arguments", "is_allowed"),
    [
        ("socket", (1, 1, 0), True),
        ("socketpair", (1, 1, 0), True),
        ("socket", (2, 1, 0), False),
        ("socket", (2**32 + 2, 1, 0), False),  # the kernel reads the low half alone
        ("socket", (0, 1, 0), False),
        ("socketpair", (16, 1, 0), False),
        ("fcntl", (3, 1, 0), True),
        ("fcntl", (3, 8, 1), False),  # F_SETOWN
        ("fcntl", (3, 1024, 0), False),  # F_SETLEASE
        ("ioctl", (3, 0x5401, 0), True),
        ("ioctl", (3, 0x5412, 0), False),  # TIOCSTI
    ],
)
def test_some_are_allowed_with_some_arguments(machine, name, arguments, is_allowed):
    number = all_numbers(machine)[name]
    found = decision(syscalls.program(machine), ARCHITECTURES[machine], number, *arguments)
    assert found == (ALLOWED if is_allowed else REFUSED)


def test_a_call_of_another_architecture_ends_the_process(machine):
    lines = syscalls.program(machine)
    for other in {*OTHERS, *ARCHITECTURES.values()} - {ARCHITECTURES[machine]}:
        for number in (*range(500), *(2**30 + n for n in range(500))):
            assert decision(lines, other, number) == KILLED
    assert len(lines) <= 4096  # of the kernel


def test_what_an_attacker_wants_is_on_no_list():
    wanted = (
        "connect bind io_uring_setup userfaultfd keyctl add_key request_key shmget semget msgget mq_open bpf ptrace "
    )
    wanted += (
        "perf_event_open process_vm_readv kexec_load mount setns unshare open_by_handle_at personality fork clone "
    )
    wanted += (
        "clone3 vfork execve execveat memfd_create prctl seccomp setsid setpgid fchmod chmod unlink openat2 pidfd_open"
    )
    assert not {*syscalls.ALLOWED, *syscalls.ALLOWED_WITH} & set(wanted.split())
    assert set(wanted.split()) <= {*all_numbers("x86_64"), *all_numbers("aarch64")}


@pytest.mark.parametrize(("name", "bits"), [("riscv64", 2**63 - 1), ("i686", 2**63 - 1), ("x86_64", 2**31 - 1)])
def test_another_machine_has_no_filter(monkeypatch, name, bits):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=name))
    monkeypatch.setattr("sys.maxsize", bits)
    with pytest.raises(OSError, match=f"there is no filter for .*{name}"):
        kernel.machine()
