"""Artefacts that several runs, and several jobs at once, use: one job makes it, and it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..parallel.world import World
from . import files
from .lock import Lock
from .stage import Stage
from .tables import Damaged

STALE_SCRATCH_S = 7 * 86_400
LOOK_S = 0.5  # between two looks of a job that waits for another


def use_or_make(
    path: Path,
    world: World,
    tell: Callable[[str], None],
    compute: Callable[[Stage], None],
    load: Callable[[Stage], object],
    resumes: bool = False,
):
    """What stands at `path`, made first where it does not. Collective; see `RunDir.shared`."""
    final, lock = Stage(path), Lock(path.with_name(f".{path.name}.lock"), what=f"shared artefact {path}")
    is_there, value = world.on_root(lambda: _known(final, load))
    if is_there:
        return value
    _wait_for_turn(lock, world, tell)
    try:
        is_there, value = world.on_root(lambda: _known(final, load, tell))  # while this job waited
        return value if is_there else _make(final, lock, world, compute, load, resumes)
    finally:
        if world.is_root:
            lock.release()


def _known(final: Stage, load: Callable[[Stage], object], set_aside: Callable[[str], None] | None = None):
    """(whether the artefact is there, what was loaded of it).

    Args:
        set_aside: what is damaged is, and this is told; only for the job that holds the lock. None: it stays.
    """
    damage = None
    try:
        if final.done:
            final.check_complete()
            return True, load(final)
    except Damaged as found:
        damage = found
    if set_aside and damage:
        set_aside(f"{damage.path}: {damage.what}: made again")
    if set_aside and final.path.exists():
        os.replace(final.path, files.old_name(final.path, "damaged"))
    return False, None


def _wait_for_turn(lock: Lock, world: World, tell: Callable[[str], None]) -> None:
    """Take the lock; while another job has it, wait. Collective.

    Raises:
        Stopped: a rank was told to stop meanwhile.
    """

    said = set()

    def take() -> str:
        files.make_folder(lock.path.parent)
        holder = lock.take(tell)
        if holder and holder not in said:
            said.add(holder)
            tell(f"{holder}: waiting for what it makes")
        if holder:
            time.sleep(LOOK_S)
        return holder

    while world.on_root(take):
        world.stop_if_told()


def _make(
    final: Stage,
    lock: Lock,
    world: World,
    compute: Callable[[Stage], None],
    load: Callable[[Stage], object],
    resumes: bool,
):
    """Compute the artefact in a folder beside it, and have it appear. Collective."""
    scratch = Stage(final.path.with_name(f".{final.path.name}.tmp"))

    def prepare():
        _remove_stale_scratch(final.path.parent)
        if not resumes:
            shutil.rmtree(scratch.path, ignore_errors=True)
        files.make_folder(scratch.path)
        os.utime(scratch.path)

    def finish():
        lock.check()
        scratch.mark_done()
        os.rename(scratch.path, final.path)

    world.on_root(prepare)
    try:
        compute(scratch)
    except BaseException:
        if not resumes:
            shutil.rmtree(scratch.path, ignore_errors=True)  # by every rank: it is gone when any of them goes on
        raise
    world.barrier()
    world.on_root(finish)
    return world.on_root(lambda: load(final))


def _remove_stale_scratch(folder: Path) -> None:
    """What killed jobs left, and nobody came back for; a living job's is younger."""
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > STALE_SCRATCH_S:
            shutil.rmtree(path, ignore_errors=True)
