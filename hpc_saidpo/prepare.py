"""The preparation of a run or an evaluation: the pool, its benchmarks, its clusters (method, steps 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .clusters.health import describe
from .clusters.stage import cluster
from .doctor import inputs
from .dpo.pairs import changed_by_early_decision
from .evaluate import benchmarks
from .evaluate.benchmarks import Benchmark
from .grader.grader import shared_grader
from .grader.stage import check_golds
from .pool.pool import Pool
from .pool.stage import load_pool, load_pool_again
from .progress import log
from .settings.pool import compared_benchmarks
from .settings.whole import Evaluation, Settings
from .store.run import RunDir
from .tags.stage import tag


@dataclass(frozen=True)
class Prepared:
    """The fixed parts of a run or an evaluation.

    Attributes:
        cluster_N: cluster of each question of the pool; empty for an evaluation.
        health: health of the clusters (`clusters.health`); empty for an evaluation.
    """

    pool: Pool
    benchmarks: list[Benchmark]
    cluster_N: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    health: dict = field(default_factory=dict)


def prepare_run(settings: Settings, run: RunDir) -> Prepared:
    """Load the pool and the benchmarks; tag, embed and cluster the pool's questions. Collective.

    Raises:
        RunError: a file that the run reads is missing or wrong.
        Ended: requests for tags were written to a file, to be answered elsewhere (tags.mode=export).
    """
    world = run.world
    world.on_root(lambda: inputs.check(settings))
    files = world.on_root(lambda: benchmarks.read(settings.evaluate, compared_benchmarks(settings.pool)))
    pool = load_pool_again(settings.pool, run, files)
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out, files))
    points: list[tuple[str, ...]] = [()] * len(pool.questions)
    if settings.clusters.n > 1:
        engine, accept = settings.rollouts.generate, settings.run.accept_changes
        points = tag(pool.questions, settings.tags, settings.policy, engine, run, accept)
    cluster_N, health = cluster(points, settings.clusters, settings.probe.fraction, run)
    log.info("pool: %d questions, %d held out; %s", len(pool.questions), len(pool.held_out), describe(health))
    early = changed_by_early_decision(settings.pairs) if settings.rollouts.adaptive else []
    for warning in [*health["warnings"], *early]:
        log.warning("  %s", warning)
    golds = {"pool": pool.questions, **{b.name: b.questions for b in evaluated}}
    check_golds(golds, world, shared_grader(settings.rollouts.grader))
    return Prepared(pool, evaluated, cluster_N, health)


def prepare_evaluation(settings: Evaluation, run: RunDir) -> Prepared:
    """Load the benchmarks of a stand-alone evaluation, and the pool if one is needed. Collective.

    Raises:
        RunError: a file that the evaluation reads is missing or wrong.
    """
    world = run.world
    world.on_root(lambda: inputs.check(settings))
    pool = load_pool(settings.pool, run) if settings.pool else Pool([])
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out))
    check_golds({b.name: b.questions for b in evaluated}, world, shared_grader(settings.rollouts.grader))
    return Prepared(pool, evaluated)
