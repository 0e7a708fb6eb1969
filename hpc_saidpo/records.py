"""The values that flow between stages.

Shape letters, used as suffixes of array names in pure code:

    N  questions of the pool          C  clusters           D  embedding dimensions
    P  probed questions               Q  questions of one stage (probed, drawn, explored)
    R  rollouts, sorted by question and sample              K  rollouts of one question
    B  pairs, or rows of a batch      T  tokens             V  vocabulary
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, fields

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

# The decorator of every module's Config: frozen, checked at construction, unknown fields refused.
settings = functools.partial(pydantic_dataclass, frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))

CORRECT, WRONG, UNGRADABLE = 1, 0, -1


class RunError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do. Shown without traceback."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a pool or benchmark.

    Attributes:
        id: unique within its file.
        text: the question as the policy sees it.
        answer: the gold answer.
        subject: coarse topic; also the key of its few-shot examples.
        tags: knowledge points (1-5 of them), empty when the pool carries none.
    """

    id: str
    text: str
    answer: str
    solution: str = ""
    subject: str = ""
    level: str = ""
    tags: tuple[str, ...] = ()
    source: str = ""


class Columns:
    """A table: every field is a numpy array or a list of str, all of one length.

    Subclasses are frozen dataclasses. A field annotated `list[str]` holds texts, any other a numpy array.
    """

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __post_init__(self):
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: columns of different lengths: {lengths}")

    def take(self, rows):
        """The table of these rows (integer positions), in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        return type(self)(*(_take(getattr(self, f.name), rows) for f in fields(self)))

    @classmethod
    def concat(cls, tables):
        """One table from several; an empty sequence gives the empty table."""
        tables = list(tables)
        columns = []
        for f in fields(cls):
            parts = [getattr(table, f.name) for table in tables]
            columns.append(_concat(parts, text=f.type == "list[str]"))
        return cls(*columns)


def _take(column, rows):
    return [column[row] for row in rows] if isinstance(column, list) else column[rows]


def _concat(parts, text):
    if text:
        return [item for part in parts for item in part]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Rollouts(Columns):
    """Graded rollouts, one row each, sorted by (question, sample).

    Attributes:
        question_R: index of the question in its pool or benchmark.
        sample_R: 0 .. K-1 within the question.
        verdict_R: CORRECT, WRONG or UNGRADABLE.
        n_tokens_R: response length in tokens, end-of-sequence included.
        n_steps_R: reasoning steps (`verify.count_steps`).
        finished_R: the response ended by itself; False when it was cut at `max_new_tokens`.
        seconds_R: this response's share of the decoding time, in seconds.
        text_R: the response.
    """

    question_R: np.ndarray
    sample_R: np.ndarray
    verdict_R: np.ndarray
    n_tokens_R: np.ndarray
    n_steps_R: np.ndarray
    finished_R: np.ndarray
    seconds_R: np.ndarray
    text_R: list[str]

    def sorted(self) -> Rollouts:
        """The same rows ordered by (question, sample): chunk and rank order never show."""
        return self.take(np.lexsort((self.sample_R, self.question_R)))


@dataclass(frozen=True)
class Pairs(Columns):
    """Preference pairs, hardest question first.

    Attributes:
        question_B: index of the question in the pool.
        chosen_sample_B, rejected_sample_B: which rollouts of the question.
        chosen_finished_B, rejected_finished_B: whether the response ended by itself.
        cluster_B: cluster of the question.
        pass_rate_B: p(x) = s/K of the question when the pair was made.
        prompt_B, chosen_B, rejected_B: the texts.
    """

    question_B: np.ndarray
    chosen_sample_B: np.ndarray
    rejected_sample_B: np.ndarray
    chosen_finished_B: np.ndarray
    rejected_finished_B: np.ndarray
    cluster_B: np.ndarray
    pass_rate_B: np.ndarray
    prompt_B: list[str]
    chosen_B: list[str]
    rejected_B: list[str]


@dataclass(frozen=True)
class Difficulty(Columns):
    """Self-aware difficulty of the questions of one stage (README, method step 2), sorted by question.

    Attributes:
        question_Q: index of the question in the pool.
        n_tried_Q, n_correct_Q: K and s, over gradable rollouts.
        steps_Q, tokens_Q, seconds_Q: means over the question's gradable responses.
    """

    question_Q: np.ndarray
    n_tried_Q: np.ndarray
    n_correct_Q: np.ndarray
    steps_Q: np.ndarray
    tokens_Q: np.ndarray
    seconds_Q: np.ndarray

    @property
    def pass_rate_Q(self) -> np.ndarray:
        """p(x) = s/K."""
        return self.n_correct_Q / self.n_tried_Q


@dataclass(frozen=True)
class Draw(Columns):
    """Which questions an iteration explores, in drawing order, and with what probability weight."""

    question_Q: np.ndarray
    weight_Q: np.ndarray
    cluster_Q: np.ndarray


@dataclass(frozen=True)
class ClusterCounts(Columns):
    """Evidence per cluster (README, method step 3): questions tried, and error mass over the ones that count.

    Attributes:
        n_C: (running) number of questions tried in the cluster.
        error_C: (running) sum of 1 - p(x) over the questions in the band, or over all for `error_all`.
        usable_C: (running) number of questions with 0 < s < K.
    """

    n_C: np.ndarray
    error_C: np.ndarray
    usable_C: np.ndarray

    @classmethod
    def zero(cls, n_clusters: int) -> ClusterCounts:
        return cls(*(np.zeros(n_clusters) for _ in fields(cls)))

    def __add__(self, other: ClusterCounts) -> ClusterCounts:
        return ClusterCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, discount: float) -> ClusterCounts:
        return ClusterCounts(*(getattr(self, f.name) * discount for f in fields(self)))


def seeded(seed: int, iteration: int, stage: str, *index: int) -> np.random.Generator:
    """The random stream of one thing: it depends on (seed, iteration, stage, index) and on nothing else.

    No rank, world size or order of work enters, so that any number of ranks makes the same decisions.
    """
    return np.random.default_rng([seed, iteration + 1, zlib.crc32(stage.encode()), *index])
