"""Confinement by the kernel: namespaces, a separate root, limits, no privileges. Linux only; needs no program."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Iterable

from . import kernel, syscalls

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 2**17, 2**27, 2**28, 2**29, 2**30
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RELATIME = 2**12, 2**14, 2**18, 2**21
_MNT_DETACH = 2
_SAME_AS_STATVFS = 1 | 2 | 4 | 8 | 1024 | 2048  # flags of a mount with the same numbers in statvfs
_ST_RELATIME = 4096
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITIES_3 = 0x20080522
_NOBODY = 65534
_BASE, _OLD, _BOX = "/tmp", "/old", "/box"  # a folder of every machine; in it, the old root and the new one
_INSTALLED = ("site-packages", "dist-packages")  # folders inside the standard library that are not part of it
_N_FILES = 32  # open at once


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    kernel.call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def enter() -> None:
    """Continue with a session keyring of its own, in new namespaces; the next child of this process is inside.

    Raises:
        OSError: the kernel does not permit it to this user.
    """
    kernel.join_new_keyring()
    user, group = os.getuid(), os.getgid()
    try:
        kernel.call("unshare", _NAMESPACES)
    except PermissionError:  # not root: it needs a user namespace, and is root in that one only
        kernel.call("unshare", _NAMESPACES | _CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            _write(f"/proc/self/{name}", text)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent does."""
    kernel.call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def fork_unseen() -> int:
    """os.fork, for a child that sees itself and its children as the only processes."""
    kernel.call("unshare", _CLONE_NEWPID)
    return os.fork()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def change_root(libraries: Iterable[str]) -> None:
    """Make a root that holds Python's standard library and these files alone, read-only, and change to it.

    The old root is unmounted, and folders of installed packages inside the standard library are empty.

    Args:
        libraries: shared libraries, as `libraries.find` returns them.

    Raises:
        OSError: the kernel does not permit it to this user.
    """
    standard = sorted(path for path in sys.path if path != "/" and os.path.exists(path))
    sources = {path: os.path.realpath(path) for path in (*standard, *libraries)}
    is_folder = {path: os.path.isdir(path) for path in sources}
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("none", _BASE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for folder in (_OLD, _BOX):
        os.mkdir(_BASE + folder)
    kernel.call("pivot_root", _BASE, _BASE + _OLD)
    os.chdir("/")
    bound: list[str] = []
    for path, source in sources.items():  # sorted: a folder comes before those inside it
        if not any(path.startswith(f"{holder}/") for holder in bound):
            _bind(_OLD + source, _BOX + path, is_folder[path])
            bound.append(path)
    for place in _mounts_below(_BOX):
        _make_read_only(place)
    kernel.call("umount2", _OLD, _MNT_DETACH)
    _make_read_only("/")
    # A process with another root than its namespace cannot make a user namespace, in which it would be root again.
    os.chroot(_BOX)
    os.chdir("/")
    for folder in (f"{path}/{name}" for path in standard for name in _INSTALLED):
        if os.path.isdir(folder):
            _mount("none", folder, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "mode=555")


def _bind(source: str, target: str, is_folder: bool) -> None:
    os.makedirs(target if is_folder else os.path.dirname(target), exist_ok=True)
    if not is_folder:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _mounts_below(folder: str) -> list[str]:
    with open(f"{_OLD}/proc/self/mountinfo") as table:
        places = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in table]
    return [place for place in places if place.startswith(f"{folder}/")]


def _make_read_only(place: str) -> None:
    # A flag of the mount may be locked, and must be kept.
    has = os.statvfs(place).f_flag
    kept = has & _SAME_AS_STATVFS | (_MS_RELATIME if has & _ST_RELATIME else 0)
    _mount(None, place, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | kept)


def renounce(cpu_s: float, memory_bytes: int, is_confined: bool) -> None:
    """Drop every privilege and set limits that nobody can raise: CPU time, memory, no new process, no file.

    A confined process also loses all system calls that a program which computes does not need.

    Args:
        cpu_s: CPU time in seconds; the kernel counts whole seconds, and ends the process at the next one.
        memory_bytes: address space.
        is_confined: whether `enter` was called; if not, the process keeps its user, who can read Python's modules.

    Raises:
        OSError: the kernel does not permit it to this user.
    """
    if is_confined and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace, root has no other user
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    kernel.call("capset", (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)())
    kernel.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kernel.call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    end_with_parent()  # a change of the user has cancelled it
    for limit, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, int(-(-cpu_s // 1))),  # as soft and as hard limit: SIGKILL, which nothing catches
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),  # files in memory included
        (resource.RLIMIT_NOFILE, _N_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        allowed = resource.getrlimit(limit)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(limit, (most, most))
    if is_confined:
        syscalls.install(syscalls.program(kernel.machine()))
