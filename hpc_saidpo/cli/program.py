"""A program that Hydra configures and that runs on every rank: `run` and `evaluate`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ..parallel.launch import connect
from ..settings.keys import conf_folder
from ..settings.whole import Settings
from ..store.layout import newest_policy
from .compose import build, check_overrides
from .failures import failures_end_the_job


@dataclass(frozen=True)
class Program:
    """A program over a composed configuration.

    Attributes:
        work: "module:function" of (settings, the same as plain values, run) -> exit code; imported only when the
            configuration is right, because the import takes seconds. Collective.
        tree: class that the configuration is built as.
        adapt: changes the composed configuration first: (configuration, whether run.name is given); policy.path is final
            by then.
        may_differ: further keys that may have other values than in the run folder that a start resumes.
    """

    work: str
    tree: type = Settings
    adapt: Callable[[DictConfig, bool], None] = lambda composed, named: None
    may_differ: tuple[str, ...] = ()


def start(program: Program, arguments: Sequence[str]) -> None:
    """Compose the configuration, connect the ranks, open the run folder, do the program's work; then exit.

    Exit codes: 0: complete; 1: a bug; 2: wrong input; 3: depletion, or a failure signature with
    loop.on_signature=stop; 75: the ranks were requested to stop, the same command resumes.
    """
    process, codes = os.getpid(), []

    def guarded_job(composed: DictConfig) -> None:
        # Its failures are reported here: Hydra would first report one on every rank. It connects the ranks itself: a
        # Hydra launcher may call it in another process, on another node.
        with failures_end_the_job(None):
            world = connect()
        with failures_end_the_job(world):
            if not OmegaConf.is_missing(composed.policy, "path"):
                # A run folder means its newest policy, and is stored as that: one that has grown is another policy.
                newest = world.on_root(lambda: newest_policy(Path(composed.policy.path)))
                composed.policy.path = str(newest or composed.policy.path)
            program.adapt(composed, is_given("run.name"))
            composed.run.name = run_name(composed)
            build(composed, program.tree)  # a wrong value is reported before anything heavy is imported
            session = importlib.import_module("hpc_saidpo.cli.session")
            codes.append(session.work(composed, world, program))
        if codes[-1] and os.getpid() != process:
            sys.exit(codes[-1])

    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        check_overrides(arguments)
        sys.argv[1:] = arguments
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(guarded_job)()
    sys.exit(max(codes, default=0))  # a run without pairs does not end the multirun that it belongs to


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
