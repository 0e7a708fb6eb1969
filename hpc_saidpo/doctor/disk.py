"""The file system of the runs, and what a run reads. Collective."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import numpy as np

from ..errors import RunError
from ..parallel.world import World
from ..records import Draw
from ..store import files
from ..store.stage import Stage
from . import inputs
from .finding import Finding, judge

WRITTEN_BYTES = 256 << 20
SLOW_BYTES_PER_S = 50e6
LATE_S = 5.0
GIB = 2**30


def check(world: World, config, needed_bytes: float | None) -> list[Finding]:
    """Can runs be written where they shall lie, fast enough, with room; and is everything there that they read?"""
    folder = Path(config.run.root) / f".doctor-{world.bcast(uuid.uuid4().hex[:8])}"
    try:
        world.on_root(lambda: files.make_folder(folder))
        found = [world.on_root(lambda: _store(folder)), _visible(world, folder), world.on_root(lambda: _speed(folder))]
    except (RunError, OSError, RuntimeError) as error:  # RuntimeError: root's OSError, as the other ranks see it
        told = judge("run folder", config.run.root, failure=f"{error}: give a run.root that can be written")
        return [told, *_inputs(world, config)]
    finally:
        world.on_root(lambda: shutil.rmtree(folder, ignore_errors=True))
    space = world.on_root(lambda: _space(Path(config.run.root), needed_bytes))
    return [*found, space, *_inputs(world, config)]


def _store(folder: Path) -> Finding:
    """The store's own way of writing: HDF5 in memory, a temporary name, fsync, rename."""
    stage, table = Stage(folder / "stage"), Draw(np.arange(1000), np.ones(1000), np.zeros(1000, dtype=np.int64))
    stage.prepare()
    stage.write("draw", table)
    stage.mark_done()
    stage.check_complete()
    back = stage.read("draw", Draw)
    locks = os.environ.get("HDF5_USE_FILE_LOCKING", "")
    works, own = "work" if _locks(folder / "lock") else "do not", "off" if locks == "FALSE" else locks or "on"
    told = f"{folder.parent}: HDF5 and rename work; file locks {works}, HDF5's own are {own}"
    differs = not np.array_equal(back.question_Q, table.question_Q)
    on = "" if locks == "FALSE" else "set HDF5_USE_FILE_LOCKING=FALSE: the store needs no locks, Lustre may have none"
    return judge(
        "run folder", told, failure="what is read is not what was written: another run.root" * differs, warning=on
    )


def _locks(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _visible(world: World, folder: Path) -> Finding:
    """How late other nodes see a file that root has renamed into place."""
    world.on_root(lambda: files.write_text(folder / "seen", "yes"))
    started = time.monotonic()
    while not (folder / "seen").exists() and time.monotonic() - started < 60:
        time.sleep(0.05)
    late = max(world.gather(time.monotonic() - started if (folder / "seen").exists() else float("inf")))
    told = "no rank sees root's file" if late == float("inf") else f"root's file seen by all after {late:.1f} s"
    failure = "nodes do not share run.root: give a folder on a shared file system" * (late == float("inf"))
    return judge(
        "shared", told, failure=failure, warning="a slow network file system: stages wait that long" * (late > LATE_S)
    )


def _speed(folder: Path) -> Finding:
    block = np.random.default_rng(0).bytes(1 << 20)
    started = time.monotonic()
    files.write_bytes(folder / "block", b"".join([block] * (WRITTEN_BYTES >> 20)))
    rate = WRITTEN_BYTES / (time.monotonic() - started)
    slow = "slow: policies of many GB will take long to save; use the parallel file system" * (rate < SLOW_BYTES_PER_S)
    return judge("write bandwidth", f"{rate / 1e6:.0f} MB/s ({WRITTEN_BYTES >> 20} MiB, synced)", warning=slow)


def _space(root: Path, needed_bytes: float | None) -> Finding:
    free = shutil.disk_usage(root).free
    told = f"{free / GIB:.0f} GiB free{_quota(root)}"
    if needed_bytes is None:
        return judge("space", told)
    told += f"; the run writes about {needed_bytes / GIB:.1f} GiB"
    return judge("space", told, failure="too little: free space, or another run.root" * (free < needed_bytes))


def _quota(root: Path) -> str:
    """What the site's quota command says of this file system, if there is one."""
    for command in (["lfs", "quota", "-hq", "-u", str(os.getuid()), str(root)], ["quota", "-sw"]):
        if shutil.which(command[0]):
            try:
                said = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.split("\n")
            except (OSError, subprocess.TimeoutExpired):
                continue
            lines = [" ".join(line.split()) for line in said if any(c.isdigit() for c in line)]
            if lines:
                return f"; quota: {lines[-1]}"
    return ""


def _inputs(world: World, config) -> list[Finding]:
    everyones = world.gather([(i.key, i.value, i.path, i.problem) for i in inputs.of(config)])
    found = []
    for rank_wise in zip(*everyones, strict=True):
        problems = {problem for *_, problem in rank_wise if problem}
        key, value, path, _ = rank_wise[0]
        ranks = sum(bool(problem) for *_, problem in rank_wise)
        where = f" (on {ranks} of {world.size} ranks)" * (0 < ranks < world.size)
        remedy = f"{'; '.join(sorted(problems))}{where}: collect it with tools/bundle.sh where there is internet"
        told = value if path in ("", value) else f"{value}: {path}"
        found.append(judge(key, told, failure=remedy if problems else ""))
    return found
