"""A DPO round as a stage of a run: the policy and its pairs -> the new policy and the figures of its steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from . import checkpoint, dpo
from .generate import free
from .loaded import forget_policies, load_policy
from .parallel import World
from .records import Pairs, Reference
from .store import RunDir, Stage

Show = Callable[[str, int], AbstractContextManager]


def train(
    stage: Stage, t: int, policy_path: str, chosen: Pairs, config, world: World, store: RunDir, show: Show
) -> None:
    """Fill the stage: model/ and steps.json. Collective.

    Args:
        policy_path: where the policy lies that is trained; it is the reference too.
        config: the run's configuration.
        show: label and number of steps -> a context that gives what to call after each step.
    """
    free()  # an engine's memory is training's now
    try:
        steps = _train(stage, t, policy_path, chosen, config, world, store, show)
    finally:
        forget_policies()  # one in shards would keep its process group's threads
    world.on_root(lambda: stage.write_json("steps", steps))
    world.on_root(lambda: checkpoint.remove(stage))


def load(stage: Stage) -> tuple[str, list[dict]]:
    """Where the new policy lies, and the figures of each step."""
    return str(stage.path / "model"), stage.read_json("steps")


def _train(stage, t, policy_path, chosen, config, world, store, show) -> list[dict]:
    current = load_policy(policy_path, config.policy, world.device)
    examples = dpo.tokenise(chosen, current, config.rollouts.prompt.chat, config.rollouts.stop)
    resume = checkpoint.Checkpoint(stage, config.dpo.checkpoint_minutes, dpo.key_of(chosen), world)

    def save():
        stage.write_folder("model", lambda folder: current.save(folder, world), world)

    key = dpo.reference_key(examples, current, stage.facts["policy_hash"], config.dpo)
    known = functools.partial(_reference, store, world, key)
    exact = config.run.deterministic
    return dpo.train(current, chosen, examples, config.dpo, world, config.run.seed, t, exact, show, resume, save, known)


def _reference(store: RunDir, world: World, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Reference log-probabilities, [B, 2]: computed once, whatever becomes of the round that asks for them."""

    def write(stage: Stage):
        reference_B2 = compute()
        world.on_root(lambda: stage.write("reference", Reference(*reference_B2.T)))

    found = store.shared("reference", key, write, lambda stage: stage.read("reference", Reference))
    return np.stack([found.chosen_B, found.rejected_B], axis=1)
