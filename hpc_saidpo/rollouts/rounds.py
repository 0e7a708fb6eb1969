"""Rollouts of drawn questions, round by round, until a budget is spent (sampler.budget)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..difficulty import in_band, measure
from ..parallel.world import World
from ..progress import log
from ..records import Rollouts
from ..store import disk
from ..store.stage import Stage
from .effort import decided
from .request import Request, load_rollouts, write_prompts

Collect = Callable[[Stage, Request], None]
ROUNDS = "rounds"  # JSON file: the numbers of questions of the rounds, once the last of them is complete


def collect_in_rounds(stage: Stage, request: Request, collect: Collect, world: World) -> None:
    """Collect rollouts of the questions in their order until the request's budget is spent. Collective.

    The size of a round follows from what the earlier ones found (`Budget.next_round`). So any number of ranks ends
    after the same round. Each round is a stage in a folder of its own; at the end all are merged. A stage that resumes
    uses the rounds that it finds. Once the numbers of questions of all rounds are stored, it makes only missing rounds.
    Without a budget all questions are one round.

    Args:
        collect: writes the rollouts of a request into a stage (`stage.collect_rollouts`). Collective.
    """
    if not request.budget.is_set:
        collect(stage, replace(request, question_Q=np.sort(request.question_Q)))
        return
    sizes, finished = world.on_root(lambda: (_known_sizes(stage), stage.finished_chunks()))
    if sizes:
        for number, (start, end) in enumerate(pairwise(np.cumsum([0, *sizes]))):
            if number not in finished:
                _collect(stage, number, replace(request, question_Q=request.question_Q[start:end]), collect, world)
    else:
        sizes = _explore(stage, request, collect, world)
    world.on_root(lambda: _merge(stage, request, sizes))


def _known_sizes(stage: Stage) -> list[int]:
    return stage.read_json(ROUNDS, list) if disk.exists(stage.path / f"{ROUNDS}.json") else []


def _explore(stage: Stage, request: Request, collect: Collect, world: World) -> list[int]:
    """Collect rounds until the budget is spent. Returns their numbers of questions."""
    order, sizes, n_usable, n_tokens = request.question_Q, list[int](), 0, 0
    while (n := request.budget.next_round(len(order), sum(sizes), n_usable, n_tokens)) or not sizes:
        number, start = len(sizes), sum(sizes)
        _collect(stage, number, replace(request, question_Q=order[start : start + n]), collect, world)
        explored, usable, tokens = world.on_root(functools.partial(_found, stage.round(number), request))
        # A round of an earlier start may have another size, if the budget was changed since.
        sizes, n_usable, n_tokens = [*sizes, explored], n_usable + usable, n_tokens + tokens
        if not explored:
            break
    log.info("  budget: rounds %d, questions that yield a pair %d, tokens %d", len(sizes), n_usable, n_tokens)
    world.on_root(lambda: stage.write_json(ROUNDS, sizes))
    return sizes


def _collect(stage: Stage, number: int, request: Request, collect: Collect, world: World) -> None:
    part = stage.round(number)
    world.on_root(part.prepare)
    collect(part, replace(request, question_Q=np.sort(request.question_Q), round=number))
    world.barrier()


def _found(part: Stage, request: Request) -> tuple[int, int, int]:
    """Return the number of questions of a round, of those that yield a pair, and of generated tokens."""
    table = load_rollouts(part)
    measured = measure(table)
    usable = decided(table) & set(measured.question_Q[in_band(measured, request.band)].tolist())
    return len(set(table.question_R.tolist())), len(usable), int(table.n_tokens_R.sum())


def _merge(stage: Stage, request: Request, sizes: Sequence[int]) -> None:
    """Make the tables of the rounds those of the stage, then remove the rounds. Not collective.

    Each step can be repeated: a process that is killed between them loses nothing.
    """
    write_prompts(stage, replace(request, question_Q=np.sort(request.question_Q[: sum(sizes)])))
    finished = stage.finished_chunks()
    for number in set(range(len(sizes))) - finished:
        stage.write_chunk(number, load_rollouts(stage.round(number)))
    for chunks in stage.shards([n * request.k for n in sizes]):
        stage.seal(chunks, Rollouts)
    for path in stage.path.glob("round-*"):
        stage.remove(path.name)
