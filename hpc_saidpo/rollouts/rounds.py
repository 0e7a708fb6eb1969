"""An exploration with a budget: rollouts of the drawn questions in rounds, until enough is found or spent."""

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

    They are collected in rounds, whose sizes follow from what the rounds before have found (`Budget.next_round`). A
    round is a stage of its own within the folder, until all are merged: so a stage that resumes finds its rounds, and
    any number of ranks ends after the same one. A stage whose rounds are known makes only those that it lacks. Without
    a budget all questions are one round.

    Args:
        collect: writes the rollouts of a request into a stage (`stage.collect_rollouts`). Collective.
    """
    if not request.budget.is_set:
        collect(stage, replace(request, question_Q=np.sort(request.question_Q)))
        return
    sizes, finished = world.on_root(lambda: (_known_sizes(stage), stage.finished_chunks()))
    if sizes:
        for number, part in enumerate(_cut(request, sizes)):
            if number not in finished:
                _collect(stage, number, part, collect, world)
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


def _cut(request: Request, sizes: Sequence[int]) -> list[Request]:
    bounds = np.cumsum([0, *sizes])
    return [replace(request, question_Q=request.question_Q[a:b]) for a, b in pairwise(bounds)]


def _collect(stage: Stage, number: int, request: Request, collect: Collect, world: World) -> None:
    part = stage.round(number)
    world.on_root(part.prepare)
    collect(part, replace(request, question_Q=np.sort(request.question_Q), round=number))
    world.barrier()


def _found(part: Stage, request: Request) -> tuple[int, int, int]:
    """(questions, those that yield a pair, generated tokens) of a round."""
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
