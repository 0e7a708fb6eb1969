"""Fixtures. Bodies marked `mpi` run on every rank of whatever world pytest itself was started in."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")

import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import locate, model
from hpc_saidpo.pool import arithmetic
from hpc_saidpo.records import Pairs, Rollouts
from hpc_saidpo.table import Columns

transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
WORLD = connect()
BIN = Path(sys.executable).parent
LAUNCHER_VARIABLES = ("PMI_", "PMIX_", "OMPI_", "MPI_", "HYDI_", "HYDRA_", "SLURM_")


def pytest_configure(config):
    if not WORLD.is_root:
        config.option.verbose = -3
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - root alone reports; lives as long as the process


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    yield
    if call.excinfo is not None and WORLD.size > 1 and not call.excinfo.errisinstance(pytest.skip.Exception):
        # The other ranks may be waiting in a collective that this one will never reach.
        traceback.print_exception(call.excinfo.value)
        WORLD.abort(1)


def pytest_terminal_summary(terminalreporter):
    """What could not be run here, by count: it must not pass for tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, n in reasons.items():
        terminalreporter.write_line(f"{n} test{'s' * (n > 1)} {reason}", yellow=True)


@pytest.fixture(scope="session")
def world() -> World:
    return WORLD


@pytest.fixture
def folder(tmp_path_factory, world) -> Path:
    """One temporary folder, the same on every rank."""
    return world.bcast(tmp_path_factory.mktemp("shared") if world.is_root else None)


MICRO = locate.locate("pkg://hpc_saidpo/data/micro_llama")


def load_micro() -> model.Policy:
    """A fresh copy of the shipped micro model."""
    return model.Policy.load(MICRO, settings.Policy(path=MICRO), torch.device("cpu"))


@pytest.fixture(scope="session")
def micro() -> model.Policy:
    """The shipped micro model; not to be trained."""
    return load_micro()


@contextmanager
def silent(label, total):
    """A progress that shows nothing."""
    yield lambda *_: None


def make_rollouts(rows) -> Rollouts:
    """Rollouts from rows (question, sample, verdict, n_tokens, n_steps, finished, text)."""
    question, sample, verdict, n_tokens, n_steps, finished, text = zip(*rows, strict=True)
    return Rollouts(
        np.array(question), np.array(sample), np.array(verdict), np.array(n_tokens), np.array(n_steps),
        np.array(finished, dtype=bool), np.arange(len(rows), dtype=np.uint64), np.ones(len(rows)),
        [f"q{i}" for i in question], list(text),
    )  # fmt: skip


def make_pairs(n=20, seed=0) -> Pairs:
    """Right against wrong answers of arithmetic questions; question i of the pool, by index 100 + i, is called q<i>."""
    problems = arithmetic.problems({"trained": 1.0}, n, seed)
    zeros = np.zeros(n, dtype=np.int64)
    yes = np.ones(n, dtype=bool)
    return Pairs(
        100 + np.arange(n), zeros, zeros, zeros + 1, yes, yes, zeros, np.full(n, 0.5), zeros + 2.0, zeros + 9.0,
        [f"q{i}" for i in range(n)],
        [p.text + "\n" for p in problems], [p.solution for p in problems], [p.solution[:-1] + "x" for p in problems],
    )  # fmt: skip


def same(a: Columns, b: Columns) -> bool:
    """Whether two tables hold the same, whether their texts are in memory or on disk."""
    return all(np.array_equal(list(getattr(a, f.name)), list(getattr(b, f.name))) for f in dataclasses.fields(a))


def user_environment(**variables: str) -> dict[str, str]:
    """The environment of a user's shell: without what a launcher of this test process has set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_VARIABLES)}
    return {**kept, "OMP_NUM_THREADS": "1", **variables}


def jobs_of(sweep: str, *overrides: str) -> list[list[str]]:
    """The overrides of each job of conf/sweep/<sweep>.yaml, as Hydra makes them of it and of the command line's."""
    with initialize_config_dir(str(compose.conf_folder()), version_base="1.3"):
        composed = compose("config", [f"sweep={sweep}", "experiment=tiny"], return_hydra_config=True)
    parameters = [f"{key}={value}" for key, value in composed.hydra.sweeper.params.items()]
    parsed = OverridesParser.create().parse_overrides([*parameters, f"sweep={sweep}", *overrides])
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return jobs


def command(*arguments: str, ranks: int = 0, program: Sequence[str] = ("-m", "hpc_saidpo")) -> list[str]:
    """The program as a user starts it: under mpiexec with `ranks` > 0, as one plain process otherwise."""
    launch = [str(BIN / "mpiexec"), "-n", str(ranks)] if ranks else []
    runner = ["-m", "mpi4py"] if ranks else []
    return [*launch, sys.executable, *runner, *program, *arguments]


def start(*arguments: str, ranks: int = 0, program: Sequence[str] = ("-m", "hpc_saidpo"), timeout_s: float = 300):
    """Run `command` to its end."""
    return subprocess.run(
        command(*arguments, ranks=ranks, program=program),
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real Slurm of three nodes; CI sets REQUIRE_SLURM, so that there its absence is a failure."""
    from slurm_cluster import Cluster, not_run

    if not_run() and not os.environ.get("REQUIRE_SLURM"):
        pytest.skip(not_run())
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()
