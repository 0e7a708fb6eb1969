"""Artefacts for several runs and concurrent jobs: one job computes it, and it appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..parallel.world import World
from . import disk, files, temporaries
from .lock import Lock
from .stage import Stage
from .tables import Damaged

STALE_SCRATCH_S = 7 * 86_400
_SCRATCH = re.compile(r"\..+-[0-9a-f]{16}\.-?[0-9]+\.tmp")
POLL_S = 0.5  # pause between two polls of a job that waits for another one
T = TypeVar("T")


def load_or_compute(
    path: Path,
    world: World,
    report: Callable[[str], None],
    compute: Callable[[Stage], None],
    load: Callable[[Stage], T],
    resumes: bool = False,
) -> T:
    """Load the artefact at `path`; compute it first if it does not exist. Collective; see `RunDir.shared`."""
    final, lock = Stage(path), Lock(path.with_name(f".{path.name}.lock"), guarded=f"shared artefact {path}")
    loaded = world.on_root(lambda: _load_sound(final, load))
    if loaded:
        return loaded[0]
    _wait_for_lock(lock, world, report)
    try:
        loaded = world.on_root(lambda: _load_sound(final, load, report))  # another job may have computed it meanwhile
        return loaded[0] if loaded else _compute(final, lock, world, compute, load, resumes)
    finally:
        if world.is_root:
            lock.release()


def _load_sound(
    final: Stage, load: Callable[[Stage], T], report: Callable[[str], None] | None = None
) -> tuple[()] | tuple[T]:
    """Return the loaded artefact; () if it does not exist or is damaged.

    Args:
        report: only for the job that holds the lock: a damaged artefact is set aside and reported. None: it stays.
    """
    damage = None
    try:
        if final.done:
            final.check_complete()
            return (load(final),)
    except Damaged as caught:
        damage = caught
    if report and damage:
        report(f"{damage.path}: {damage.problem}: computed again")
    if report and disk.exists(final.path):
        files.move(final.path, files.old_name(final.path, "damaged"))
    return ()


def _wait_for_lock(lock: Lock, world: World, report: Callable[[str], None]) -> None:
    """Acquire the lock. While another job holds it, wait. Collective.

    Raises:
        Stopped: a stop was requested meanwhile.
    """

    reported = set()

    def try_acquire() -> str:
        files.make_folder(lock.path.parent)
        holder = lock.try_acquire(report)
        if holder and holder not in reported:
            reported.add(holder)
            report(f"{holder}: waiting for its result")
        if holder:
            time.sleep(POLL_S)
        return holder

    while world.on_root(try_acquire):
        world.stop_if_requested()


def _compute(
    final: Stage,
    lock: Lock,
    world: World,
    compute: Callable[[Stage], None],
    load: Callable[[Stage], T],
    resumes: bool,
) -> T:
    """Compute the artefact in a folder beside its final place, then move it there. Collective."""
    user = world.on_root(lambda: temporaries.owner_of(lock.path))
    scratch = Stage(final.path.with_name(f".{final.path.name}.{user}.tmp"))  # another user cannot continue in it

    def prepare() -> None:
        _remove_stale_scratch(final.path.parent, lock.path)
        if not resumes:
            shutil.rmtree(scratch.path, ignore_errors=True)
        files.make_folder(scratch.path)
        temporaries.require_own(scratch.path, lock.path)
        os.utime(scratch.path)

    def finish() -> None:
        lock.check()
        scratch.mark_done()
        files.move(scratch.path, final.path)

    world.on_root(prepare)
    try:
        compute(scratch)
    except BaseException:
        if not resumes:
            shutil.rmtree(scratch.path, ignore_errors=True)  # on every rank: no rank may continue before it is gone
        raise
    world.barrier()
    world.on_root(finish)
    return world.on_root(lambda: load(final))


def _remove_stale_scratch(folder: Path, own: Path) -> None:
    """Remove old scratch folders and temporary files of this user's killed jobs. Those of a living job are younger.

    Args:
        own: a file that this process has made: only what has the same owner is removed.
    """
    for path in map(folder.joinpath, disk.names_in(folder)):
        if _SCRATCH.fullmatch(path.name) or temporaries.is_temporary(path):
            with contextlib.suppress(OSError):  # another job removes it too
                status = os.lstat(path)
                if status.st_uid == temporaries.owner_of(own) and time.time() - status.st_mtime > STALE_SCRATCH_S:
                    temporaries.remove(path)


def finished(folder: Path, name: str) -> list[Stage]:
    """Return the finished artefacts of a name in a folder, with any key, newest first."""
    named = re.compile(re.escape(name) + r"-[0-9a-f]{16}")
    done = [stage for stage in map(Stage, folder.glob(f"{name}-*")) if named.fullmatch(stage.path.name) and stage.done]
    return sorted(done, key=lambda stage: (stage.path / "DONE").stat().st_mtime_ns, reverse=True)
