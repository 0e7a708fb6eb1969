"""One start of a program: the run folder, its log, the facts of the start. Imported when the configuration is valid."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from .. import __version__, imports, progress
from ..errors import limit_messages
from ..names import below
from ..parallel import launched
from ..parallel.stop import EXIT_STOPPED, Stopped
from ..parallel.world import World
from ..reading import read_text
from ..store import software
from ..store.run import RunDir
from .compose import build
from .failures import say
from .program import Program

SLURM_FACTS = (
    "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST",
)  # fmt: skip


def work(composed: DictConfig, world: World, program: Program) -> int:
    """Open the run folder and do the program's work. Returns its exit code. Collective.

    Exits with EXIT_STOPPED when the ranks were requested to stop.
    """
    settings, plain = build(composed, program.tree)
    limit_messages(settings.run.message_chars)
    device = world.use_device(settings.run.device)
    n_threads = world.use_threads(1 if settings.run.deterministic else settings.run.threads)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    # Some CUDA kernels have no deterministic form: equal results are guaranteed on the CPU only.
    # (`use_deterministic_algorithms` does the same, but imports the compiler first: seconds on every rank.)
    strict = "warn" if world.device.type == "cuda" else "error"
    torch.set_deterministic_debug_mode(strict if settings.run.deterministic else "default")
    facts = environment(world, n_threads)
    world.listen(settings.run.grace_s, progress.announce)
    module, _, function = program.work.partition(":")
    with imports.of_large_libraries():
        do = getattr(importlib.import_module(module), function)
    try:
        with RunDir.open(settings.run, plain, facts, world, say, program.may_differ) as run:
            start_logging(run, n_threads, device)
            code = do(settings, plain, run)
    except Stopped as stopped:
        if world.is_root:
            say(f"stopped by {stopped}: all finished work is stored, the same command resumes from there")
        world.leave(EXIT_STOPPED)
    world.barrier()
    return code


def start_logging(run: RunDir, n_threads: int, device: str) -> None:
    """Open a log file for every rank. Root logs to the console too, and logs the size of the world."""
    world = run.world
    progress.start_logging(run.log_path(), world.is_root)
    ranks, threads = "s" * (world.size > 1), "s" * (n_threads > 1)
    started = (run.path, world.size, ranks, n_threads, threads, device)
    progress.log.info("hpc_saidpo: run %s on %d rank%s × %d thread%s, %s", *started)
    if alone := launched.unused_tasks(world.size):
        progress.log.warning("%s", alone)


def environment(world: World, n_threads: int) -> dict[str, Any]:
    """Return the facts about this start for env.json. Collective."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["hpc-saidpo", *sys.argv[1:]]),
        "hosts": sorted(set(world.gather(platform.node()))),
        "world_size": world.size,
        "threads_per_rank": n_threads,
        "device": str(world.device),
        "python": platform.python_version(),
        "commit": commit(),
        "cuda": torch.version.cuda,
        "gpus": sorted({name for name in world.gather(gpu_name(world.device)) if name}),
        "mpi": world.describe()["library"],
        "packages": {"hpc_saidpo": __version__, **software.installed()},
        "slurm": {name: os.environ[name] for name in SLURM_FACTS if name in os.environ},
    }


def gpu_name(device: torch.device) -> str:
    """Return the name of a GPU, "" for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def commit() -> str | None:
    """Return the git commit of the running code, read without a subprocess (MPI and fork do not mix well).

    A copy that tools/submit.py made has a file with it, which ends in -dirty if files had been changed.
    """
    git, copied = (Path(__file__).parents[2] / name for name in (".git", ".commit"))
    try:
        if copied.exists():
            return read_text(copied).strip()
        head = read_text(git / "HEAD").strip()
        return read_text(below(git, head.removeprefix("ref: "))).strip() if head.startswith("ref: ") else head
    except (OSError, ValueError):
        return None
