"""Calls of the C library and of the kernel, by ctypes. Linux only."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from typing import Any

# Machines whose system calls have a number in `syscalls`.
X86_64, AARCH64 = "x86_64", "aarch64"
_KEYCTL = {X86_64: 250, AARCH64: 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_WAITS_S = (0.01, 0.1, 1.0, 3.0)  # for room among the keys of this user

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """Call a function of libc.

    Raises:
        OSError: it fails; the message begins with `name`.
    """
    sent = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, name)(*sent) == -1:
        raise failure(name)


def failure(name: str) -> OSError:
    """The error of the last call of libc."""
    error = ctypes.get_errno()
    return OSError(error, f"{name}: {os.strerror(error)}")


def machine() -> str:
    """The machine whose system calls this process makes: X86_64 or AARCH64.

    Raises:
        OSError: it is another one.
    """
    name = os.uname().machine
    if name not in _KEYCTL or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, f"seccomp: there is no filter for {8 * ctypes.sizeof(ctypes.c_void_p)}-bit {name}")
    return name


def join_new_keyring() -> None:
    """Replace the session keyring, which processes inherit, by a new and empty one.

    Raises:
        OSError: the kernel has no keyrings, does not permit it, or this user has too many keys.
    """
    number, operation = ctypes.c_long(_KEYCTL[machine()]), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING)
    for wait_s in (*_WAITS_S, None):
        if _libc.syscall(number, operation, None) != -1:
            return
        # The keyrings of processes that have ended count until the kernel removes them, a little later.
        if ctypes.get_errno() != errno.EDQUOT or wait_s is None:
            raise failure("keyctl")
        time.sleep(wait_s)


def libraries() -> list[str]:
    """The shared libraries of this process, each by the name under which the loader found it."""
    names: list[bytes] = []
    visit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Loaded), ctypes.c_size_t, ctypes.c_void_p)
    _libc.dl_iterate_phdr(visit(lambda loaded, size, data: names.append(loaded[0].name or b"") or 0), None)
    return sorted(os.fsdecode(name) for name in names if name.startswith(b"/"))


class _Loaded(ctypes.Structure):
    """The first fields of dl_phdr_info."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))
