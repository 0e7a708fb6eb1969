"""Preflight checks of the run folder's file system, and of the files that a run reads. Collective."""

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
from ..settings.whole import Settings
from ..store import files
from ..store.stage import Stage
from . import inputs, room
from .finding import Finding, judge
from .room import Room

WRITTEN_BYTES = 256 << 20
SLOW_BYTES_PER_S = 50e6
VISIBLE_WITHIN_S = 60.0
LATE_S = 5.0


def check(world: World, config: Settings, needed: Room | None, n_runs: int = 1) -> list[Finding]:
    """Check the file system of run.root (format, visibility, speed, free space) and the run's input files.

    Args:
        needed: what the runs will write; None when it could not be estimated.
        n_runs: number of runs that is meant.
    """
    root = Path(config.run.root)
    folder = root / f".doctor-{world.bcast(uuid.uuid4().hex[:8])}"
    try:
        world.on_root(lambda: files.make_folder(folder))
        findings = [
            world.on_root(lambda: _store(folder)),
            _visible(world, folder),
            world.on_root(lambda: _speed(folder)),
        ]
    except (RunError, OSError, RuntimeError) as error:  # RuntimeError: root's OSError, as the other ranks see it
        failure = f"{error}: set run.root to a folder that can be written"
        return [judge("run folder", config.run.root, failure=failure), *_inputs(world, config)]
    finally:
        world.on_root(lambda: shutil.rmtree(folder, ignore_errors=True))
    space = world.on_root(lambda: _space(root, needed, n_runs))
    return [*findings, space, *_inputs(world, config)]


def _store(folder: Path) -> Finding:
    """Write and read a table as the store does: HDF5 in memory, a temporary name, fsync, rename."""
    stage, table = Stage(folder / "stage"), Draw(np.arange(1000), np.ones(1000), np.zeros(1000, dtype=np.int64))
    stage.prepare()
    stage.write("draw", table)
    stage.mark_done()
    stage.check_complete()
    back = stage.read("draw", Draw)
    locks = os.environ.get("HDF5_USE_FILE_LOCKING", "")
    works, in_hdf5 = "work" if _locks(folder / "lock") else "do not", "off" if locks == "FALSE" else locks or "on"
    text = f"{folder.parent}: HDF5 and rename work; file locks {works}, locks of HDF5 are {in_hdf5}"
    differs = not np.array_equal(back.question_Q, table.question_Q)
    on = "" if locks == "FALSE" else "set HDF5_USE_FILE_LOCKING=FALSE: the store needs no locks, Lustre may have none"
    failure = "a table that was read differs from the one that was written: choose another run.root" * differs
    return judge("run folder", text, failure=failure, warning=on)


def _locks(path: Path) -> bool:
    """Whether the file system has file locks."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _visible(world: World, folder: Path) -> Finding:
    """Measure after how many seconds the other nodes see a file that root has renamed into place."""
    world.on_root(lambda: files.write_text(folder / "seen", "yes"))
    started = time.monotonic()
    while not (folder / "seen").exists() and time.monotonic() - started < VISIBLE_WITHIN_S:
        time.sleep(0.05)
    late = max(world.gather(time.monotonic() - started if (folder / "seen").exists() else float("inf")))
    text = "no rank sees root's file" if late == float("inf") else f"root's file seen by all after {late:.1f} s"
    failure = "nodes do not share run.root: choose a folder on a shared file system" * (late == float("inf"))
    return judge(
        "shared", text, failure=failure, warning="a slow network file system: stages wait that long" * (late > LATE_S)
    )


def _speed(folder: Path) -> Finding:
    """Measure the bandwidth of one synced file."""
    block = np.random.default_rng(0).bytes(1 << 20)
    started = time.monotonic()
    files.write_bytes(folder / "block", b"".join([block] * (WRITTEN_BYTES >> 20)))
    rate = WRITTEN_BYTES / (time.monotonic() - started)
    slow = "slow: policies of many GB will take long to save; use the parallel file system" * (rate < SLOW_BYTES_PER_S)
    return judge("write bandwidth", f"{rate / 1e6:.0f} MB/s ({WRITTEN_BYTES >> 20} MiB, synced)", warning=slow)


def _space(root: Path, needed: Room | None, n_runs: int) -> Finding:
    """Compare the free space and the free inodes with what the runs will write."""
    text, failure = room.compare(root, needed, n_runs)
    return judge("space", f"{text}{_quota(root)}", failure=failure)


def _quota(root: Path) -> str:
    """The output of the site's quota command for this file system; "" without such a command."""
    for command in (["lfs", "quota", "-hq", "-u", str(os.getuid()), str(root)], ["quota", "-sw"]):
        if shutil.which(command[0]):
            try:
                output = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.split("\n")
            except (OSError, subprocess.TimeoutExpired):
                continue
            lines = [" ".join(line.split()) for line in output if any(c.isdigit() for c in line)]
            if lines:
                return f"; quota: {lines[-1]}"
    return ""


def _inputs(world: World, config: Settings) -> list[Finding]:
    """Check on every rank that the files and folders of the configuration exist."""
    everyones = world.gather([(i.key, i.value, i.path, i.problem) for i in inputs.list_inputs(config)])
    findings = []
    for by_rank in zip(*everyones, strict=True):
        problems = {problem for *_, problem in by_rank if problem}
        key, value, path, _ = by_rank[0]
        n_ranks = sum(bool(problem) for *_, problem in by_rank)
        where = f" (on {n_ranks} of {world.size} ranks)" * (0 < n_ranks < world.size)
        remedy = f"{'; '.join(sorted(problems))}{where}: {inputs.REMEDY}"
        text = value if path in ("", value) else f"{value}: {path}"
        findings.append(judge(key, text, failure=remedy if problems else ""))
    return findings
