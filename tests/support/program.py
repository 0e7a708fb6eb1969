"""The program as a user starts it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hpc_saidpo.cli.environment import DEFAULTS
from hpc_saidpo.settings.keys import conf_folder

from .warm import Warm

HOME = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOYS = HOME / "tests" / "support"  # holds the package toy_plugin
LAUNCHER_VARIABLES = ("PYTEST_XDIST_", "PMI_", "PMIX_", "OMPI_", "MPI_", "HYDI_", "HYDRA_", "SLURM_")


def user_environment(**variables: str) -> dict[str, str]:
    """The environment of a user's shell: without what a launcher of this test process has set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_VARIABLES)}
    return {**kept, "OMP_NUM_THREADS": "1", **variables}


def jobs_of(sweep: str, *overrides: str) -> list[list[str]]:
    """The overrides of each job of conf/sweep/<sweep>.yaml, as Hydra makes them of it and of the command line's."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = compose("config", [f"sweep={sweep}", "experiment=tiny"], return_hydra_config=True)
    parameters = [f"{key}={value}" for key, value in composed.hydra.sweeper.params.items()]
    parsed = OverridesParser.create().parse_overrides([*parameters, f"sweep={sweep}", *overrides])
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return jobs


PROGRAM = ("-m", "hpc_saidpo")


def command(*arguments: str, ranks: int = 0, program: Sequence[str] = PROGRAM, is_warm: bool = False) -> list[str]:
    """The program as a user starts it: under mpiexec with `ranks` > 0, as one plain process otherwise.

    Args:
        is_warm: the imports are done already (`support.warm`); for a start that is not itself what is tested.
    """
    launch = [str(BIN / "mpiexec"), "-n", str(ranks)] if ranks else []
    runner = ["-m", "mpi4py"] if ranks else []
    python = warm().command() if is_warm else [sys.executable]
    return [*launch, *python, *runner, *program, *arguments]


def start(
    *arguments: str,
    ranks: int = 0,
    program: Sequence[str] = PROGRAM,
    timeout_s: float = 300,
    is_warm: bool | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; warm unless it is said otherwise, or another program is named."""
    is_warm = program == PROGRAM if is_warm is None else is_warm
    return subprocess.run(
        command(*arguments, ranks=ranks, program=program, is_warm=is_warm),
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


@functools.cache
def warm() -> Warm:
    """The warm process of this test process."""
    return Warm(user_environment(**DEFAULTS, PYTHONPATH=str(HOME)))  # else an installed package would be imported
