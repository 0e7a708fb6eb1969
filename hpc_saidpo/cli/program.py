"""A program that Hydra configures and that runs on every rank: `run` and `evaluate`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .. import imports, terminal
from ..errors import RunError
from ..names import as_name
from ..parallel.launch import connect
from ..parallel.world import World
from ..settings.keys import conf_folder
from ..settings.whole import Evaluation, Settings
from ..store.layout import newest_policy
from .compose import NO_VALUE, as_composed, build, check_overrides, read_file, swept_keys
from .failures import failures_end_the_job


@dataclass(frozen=True)
class Program:
    """A program over a composed configuration.

    Attributes:
        work: "module:function" of (settings, the settings as plain values, run) -> exit code. The module is imported
            only when the configuration is valid, because the import takes seconds. Collective.
        tree: class of the settings.
        adapt: function that changes the composed configuration first: (configuration, whether run.name is set on the
            command line). policy.path is final by then.
        may_differ: further keys that may have other values than in the run folder that a start resumes.
    """

    work: str
    tree: type[Settings] | type[Evaluation] = Settings
    adapt: Callable[[DictConfig, bool], None] = lambda composed, is_named: None
    may_differ: tuple[str, ...] = ()


FROM_FILES = "--config"
LONGEST_OF_MULTIRUN = 100  # bytes of the name of a multirun's run, which tables and legends show


def start(program: Program, arguments: Sequence[str]) -> int:
    """Compose the configuration, connect the ranks, open the run folder, do the program's work.

    Args:
        arguments: overrides and options of Hydra; or --config and files with whole configurations, each done in turn.

    Returns:
        The exit code. 0: complete; 3: depletion, or a failure signature with loop.on_signature=stop. The process exits
        by itself with 1 on a bug, with 2 on wrong input, and with 75 when the ranks were requested to stop; then the
        same command resumes.
    """
    terminal.guard()
    codes: list[int] = []

    def guarded_job(composed: DictConfig) -> None:
        # Failures of the job are reported here. Hydra would report one on every rank before that.
        with failures_end_the_job(world):
            codes.append(run_job(program, composed, world, is_set("run.name"), lambda job: run_name(job, arguments)))

    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        if arguments[:1] == [FROM_FILES]:
            for plain in world.on_root(lambda: [read_file(path) for path in files_of(arguments[1:])]):
                codes.append(run_job(program, as_composed(plain), world, True, lambda composed: composed.run.name))
        else:
            world.everywhere(lambda: check_overrides(arguments))
            # argparse, which Hydra uses, takes no -m between overrides.
            sys.argv[1:] = sorted(arguments, key=lambda word: word not in NO_VALUE)
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(guarded_job)()
    code = max(codes, default=0)  # a run that ends with a failure signature does not end its multirun
    if code:
        world.leave(code)
    return code


def files_of(words: Sequence[str]) -> list[Path]:
    """Return the files that follow --config.

    Raises:
        RunError: there is none, or an override.
    """
    if not words or any("=" in Path(word).name or word.startswith("-") for word in words):
        raise RunError(f"{FROM_FILES} takes files with whole configurations, and neither overrides nor other options")
    return [Path(word) for word in words]


def run_job(
    program: Program, composed: DictConfig, world: World, is_named: bool, name_of: Callable[[DictConfig], str]
) -> int:
    """Do one job of a program, of which a multirun has several. Returns the exit code. Collective.

    Args:
        is_named: whether the user named the run; otherwise the program may name it.
        name_of: the run's name in the configuration that the program has adapted.

    Raises:
        RunError: the configuration is wrong; raised before any heavy library is imported.
    """
    if not OmegaConf.is_missing(composed.policy, "path"):
        # A run folder means its newest policy. The path of that policy is stored, because a run may grow.
        newest = world.on_root(lambda: newest_policy(Path(composed.policy.path)))
        composed.policy.path = str(newest or composed.policy.path)
    program.adapt(composed, is_named)
    composed.run.name = name_of(composed)
    world.everywhere(lambda: build(composed, program.tree))
    with imports.of_large_libraries():
        session = importlib.import_module("hpc_saidpo.cli.session")
    return session.work(composed, world, program)


def is_set(key: str) -> bool:
    """Return whether a key is set on the command line."""
    return any(override.startswith(key + "=") for override in HydraConfig.get().overrides.task)


def run_name(composed: DictConfig, arguments: Sequence[str]) -> str:
    """Return the run's name. In a multirun, what the jobs differ by is added, so that every job has its own folder.

    Experiments are added by their names alone: [tiny,idpo] of a run called tiny is "tiny,idpo". A long name is cut, and
    ends with a hash.

    Args:
        arguments: overrides of the whole multirun. Only keys with several values there, or in the file of a sweep,
            are added.
    """
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN or is_set("run.name"):
        return composed.run.name
    swept = swept_keys(arguments) | {*(hydra_config.sweeper.get("params") or {})}
    parts = [composed.run.name]
    for override in hydra_config.overrides.task:
        key, _, value = override.removeprefix("+").partition("=")
        if key.partition("@")[0] == "experiment":
            parts += [name for name in re.findall(r"[\w-]+", value) if name not in parts]
        elif key in swept:
            parts.append(override)
    return as_name(",".join(parts), LONGEST_OF_MULTIRUN)
