"""Preference pairs and the DPO round as stages of a run (method, steps 6 and 7)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import difficulty, settings
from ..errors import memory_errors
from ..parallel.world import World
from ..policy.cache import forget_policies, load_policy, release_engines
from ..reading import parse_yaml
from ..records import Pairs, Prompts, Reference, Rollouts, seeded
from ..store.agreement import flat
from ..store.files import read_parsed
from ..store.run import RunDir
from ..store.stage import Stage
from .card import Facts, card
from .pairs import select

if TYPE_CHECKING:
    from .adapters import Adapters


def write_pairs(
    stage: Stage,
    explored: Rollouts,
    prompts: Callable[[], Prompts],
    cluster_N: np.ndarray,
    band: settings.Difficulty,
    config: settings.Pairs,
    seed: tuple[int, int],
    world: World,
) -> None:
    """Write the preference pairs of the explored questions in the band, hardest question first. Collective.

    Args:
        prompts: returns those that the rollouts continue; called on root.
        cluster_N: cluster of each question of the pool.
        seed: (run seed, iteration).
    """

    def on_root() -> None:
        measured = difficulty.measure(explored)
        order = difficulty.hardest_first(measured, band, seeded(*seed, "order"))
        usable_Q = difficulty.in_band(measured, band)
        hardest = measured.take([i for i in order if usable_Q[i]])
        stage.write("pairs", select(explored, hardest, cluster_N, prompts(), config, *seed))

    world.on_root(on_root)


@dataclass(frozen=True)
class Round:
    """One DPO round: its policy, which is also the reference, and its pairs.

    Attributes:
        policy_path: a Hugging Face folder.
        seed, iteration: determine the order of the pairs.
        exact: whether any number of ranks makes the same weights, bit for bit (run.deterministic).
    """

    policy_path: str
    pairs: Pairs
    seed: int
    iteration: int
    exact: bool


def train_round(
    stage: Stage, round_: Round, policy: settings.Policy, rollouts: settings.Rollouts, config: settings.Dpo, run: RunDir
) -> None:
    """Train the policy on the pairs, and write model/ and steps.json; with LoRA adapter/ too. Collective.

    Raises:
        RunError: a loss or gradient is not finite, or the policy cannot be trained like this (`train.train`); or memory
            does not suffice.
        Stopped: a rank received a signal to stop; the round is in its checkpoint.
    """
    from . import checkpoint  # imports transformers: a finished stage needs none of it

    release_engines()
    try:
        with memory_errors(f"in the DPO round on {run.world.device}", describe_memory(config)):
            steps = _train(stage, round_, policy, rollouts, config, run)
    finally:
        forget_policies()  # a sharded policy keeps the threads of its process group
    run.world.on_root(lambda: stage.write_json("steps", steps))
    run.world.on_root(lambda: checkpoint.remove(stage))


def describe_memory(config: settings.Dpo) -> str:
    """Return the settings by which a DPO round uses less memory, and their present values."""
    return (
        f"lower dpo.micro_pairs (now {config.micro_pairs}), or set dpo.micro_tokens (now {config.micro_tokens}: the "
        "tokens computed at once), or dpo.checkpointing=true (activations are computed again), or dpo=lora. A run may "
        "resume with other values of the first three. `hpc-saidpo plan` with the overrides of the run estimates the "
        "memory of each choice"
    )


def load_round(stage: Stage) -> tuple[str, list[dict]]:
    """The folder of the new policy, and the figures of each optimizer step."""
    return str(stage.path / "model"), stage.read_json("steps", list)


def _train(
    stage: Stage, round_: Round, policy: settings.Policy, rollouts: settings.Rollouts, config: settings.Dpo, run: RunDir
) -> list[dict]:
    """Train the policy and write model/. Returns the figures of each optimizer step."""
    from . import checkpoint  # imports transformers: a finished stage needs none of it
    from .examples import examples_of, key_of, reference_key
    from .train import Lesson, train

    world = run.world
    current = load_policy(round_.policy_path, policy, world.device)
    examples = examples_of(round_.pairs, current, rollouts.prompt.chat, rollouts.stop)
    resume = checkpoint.Checkpoint(stage, config.checkpoint_minutes, key_of(round_.pairs), world)

    def save() -> None:
        def fill(folder: Path) -> None:
            current.save(folder, world)
            if world.is_root:
                (folder / "README.md").write_text(card(_facts(stage, round_, run)), encoding="utf-8")

        stage.write_folder("model", fill, world)

    def save_adapters(adapters: Adapters) -> None:
        base = round_.policy_path
        stage.write_folder("adapter", lambda folder: adapters.save(folder, base, world.is_root), world)

    key = reference_key(examples, current, stage.facts["policy_hash"], config)
    reference = functools.partial(_reference, run, key)
    lesson = Lesson(round_.pairs, examples, round_.seed, round_.iteration, round_.exact)
    return train(current, lesson, config, world, resume, save, reference, save_adapters)


def _facts(stage: Stage, round_: Round, run: RunDir) -> Facts:
    """The facts of the model card."""
    n_questions = len(np.unique(round_.pairs.question_B))
    config = flat(read_parsed(run.path / "config.yaml", parse_yaml, dict) or {})
    origin = (round_.policy_path, stage.facts["policy_hash"])
    return Facts(run.path.name, round_.iteration, *origin, len(round_.pairs), n_questions, config)


def _reference(run: RunDir, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Reference log-probabilities, [B, 2], nats. They are stored at once: an interrupted round does not lose them."""

    def write(stage: Stage) -> None:
        reference_B2 = compute()
        run.world.on_root(lambda: stage.write("reference", Reference(*reference_B2.T)))

    stored = run.shared("reference", key, write, lambda stage: stage.read("reference", Reference))
    return np.stack([stored.chosen_B, stored.rejected_B], axis=1)
