"""Fixtures. Bodies marked `mpi` run on every rank of the world that pytest itself was started in."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections import Counter
from pathlib import Path

gc.disable()  # until everything is imported

import pytest
import torch
import transformers
from support.make import load_micro

from hpc_saidpo.cli import environment  # noqa: F401 - before heavy imports, as the program does
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy

transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
WORLD = connect()
WORLD.use_device("auto" if torch.cuda.device_count() >= WORLD.size else "cpu")
# CI sets it to the name of what its machine lacks: a test that does not run for another reason is a failure there.
MAY_BE_MISSING = os.environ.get("MAY_BE_MISSING")
gc.enable()
gc.freeze()  # what is imported stays: no search for garbage looks at it again


# Files of long tests, the longest first: no process is then left alone with one of them at the end.
DEAR_FIRST = (
    "test_slurm", "test_on_ranks", "test_demo", "test_crash", "test_loop", "test_pretend", "test_readme_blocks",
    "test_stop_signals", "test_install",
    "test_tags_program", "test_dpo_ranks", "test_plugins", "test_container", "test_verifiers_program", "test_bundle",
    "test_hostile",
    "test_bench_memory", "test_evaluate_command", "test_warm", "test_strategies", "test_reference",
)  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if WORLD.size == 1:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("several")])
        items[:] = [item for item in items if not item.get_closest_marker("several")]
    items.sort(key=lambda item: DEAR_FIRST.index(item.path.stem) if item.path.stem in DEAR_FIRST else len(DEAR_FIRST))


def pytest_configure(config):
    if not WORLD.is_root:
        config.option.verbose = -3
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - root alone reports; lives as long as the process


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and MAY_BE_MISSING is not None and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2])
        if MAY_BE_MISSING not in reason:
            report.outcome, report.longrepr = "failed", f"only tests that need {MAY_BE_MISSING} may not run: {reason}"
    if call.excinfo is not None and WORLD.size > 1 and not call.excinfo.errisinstance(pytest.skip.Exception):
        # The other ranks may be waiting in a collective that this one will never reach.
        traceback.print_exception(call.excinfo.value)
        WORLD.abort(1)


def pytest_terminal_summary(terminalreporter):
    """The number of ranks, and what could not be run here, by count: it must not pass for tested."""
    if WORLD.size > 1:
        terminalreporter.write_line(f"on {WORLD.size} ranks")
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


@pytest.fixture(scope="session")
def micro() -> Policy:
    """The shipped micro model; not to be trained."""
    return load_micro()


@pytest.fixture(scope="module")
def grader():
    """A grading process with the default limits."""
    with Grader() as grader:
        yield grader


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real Slurm of three nodes."""
    from support.slurm_cluster import Cluster, not_run

    if not_run():
        pytest.skip(not_run())
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()
