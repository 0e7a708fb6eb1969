"""The evidence behind a draw, as tables: enough to explain every drawn question later."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..table import column
from .counts import ClusterCounts, Seen
from .history import NEVER, History
from .inclusion import inclusion


@dataclass(frozen=True)
class QuestionEvidence(Seen):
    """Evidence on single questions at the draw of an iteration. Any other question has the weight W of its cluster."""

    cluster_Q: np.ndarray = column(np.int64, "cluster of the question")
    weight_Q: np.ndarray = column(np.float64, "its weight at the draw: relative probability")


@dataclass(frozen=True)
class ClusterEvidence(ClusterCounts):
    """Evidence on the clusters at the draw of an iteration, one row each."""

    size_C: np.ndarray = column(np.int64, "questions of the pool in the cluster", "questions")
    weight_C: np.ndarray = column(np.float64, "W of the cluster at the draw: relative probability")


def describe_questions(history: History, cluster_N: np.ndarray, weight_N: np.ndarray) -> QuestionEvidence:
    """The counts of each question that was ever rolled out or drawn, its cluster and its weight."""
    seen = history.seen()
    cluster_Q, weight_Q = cluster_N[seen.question_Q], weight_N[seen.question_Q]
    return QuestionEvidence(**_columns(seen), cluster_Q=cluster_Q, weight_Q=weight_Q)


def describe_clusters(counts: ClusterCounts, cluster_N: np.ndarray, weight_C: np.ndarray) -> ClusterEvidence:
    """The counts of each cluster, its size and its weight.

    Args:
        cluster_N: cluster of each question that may be drawn.
    """
    size_C = np.bincount(cluster_N, minlength=len(counts))
    return ClusterEvidence(**_columns(counts), size_C=size_C, weight_C=weight_C)


def chances(
    questions: QuestionEvidence, clusters: ClusterEvidence, n: int, excluded_since: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chances to be among the n drawn (`inclusion`): (of each of `questions`, of the other questions of each cluster).

    Args:
        excluded_since: an iteration; questions drawn in it or later could not be drawn.
    """
    is_recent_Q = (questions.drawn_at_Q > NEVER) & (questions.drawn_at_Q >= excluded_since)
    excluded_Q = is_recent_Q | ((questions.seen_at_Q > NEVER) & (questions.n_tried_Q == 0))
    n_others_C = clusters.size_C - np.bincount(questions.cluster_Q, minlength=len(clusters))
    weight_G = np.concatenate([np.where(excluded_Q, 0.0, questions.weight_Q), clusters.weight_C])
    chance_G = inclusion(weight_G, np.concatenate([np.ones(len(questions)), n_others_C]), n)
    return chance_G[: len(questions)], chance_G[len(questions) :]


def _columns(table: Seen | ClusterCounts) -> dict[str, Any]:
    return {f.name: getattr(table, f.name) for f in fields(table)}
