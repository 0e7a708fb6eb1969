"""Artefacts that several runs, and several jobs at once, make and use: each appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..parallel import World
from . import files
from .stage import Stage
from .tables import Damaged

STALE_SCRATCH_S = 86_400


def use_or_make(
    path: Path,
    world: World,
    tell: Callable[[str], None],
    compute: Callable[[Stage], None],
    load: Callable[[Stage], object],
):
    """What stands at `path`, made first where it does not. Collective; see `RunDir.shared`."""
    final = Stage(path)
    is_there, value = world.on_root(lambda: _known(final, load, tell))
    if is_there:
        return value
    scratch = Stage(world.on_root(lambda: _scratch(path)))
    try:
        compute(scratch)
        world.barrier()
        world.on_root(lambda: _finish(scratch, final))
    except BaseException:
        shutil.rmtree(scratch.path, ignore_errors=True)  # by every rank: it is gone when any of them goes on
        raise
    return world.on_root(lambda: load(final))


def _known(final: Stage, load: Callable[[Stage], object], tell: Callable[[str], None]) -> tuple[bool, object]:
    """(whether the artefact is there, what was loaded of it); what is damaged is set aside."""
    try:
        if final.done:
            final.check_complete()
            return True, load(final)
    except Damaged as damage:
        tell(f"{damage.path}: {damage.what}: made again")
    if final.path.exists():
        os.replace(final.path, files.old_name(final.path, "damaged"))
    return False, None


def _scratch(final: Path) -> Path:
    """An empty folder of this job's own, beside what it shall become."""
    _remove_stale_scratch(final.parent)
    path = final.with_name(f".{final.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    shutil.rmtree(path, ignore_errors=True)
    files.make_folder(path)
    return path


def _finish(scratch: Stage, final: Stage) -> None:
    """Have the artefact appear, unless another job was first."""
    scratch.mark_done()
    try:
        os.rename(scratch.path, final.path)
    except OSError:
        if not final.done:
            raise
        shutil.rmtree(scratch.path)


def _remove_stale_scratch(folder: Path) -> None:
    """What killed jobs left; a living job's is younger."""
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > STALE_SCRATCH_S:
            shutil.rmtree(path, ignore_errors=True)
