"""The draw as a stage of a run (method, step 4)."""

from __future__ import annotations

from ..parallel.world import World
from ..records import Draw
from ..store.stage import Stage
from .evidence import describe_clusters, describe_questions
from .sampler import Sampler


def write_draw(stage: Stage, sampler: Sampler, world: World) -> None:
    """Choose the questions that this iteration explores; write them and the evidence of the draw. Collective."""

    def write() -> None:
        question_Q, weight_N, cluster_N = sampler.choose(), sampler.weights(), sampler.cluster_N
        clusters = describe_clusters(sampler.counts, cluster_N[~sampler.never_N], sampler.cluster_weights())
        stage.write("draw", Draw(question_Q, weight_N[question_Q], cluster_N[question_Q]))
        stage.write("history", describe_questions(sampler.history, cluster_N, weight_N))
        stage.write("clusters", clusters)

    world.on_root(write)  # every rank could choose the same, but only one needs the memory for all weights


def load_draw(stage: Stage) -> Draw:
    """The questions of a draw, in drawing order."""
    return stage.read("draw", Draw)
