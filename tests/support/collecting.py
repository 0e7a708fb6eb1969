"""Rollouts of a few questions by the micro model, as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import Question, Rollouts
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.request import Request, load_rollouts
from hpc_saidpo.rollouts.stage import collect_rollouts
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.stage import Stage

QUESTIONS = [Question(str(i), f"{i}+{i}=?", str(2 * i), subject="ab"[i % 2]) for i in range(1, 10)]
SAMPLING = Sampling(1.5, 1.0, 20)
BARE = settings.Prompt(chat=False, question="{question}\n")


def collect(
    folder: Path,
    world: World,
    policy: Policy,
    chunk_questions: int,
    seed: tuple[int, int, str] = (0, 0, "probe"),
    k: int = 3,
    sealed: bool = True,
    expected: Mapping[int, float] | None = None,
    prior: Mapping[int, tuple[float, float]] | None = None,
    drained: bool = False,
    **config: Any,
) -> Rollouts:
    """K rollouts of QUESTIONS. Collective.

    Args:
        sealed: False leaves the stage as if it was killed before its chunks were merged.
        config: further settings of the group `rollouts`.
    """
    stage = Stage(folder)
    if not sealed:
        stage.seal = lambda *_: None
    world.on_root(stage.prepare)
    plan = settings.Rollouts(chunk_questions=chunk_questions, prompt=BARE, **config)
    renderer = Renderer(QUESTIONS, {}, policy, BARE)
    indices = np.arange(len(QUESTIONS))
    request = Request(renderer, indices, k, SAMPLING, seed, expected or {}, prior or {}, drained=drained)
    collect_rollouts(stage, request, plan, world)
    world.barrier()
    return load_rollouts(stage)
