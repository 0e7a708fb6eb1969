"""The draw as a stage of a run (method, step 4)."""

from __future__ import annotations

from ..parallel.world import World
from ..records import Draw
from ..store.stage import Stage
from .evidence import of_clusters, of_questions
from .sampler import Sampler


def write_draw(stage: Stage, sampler: Sampler, world: World) -> None:
    """Choose the questions that this iteration explores; write them, and beside them the evidence of the draw."""
    question_Q, weight_N, cluster_N = sampler.choose(), sampler.weights(), sampler.cluster_N
    for name, table in (
        ("draw", Draw(question_Q, weight_N[question_Q], cluster_N[question_Q])),
        ("history", of_questions(sampler.history, cluster_N, weight_N)),
        ("clusters", of_clusters(sampler.counts, cluster_N, sampler.cluster_weights())),
    ):
        world.on_root(lambda name=name, table=table: stage.write(name, table))


def load_draw(stage: Stage) -> Draw:
    """The questions of a draw, in drawing order."""
    return stage.read("draw", Draw)
