"""Confinement by the kernel: namespaces, a root of its own, limits, no privileges. Linux, without any other program."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Iterable

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 2**17, 2**27, 2**28, 2**29, 2**30
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RELATIME = 2**12, 2**14, 2**18, 2**21
_MNT_DETACH = 2
_SAME_AS_STATVFS = 1 | 2 | 4 | 8 | 1024 | 2048  # flags of a mount that statvfs gives by the same numbers
_ST_RELATIME = 4096
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITIES_3 = 0x20080522
_NOBODY = 65534
_BASE, _OLD, _BOX = "/tmp", "/old", "/box"  # any folder that every machine has; the old root and the new one in it
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_N_FILES = 32  # that may be open at once

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments) -> None:
    """A function of libc; OSError when it fails."""
    sent = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, name)(*sent):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def enter() -> None:
    """Go on in a new process within namespaces and a root of their own; the old process ends when that one does.

    Afterwards there is no network, nothing to write to, and nothing to read but Python's library and shared libraries.

    Raises:
        OSError: the kernel does not let this user do it.
    """
    readable = _readable()
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NAMESPACES)
    except PermissionError:  # not root: it needs a user namespace, where a process is root of nothing but that
        _call("unshare", _NAMESPACES | _CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            _write(f"/proc/self/{name}", text)
    _go_on_in_child()
    _make_root(readable)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent does."""
    _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def fork_unseen() -> int:
    """os.fork, for a child that sees no process but itself and its children."""
    _call("unshare", _CLONE_NEWPID)
    return os.fork()


def _go_on_in_child() -> None:
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _readable() -> list[str]:
    """The folders that Python reads: its modules, and shared libraries of this process and of the system."""
    with open("/proc/self/maps") as maps:
        loaded = {os.path.dirname(m[1]) for m in map(re.compile(r".* (/.*\.so[.\d]*)$").match, maps) if m}
    return sorted(path for path in {*sys.path, *loaded, *_LIBRARIES} if path != "/" and os.path.isdir(path))


def _make_root(readable: Iterable[str]) -> None:
    """Make a root that holds these folders alone, read-only, and go there; the old one is let go."""
    sources = {path: os.path.realpath(path) for path in readable}
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("none", _BASE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for folder in (_OLD, _BOX):
        os.mkdir(_BASE + folder)
    _call("pivot_root", _BASE, _BASE + _OLD)
    os.chdir("/")
    bound: list[str] = []
    for path, source in sources.items():  # sorted: what holds a folder comes before it
        if not any(path.startswith(f"{holder}/") for holder in bound):
            os.makedirs(_BOX + path)
            _mount(_OLD + source, _BOX + path, None, _MS_BIND | _MS_REC)
            bound.append(path)
    for place in _mounts_below(_BOX):
        _make_read_only(place)
    _call("umount2", _OLD, _MNT_DETACH)
    _make_read_only("/")
    # A process whose root is not that of its namespace may make no user namespace, where it would be root again.
    os.chroot(_BOX)
    os.chdir("/")


def _mounts_below(folder: str) -> list[str]:
    with open(f"{_OLD}/proc/self/mountinfo") as table:
        found = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in table]
    return [place for place in found if place.startswith(f"{folder}/")]


def _make_read_only(place: str) -> None:
    # A flag that a mount has may be locked to it, and must be kept.
    has = os.statvfs(place).f_flag
    kept = has & _SAME_AS_STATVFS | (_MS_RELATIME if has & _ST_RELATIME else 0)
    _mount(None, place, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | kept)


def renounce(cpu_s: float, memory_bytes: int, is_confined: bool) -> None:
    """Give up every privilege, and set limits that nobody can raise: CPU time, memory, no new process, no file.

    Args:
        cpu_s: CPU time, s; the kernel counts whole seconds, and ends the process at the next one.
        memory_bytes: of address space.
        is_confined: `enter` was called; else the process stays the user it is, who can read Python's modules.
    """
    if is_confined and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # root of a user namespace has no other user
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _call("capset", (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    end_with_parent()  # another user has forgotten it
    for limit, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, int(-(-cpu_s // 1))),  # the same as soft and hard limit: SIGKILL, which nothing catches
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),  # also of files that are memory
        (resource.RLIMIT_NOFILE, _N_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        allowed = resource.getrlimit(limit)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(limit, (most, most))
