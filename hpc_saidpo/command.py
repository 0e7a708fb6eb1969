"""The command line: compose the configuration, connect the ranks, open the run, do what the program is for."""

from __future__ import annotations

import contextlib
import os
import sys

# Compute nodes have no internet: what is not on disk must be an error, not a hang. Before transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # the store needs no locks; Lustre or NFS may have none
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch wants for deterministic CUDA
# A rank that waits in MPI yields its core to one that computes (MPICH; others ignore it).
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")

import platform
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import hydra
import torch
import transformers
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from . import __version__, loop, parallel, progress, report
from . import config as configuration
from .records import RunError
from .store import RunDir, newest_policy

EXIT_BUG, EXIT_USER, EXIT_SIGNATURE = 1, 2, 3
ROOT_SPEAKS_FIRST_S = 2.0
SLURM_FACTS = (
    "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST",
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """What is done with a composed configuration.

    Attributes:
        run: (config, the same as plain values, world, open run): the work, and the exit code. Collective.
        tree: what the configuration is built as.
        adapt: changes the composed configuration first; policy.path is final by then.
        may_differ: further keys that a start may have other than the run folder it goes on in.
    """

    run: Callable[[object, dict, parallel.World, RunDir], int]
    tree: type = configuration.Config
    adapt: Callable[[DictConfig, bool], None] = lambda composed, named: None
    may_differ: tuple[str, ...] = ()


def main(program: Program | None = None) -> None:
    """See README. Exits 0: the run is complete; 2: bad input; 3: depletion, or a failure
    signature with loop.on_signature=stop; 75: it was told to stop."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Hydra would print a shortened traceback of its own; ours names the rank.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    program = program or Program(run_loop)
    process, codes = os.getpid(), []

    def guarded_job(composed: DictConfig) -> None:
        # With its failures told here: Hydra would first say that there was one, on every rank. It connects the ranks
        # itself: a Hydra launcher may call it in another process than `main`, on another node.
        with failures_end_the_job(None):
            world = parallel.connect()
        with failures_end_the_job(world):
            codes.append(job(composed, world, program))
        if codes[-1] and os.getpid() != process:
            sys.exit(codes[-1])

    with failures_end_the_job(None):
        world = parallel.connect()
    with failures_end_the_job(world):
        configuration.check_overrides(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(configuration.conf_folder()), config_name="config")(
            guarded_job
        )()
    sys.exit(max(codes, default=0))  # a run out of pairs does not end the multirun that it is of


@contextlib.contextmanager
def failures_end_the_job(world: parallel.World | None):
    """One rank's failure ends them all, at once: with its traceback if it is a bug, else with one message."""
    try:
        yield
    except RunError as error:
        fail(world, str(error))
    except hydra.errors.HydraException as error:
        fail(world, f"configuration: {error}")
    except Exception:  # noqa: BLE001 - whatever it is, the other ranks must not wait for this one
        print(f"rank {world.rank if world else 0} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        if world is None:
            sys.exit(EXIT_BUG)
        world.abort(EXIT_BUG)


def job(composed: DictConfig, world: parallel.World, program: Program) -> int:
    """One run: the whole of it, or the next one of a multirun. Its exit code; told to stop, it exits itself."""
    if not OmegaConf.is_missing(composed.policy, "path"):
        # A run stands for its newest policy, and is stored as that: when it has grown, this is another configuration.
        newest = world.on_root(lambda: newest_policy(Path(composed.policy.path)))
        composed.policy.path = str(newest or composed.policy.path)
    program.adapt(composed, is_given("run.name"))
    composed.run.name = run_name(composed)
    config, plain = configuration.build(composed, program.tree)
    n_threads = world.use_threads(1 if config.run.deterministic else config.run.threads)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    # Some CUDA kernels have no deterministic form; the promise of equal results is for the CPU.
    # (`use_deterministic_algorithms` is the same and imports the compiler first: seconds on every rank.)
    strict = "warn" if world.device.type == "cuda" else "error"
    torch.set_deterministic_debug_mode(strict if config.run.deterministic else "default")
    facts = environment(world, n_threads)
    world.listen(config.run.grace_s)
    try:
        with RunDir.open(config.run, plain, facts, world, tell, program.may_differ) as store:
            start_logging(store, world, n_threads)
            code = program.run(config, plain, world, store)
    except parallel.Stopped as stopped:
        if world.is_root:
            tell(f"stopped by {stopped}: what is finished is on disk, the same command goes on from there")
        world.barrier()
        sys.exit(parallel.EXIT_STOPPED)
    world.barrier()
    return code


def tell(message: str) -> None:
    """Say something before there is a log."""
    print(f"hpc_saidpo: {message}", file=sys.stderr, flush=True)


def start_logging(store: RunDir, world: parallel.World, n_threads: int) -> None:
    """A log file for every rank; root's shows what has started."""
    progress.start_logging(store.log_path(), world.is_root)
    progress.log.info(
        "hpc_saidpo: run %s on %d rank%s × %d thread%s, %s",
        store.path,
        world.size,
        "s" * (world.size > 1),
        n_threads,
        "s" * (n_threads > 1),
        world.device,
    )


def run_loop(config: configuration.Config, plain: dict, world: parallel.World, store: RunDir) -> int:
    """The loop, its report, and the exit code."""
    outcome = loop.run(config, world, store)
    if world.is_root:
        report.write(store, outcome, plain)
        progress.log.info("%s", report.table(outcome))
    if outcome.paused:
        progress.log.info("stopped after %s", outcome.paused)
    if outcome.stopped:
        progress.log.error("%s", outcome.stopped)
    return EXIT_SIGNATURE if outcome.stopped else 0


def is_given(key: str) -> bool:
    """Whether a key is set on the command line itself."""
    return any(override.startswith(key + "=") for override in HydraConfig.get().overrides.task)


def run_name(composed: DictConfig) -> str:
    """The run's name; in a multirun each job's overrides are added, so that every job has a folder of its own.

    Experiments are added by their names alone: [tiny,idpo] of a run called tiny is "tiny,idpo".
    """
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN or is_given("run.name"):
        return composed.run.name
    elsewhere = ("run.root=", "run.threads=", "run.grace_s=", "run.accept_changes=", "sweep=")
    parts = [composed.run.name]
    for override in hydra_config.overrides.task:
        key, _, value = override.partition("=")
        if key.removeprefix("+").partition("@")[0] == "experiment":
            parts += [name for name in re.findall(r"[\w-]+", value) if name not in parts]
        elif not override.startswith(elsewhere):
            parts.append(override)
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(parts))


def environment(world: parallel.World, n_threads: int) -> dict:
    """Facts about this start, for env.json. Collective."""
    packages = ("torch", "transformers", "sentence-transformers", "numpy", "h5py", "hydra-core")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hosts": sorted(set(world.gather(platform.node()))),
        "world_size": world.size,
        "threads_per_rank": n_threads,
        "device": str(world.device),
        "python": platform.python_version(),
        "commit": commit(),
        "packages": {"hpc_saidpo": __version__, **{name: version(name) for name in packages}},
        "slurm": {name: os.environ[name] for name in SLURM_FACTS if name in os.environ},
    }


def commit() -> str | None:
    """The git commit of the checkout this runs from, read without starting a process (MPI does not love forks)."""
    git = Path(__file__).parent.parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        return (git / head.removeprefix("ref: ")).read_text().strip() if head.startswith("ref: ") else head
    except OSError:
        return None


def fail(world: parallel.World | None, message: str) -> None:
    """Say it once and end the job. The same error on every rank is root's to tell; one rank's own is told by it."""
    if world is None:  # perhaps one of many that do not see each other
        rank, is_root = os.environ.get("SLURM_PROCID", "0"), os.environ.get("SLURM_PROCID", "0") == "0"
    else:
        rank, is_root = world.rank, world.is_root
    if not is_root:
        time.sleep(ROOT_SPEAKS_FIRST_S)
        message = f"rank {rank}: {message}"
    tell(message)
    if world is None or world.size == 1:
        sys.exit(EXIT_USER)
    world.abort(EXIT_USER)
