"""The SAI-DPO iteration: probe, weigh, draw, explore, pair, train, evaluate."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from . import difficulty, metrics, sampler, signatures, tags
from .job import Job, StageReached
from .parallel import World
from .progress import log
from .records import settings
from .store import RunDir

AGAIN = " (loop.stop_after): start again without it to go on"


@settings()
class Config:
    iterations: Annotated[int, Field(ge=1)] = 3
    stop_after: Literal["prepare", "base", "probe", "draw", "explore", "pairs", "policy", "evaluate"] | None = None
    on_signature: Literal["warn", "stop"] = "warn"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the figures of its iterations, the policy to use, and why it stopped early, if it did.

    Attributes:
        stopped: why it does not go on as it is: depletion, or another signature (loop.on_signature).
        paused: after what it was asked to stop, and how it goes on (loop.stop_after, tags.mode=export).
        health: of its clusters (`clusters.health`).
    """

    before: dict
    iterations: list[dict]
    policy_path: str
    stopped: str = ""
    paused: str = ""
    health: dict = field(default_factory=dict)


def run(config, world: World, store: RunDir) -> Outcome:
    """Run SAI-DPO to its last iteration, or until no question gives a pair or a failure signature stops it. Collective.

    What is on disk already is loaded, not computed again.
    """
    try:
        job = Job.prepare(config, world, store)
    except tags.Exported as exported:
        return Outcome({}, [], config.policy.path, paused=str(exported))
    ended = functools.partial(Outcome, health=job.health)
    policy_path = job.first_policy()
    if config.loop.stop_after == "prepare":
        return ended({}, [], policy_path, paused="the preparation" + AGAIN)
    before = scores = best = job.evaluate("base", policy_path)
    if config.loop.stop_after == "base":
        return ended(before, [], policy_path, paused="the base evaluation" + AGAIN)
    history = sampler.History.empty(len(job.pool.questions), job.n_clusters)
    drawn, done = None, []
    try:
        for t in range(config.loop.iterations):
            log.info("iteration %d of %d, policy %s", t, config.loop.iterations, policy_path)
            history = history.discounted(config.sampler.history)
            probed = job.probe(t, policy_path, history)
            history = job.observe(history, t, difficulty.measure(probed))
            last_drawn, drawn = drawn, job.draw(t, history)
            counts, weight_C = history.counts, job.cluster_weights(t, history)
            explored, fresh = job.explore(t, policy_path, drawn, probed, history)
            history = job.observe(history, t, difficulty.measure(fresh)).drew(t, drawn.question_Q)
            hard = difficulty.measure(explored)
            chosen = job.pair(t, policy_path, explored, hard)
            if len(chosen) == 0:
                return ended(before, done, policy_path, stopped=signatures.no_pairs(t, hard))
            policy_path, steps = job.train(t, policy_path, chosen)
            after = job.evaluate(t, policy_path)
            draws, known_scores = (drawn, last_drawn), (after, scores, best)
            record = metrics.of_iteration(
                t, config, job.cluster_N, probed, (counts, weight_C), draws, explored, chosen, steps, known_scores
            )
            scores, best = after or scores, metrics.best_of(best, after)
            was_finished = store.has_finished(t)
            done.append(job.finish(t, {**record, "policy": policy_path}))
            # Where the run has gone on from it before, it goes on.
            stopped = signatures.stops(done[-1], config.loop.on_signature, store.config_hash)
            if stopped and not store.has_finished(t + 1):
                return ended(before, done, policy_path, stopped=stopped)
            if config.loop.stop_after == "evaluate" and not was_finished:
                raise StageReached(f"iteration {t}")
    except StageReached as reached:
        if config.loop.stop_after == "policy":
            policy_path, _ = reached.value
        return ended(before, done, policy_path, paused=str(reached) + AGAIN)
    return ended(before, done, policy_path)
