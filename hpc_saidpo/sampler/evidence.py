"""What a draw knew, as tables: enough to explain every drawn question afterwards."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ..records import ClusterCounts, ClusterEvidence, QuestionEvidence, Seen
from .history import NEVER, History
from .inclusion import inclusion


def of_questions(history: History, cluster_N: np.ndarray, weight_N: np.ndarray) -> QuestionEvidence:
    """What is known of each question that was ever rolled out or drawn, and its weight."""
    seen = history.seen()
    return QuestionEvidence(*_columns(seen, Seen), cluster_N[seen.question_Q], weight_N[seen.question_Q])


def of_clusters(counts: ClusterCounts, cluster_N: np.ndarray, weight_C: np.ndarray) -> ClusterEvidence:
    """What is known of each cluster, its size and its weight."""
    return ClusterEvidence(*_columns(counts, ClusterCounts), np.bincount(cluster_N, minlength=len(counts)), weight_C)


def chances(
    questions: QuestionEvidence, clusters: ClusterEvidence, n: int, excluded_since: int
) -> tuple[np.ndarray, np.ndarray]:
    """(chance of each of `questions`, of each cluster's other questions) to be among the n drawn (`inclusion`).

    Args:
        excluded_since: questions that were drawn in this iteration or later could not be drawn.
    """
    excluded_Q = (questions.drawn_at_Q > NEVER) & (questions.drawn_at_Q >= excluded_since)
    n_others_C = clusters.size_C - np.bincount(questions.cluster_Q, minlength=len(clusters))
    weight_G = np.concatenate([np.where(excluded_Q, 0.0, questions.weight_Q), clusters.weight_C])
    chance_G = inclusion(weight_G, np.concatenate([np.ones(len(questions)), n_others_C]), n)
    return chance_G[: len(questions)], chance_G[len(questions) :]


def _columns(table, cls) -> list:
    return [getattr(table, f.name) for f in fields(cls)]
