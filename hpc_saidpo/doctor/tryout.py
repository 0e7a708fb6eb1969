"""The try-out of a policy: are responses decoded, and pairs trained, as its plain forward pass computes them?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import settings
from ..errors import RunError
from ..parallel.world import World
from ..policy import locate
from ..settings.whole import Settings
from ..store.run import RunDir
from .finding import Finding, judge

if TYPE_CHECKING:
    from ..policy.model import Policy
    from ..policy.trial import Trial

FACTS = "models"  # a run keeps the results in models.json


def keep(run: RunDir, policy: Policy, engine: settings.Engine, trains: bool) -> None:
    """Try out the policy once per run, on root. Every rank, and a resumed run, then uses the same ways. Collective.

    Args:
        trains: pairs will be trained, too.

    Raises:
        RunError: the policy can be decoded, or trained, in no way.
    """
    from ..policy import trial

    for key, compute in _trials(policy, engine, trains).items():
        kept = run.keep(FACTS, key, lambda compute=compute: trial.plain_values(compute()))
        trial.remember(key, kept)


def check(world: World, config: Settings) -> list[Finding]:
    """Load the policy on root and try it out. Collective."""
    return world.on_root(lambda: [_examine(config, world)])


def _trials(policy: Policy, engine: settings.Engine, trains: bool) -> dict[str, Callable[[], Trial]]:
    """The try-outs of a policy by their keys."""
    from ..dpo import arrangement
    from ..rollouts.engine import ways

    done: dict[str, Callable[[], Trial]] = {}
    name = engine.engine
    if name != "vllm":  # vllm computes in a separate process
        done[ways.engine_key(policy, name)] = lambda: ways.tried_engine(policy, name)
    if trains:
        key = arrangement.arrangement_key(policy.model, policy.precision)
        done[key] = lambda: arrangement.try_arrangement(policy.model, policy.precision)
    return done


def _examine(config: Settings, world: World) -> Finding:
    name = "policy try-out"
    try:
        with tempfile.TemporaryDirectory() as folder:
            policy = _load(config.policy, Path(folder), world)
            done = {key: trial() for key, trial in _trials(policy, config.rollouts.generate, True).items()}
    except RunError as error:
        return judge(name, "not possible", failure=str(error))
    ways = [f"{key.rpartition('-')[0]}: {trial.way}, {trial.error:.1e} nats a token" for key, trial in done.items()]
    slower = [f"{way}: {reason}" for trial in done.values() for way, reason in trial.failed.items()]
    return judge(name, "; ".join(ways), warning="; ".join(slower) and f"slower than with other models ({slower})")


def _load(config: settings.Policy, folder: Path, world: World) -> Policy:
    """Load a policy; a GGUF file is converted into `folder` first."""
    from ..policy.gguf import convert_gguf
    from ..policy.model import Policy

    located = locate.locate(config.path)
    if locate.is_gguf(located):
        convert_gguf(located, folder)
        located = str(folder)
    return Policy.load(located, config, world.device)
