"""DPO rounds of the micro model: whole, killed at a step, resumed, and compared without the clock."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from hpc_saidpo import progress, settings
from hpc_saidpo.dpo.checkpoint import Checkpoint
from hpc_saidpo.dpo.examples import key_of, tokenise
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.parallel import shards
from hpc_saidpo.parallel.task import Task
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.store.stage import Stage

from .make import load_micro, make_pairs

STRATEGIES = ("ddp", "fsdp", "single")
OF_SIGNS = ("rewards/accuracies", "length_correlation")  # of rewards that are rounding alone, at the first step
LORA = {"lora": settings.Lora(rank=4, alpha=8.0)}
KINDS = {  # of rounds in which less is trained or kept
    "lora": LORA,
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "paged_adamw_8bit": {"optimizer": "paged_adamw_8bit"},
    "lora and adamw_8bit": {**LORA, "optimizer": "adamw_8bit"},
}
Resume = tuple[Stage, float | None]  # the folder of a round, and the minutes between two checkpoints


class Killed(Exception):
    pass


@contextmanager
def watched(on_tick: Callable[[str], None] = lambda label: None) -> Iterator[list[str]]:
    """Replace the progress display. Yields the labels that are displayed, as they come.

    Args:
        on_tick: called with the label after each finished item, on every rank.
    """
    labels: list[str] = []

    @contextmanager
    def show(label: str, total: int, is_root: bool, n_done: int = 0, *_: object):
        labels.append(label)
        yield Task(label, total, n_done, advance=lambda: on_tick(label))

    with mock.patch.object(progress, "show", show):
        yield labels


def after_steps(n_steps: int, act: Callable[[], None]) -> Callable[[str], None]:
    """A function for `watched` that calls `act` once, when a round has done `n_steps` steps."""
    ticks = itertools.count(1)

    def on_tick(label: str):
        if label.startswith("DPO") and next(ticks) == n_steps:
            act()

    return on_tick


def killed_after(n_steps: int) -> AbstractContextManager[list[str]]:
    """Rounds in this context are killed after some steps of training."""

    def kill():
        raise Killed

    return watched(after_steps(n_steps, kill))


def untimed(steps: list[dict]) -> list[dict]:
    """Figures of steps without those of the clock."""
    return [{name: value for name, value in step.items() if name != "tokens_per_s"} for step in steps]


def numbers(figures: dict) -> dict:
    """The figures with a number in place of None."""
    return {name: math.inf if value is None else value for name, value in figures.items()}


def alike(figures: dict, **tolerance: float):
    """Approximately these figures, for a comparison with `numbers`; None equals None only."""
    return pytest.approx(numbers(figures), **tolerance)


def prepared(folder: Path) -> Stage:
    """A stage in a new folder."""
    stage = Stage(folder)
    stage.prepare()
    return stage


def train_micro(
    world: World, exact: bool = True, n: int = 20, checkpoint: Resume | None = None, **config: Any
) -> tuple[torch.Tensor, list[dict]]:
    """A round of a fresh micro model on `n` pairs: (all its weights as one vector, figures)."""
    policy, pairs = load_micro(), make_pairs(n)
    plan = settings.Dpo(**{"lr": 1e-3, "batch_pairs": 8, "micro_pairs": 2, "epochs": 2, **config})
    resume = Checkpoint(*checkpoint, key_of(pairs), world) if checkpoint else None
    lesson = Lesson(pairs, tokenise(pairs, policy, False, ()), 0, 0, exact)
    steps = train(policy, lesson, plan, world, resume)
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]), steps


def micro_of(tied: bool = True, precision: torch.dtype = torch.float32) -> Policy:
    """A fresh micro model, with the head of its embeddings or a head of its own."""
    policy = load_micro()
    policy.precision = precision
    if not tied:
        head = copy.deepcopy(policy.model.lm_head)
        policy.model.config.tie_word_embeddings = False
        policy.model.lm_head = head
        with torch.no_grad():
            head.weight.mul_(0.9)
    return policy


def train_by(
    world: World,
    strategy: str,
    folder: Path | None = None,
    policy: Policy | None = None,
    checkpoint: Resume | None = None,
    n: int = 20,
    **config: Any,
) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """A round of 6 steps in which 2, 3 and 4 ranks have turns without a micro-batch: (figures, weights on root)."""
    policy, pairs = policy or micro_of(), make_pairs(n)
    plan = settings.Dpo(**{"lr": 1e-4, "batch_pairs": 8, "micro_pairs": 3, "epochs": 2, "strategy": strategy, **config})
    weights = {}

    def save():
        for name, weight in policy.model.state_dict().items():
            weights[name] = shards.gather(weight).clone()
        if folder:
            Stage(folder).write_folder("model", lambda f: policy.save(f, world, 100_000), world)

    def save_adapters(adapters):
        if folder:
            Stage(folder).write_folder("adapter", lambda f: adapters.save(f, "base", world.is_root), world)

    resume = Checkpoint(*checkpoint, key_of(pairs), world) if checkpoint else None
    lesson = Lesson(pairs, tokenise(pairs, policy, False, ()), 0, 0, False)
    return untimed(train(policy, lesson, plan, world, resume, save, save_adapters=save_adapters)), weights


@functools.cache
def by_one_process(tied: bool = True, n: int = 20) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """The round of one process."""
    return train_by(World(), "ddp", policy=micro_of(tied), n=n)


def assert_same(result: tuple, wanted: tuple, weights: float = 1e-5, figures: float = 1e-4) -> None:
    """Compare two rounds as `train_by` returns them, within absolute tolerances."""
    (steps, weights_of), (wanted_steps, wanted_weights) = result, wanted
    assert len(steps) == len(wanted_steps)
    for step, (a, b) in enumerate(zip(steps, wanted_steps, strict=True)):
        for name, value in b.items():
            if step or name not in OF_SIGNS:
                assert a[name] == (value if value is None else pytest.approx(value, rel=figures, abs=figures)), name
    assert weights_of.keys() == wanted_weights.keys()
    for name, weight in weights_of.items():
        torch.testing.assert_close(weight, wanted_weights[name], rtol=0, atol=weights)
