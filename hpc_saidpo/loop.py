"""The SAI-DPO iteration: probe, weigh, draw, explore, pair, train, evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from . import difficulty, metrics, sampler
from .job import Job, StageReached
from .parallel import World
from .progress import log
from .records import Difficulty, settings
from .store import RunDir


@settings()
class Config:
    iterations: Annotated[int, Field(ge=1)] = 3
    stop_after: Literal["prepare", "base", "probe", "draw", "explore", "pairs", "policy", "evaluate"] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the figures of its iterations, the policy to use, and why it stopped early, if it did.

    Attributes:
        stopped: why it cannot go on as it is (depletion).
        paused: after which stage it was asked to stop (loop.stop_after).
    """

    before: dict
    iterations: list[dict]
    policy_path: str
    stopped: str = ""
    paused: str = ""


def run(config, world: World, store: RunDir) -> Outcome:
    """Run SAI-DPO to its last iteration, or until no question gives a pair. Collective.

    What is on disk already is loaded, not computed again.
    """
    job = Job.prepare(config, world, store)
    policy_path = job.first_policy()
    if config.loop.stop_after == "prepare":
        return Outcome({}, [], policy_path, paused="the preparation")
    before = scores = job.evaluate("base", policy_path)
    if config.loop.stop_after == "base":
        return Outcome(before, [], policy_path, paused="the base evaluation")
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
                return Outcome(before, done, policy_path, stopped=depletion(t, hard))
            policy_path, steps = job.train(t, policy_path, chosen)
            after = job.evaluate(t, policy_path)
            draws, both_scores = (drawn, last_drawn), (after, scores)
            record = metrics.of_iteration(
                t, config, job.cluster_N, probed, (counts, weight_C), draws, explored, chosen, steps, both_scores
            )
            scores = after or scores
            done.append({**record, "policy": policy_path})
            job.finish(t, done[-1])
    except StageReached as reached:
        if config.loop.stop_after == "policy":
            policy_path, _ = reached.value
        return Outcome(before, done, policy_path, paused=str(reached))
    return Outcome(before, done, policy_path)


def depletion(t: int, hard: Difficulty) -> str:
    """Why an iteration without a single pair stops the run, and what to do."""
    too_hard, too_easy = int((hard.n_correct_Q == 0).sum()), int((hard.pass_rate_Q == 1).sum())
    return (
        f"depletion in iteration {t}: none of the {len(hard)} explored questions gives a preference pair ({too_hard} "
        f"always wrong, {too_easy} always right). Go on in this run with another setting and run.accept_changes=true: "
        + (
            "an easier pool needs a new run, so first try a larger rollouts.k, more sampler.n_questions, or a better "
            "prompt (rollouts/prompt)"
            if too_hard >= too_easy
            else "a higher rollouts.temperature or rollouts.k; a harder pool needs a new run"
        )
    )
