"""The values that flow between stages.

Shape letters, used as suffixes of array names in pure code:

    N  questions of the pool          C  clusters           D  embedding dimensions
    P  probed questions               Q  questions of one stage (probed, drawn, explored)
    R  rollouts, sorted by question and sample              K  rollouts of one question
    B  pairs, or rows of a batch      T  tokens             V  vocabulary
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

import numpy as np

from .table import Columns, Ids, column

STAGES = ("probe", "draw", "explore", "pairs", "policy")  # of an iteration, before its evaluations
CORRECT, WRONG, UNGRADABLE = 1, 0, -1
VERDICTS = {CORRECT: "correct", WRONG: "wrong", UNGRADABLE: "ungradable"}


@dataclass(frozen=True)
class Judgement:
    """A verdict and the reason for it, in a few words."""

    verdict: int
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a pool or benchmark.

    Attributes:
        id: unique within its file.
        text: the question as the policy sees it.
        answer: the gold answer; for the verifier `code` the tests, in Python.
        subject: coarse topic; also the key of its few-shot examples.
        tags: knowledge points (1 to 5), empty when the pool has none.
        alt_answers: other correct answers.
        verifier: name of the verifier that grades its responses (settings.pool.VERIFIER_NAMES, or pool.verifier).
        entry: JSON that the scorer of the verifier `reasoning_gym` needs: task, question, answer, metadata.
    """

    id: str
    text: str
    answer: str
    solution: str = ""
    subject: str = ""
    level: str = ""
    tags: tuple[str, ...] = ()
    source: str = ""
    alt_answers: tuple[str, ...] = ()
    verifier: str = "math"
    entry: str = ""


JOIN = "\x1f"  # ASCII unit separator: joins several texts into one, and occurs in none of them


def joined(items: Iterable[str]) -> str:
    """Join several texts into one."""
    return JOIN.join(items)


def split(text: str) -> tuple[str, ...]:
    """Split a text that `joined` made."""
    return tuple(text.split(JOIN)) if text else ()


@dataclass(frozen=True)
class Questions(Columns, Sequence[Question]):
    """Questions as a table: a sequence of `Question` whose texts may stay on disk."""

    id_N: list[str] = column(str, "unique in its pool")
    text_N: list[str] = column(str, "the question as the policy sees it", "UTF-8")
    answer_N: list[str] = column(str, "the gold answer", "UTF-8")
    solution_N: list[str] = column(str, "a worked solution", "UTF-8")
    subject_N: list[str] = column(str, "coarse topic")
    level_N: list[str] = column(str, "difficulty as its source gives it")
    tags_N: list[str] = column(str, "knowledge points, joined by U+001F")
    source_N: list[str] = column(str, "where the question comes from")
    alt_answers_N: list[str] = column(str, "other right answers, joined by U+001F", "UTF-8")
    verifier_N: list[str] = column(str, "what responses are graded by: math, exact, reasoning_gym or code")
    entry_N: list[str] = column(str, "JSON for the scorer of reasoning-gym", "UTF-8")

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Questions: ...
    def __getitem__(self, index: int | slice) -> Question | Questions:
        """Return one question, or the table of a slice."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        return next(iter(self.take([range(len(self))[index]])))

    def __iter__(self) -> Iterator[Question]:
        for id, text, answer, solution, subject, level, tags, source, alt, *grading in zip(
            *(getattr(self, f.name) for f in fields(self)), strict=True
        ):
            yield Question(id, text, answer, solution, subject, level, split(tags), source, split(alt), *grading)

    @classmethod
    def of(cls, questions: Iterable[Question]) -> Questions:
        """Return the table of these questions."""
        return cls.from_rows(
            (q.id, q.text, q.answer, q.solution, q.subject, q.level, joined(q.tags), q.source, joined(q.alt_answers),
             q.verifier, q.entry)
            for q in questions
        )  # fmt: skip


def pick(questions: Sequence[Question], rows: Iterable[int]) -> dict[int, Question]:
    """Return some questions by their index. From a table on disk they are read together."""
    rows = [int(row) for row in rows]
    some = questions.take(rows) if isinstance(questions, Questions) else [questions[row] for row in rows]
    return dict(zip(rows, some, strict=True))


@dataclass(frozen=True)
class Prompts(Columns):
    """The prompts of a stage's questions: rendered once, and used by every later step."""

    question_Q: np.ndarray = column(np.int64, "index of the question in its pool or benchmark")
    text_Q: list[str] = column(str, "the prompt", "UTF-8")
    tokens_Q: list[np.ndarray] = column(Ids, "the prompt as the policy read it", "token ids")


@dataclass(frozen=True)
class Rollouts(Columns):
    """Graded rollouts, one row each. (iteration, question, sample) identifies a row in its run.

    Token ids are empty in runs of an earlier version.
    """

    question_R: np.ndarray = column(np.int64, "index of the question in its pool or benchmark")
    sample_R: np.ndarray = column(np.int32, "0 .. K-1 within the question")
    verdict_R: np.ndarray = column(np.int8, "1 correct, 0 wrong, -1 ungradable")
    n_tokens_R: np.ndarray = column(np.int32, "response length, end-of-sequence included", "tokens")
    n_steps_R: np.ndarray = column(np.int32, "reasoning steps", "steps")
    finished_R: np.ndarray = column(np.bool_, "the response ended by itself; false: cut at rollouts.max_new_tokens")
    seed_R: np.ndarray = column(np.uint64, "seed of the response's own random stream")
    seconds_R: np.ndarray = column(np.float32, "the response's share of the decoding time", "s")
    id_R: list[str] = column(str, "the question's id in its pool or benchmark")
    text_R: list[str] = column(str, "the response", "UTF-8")
    tokens_R: list[np.ndarray] = column(Ids, "the drawn tokens, with those that ended the response", "token ids")

    def sorted(self) -> Rollouts:
        """Return the rows ordered by (question, sample): the order of chunks, shards and ranks has no effect."""
        return self.take(np.lexsort((self.sample_R, self.question_R)))


@dataclass(frozen=True)
class Explored:
    """The rollouts of an iteration's drawn questions.

    Attributes:
        rollouts: rollouts of all drawn questions, sorted by question and sample.
        fresh: the part of them that this iteration's probe had not already made.
        n_fixed: number of samples of a question that do not depend on what its first samples are (the first wave of
            rollouts.adaptive, else all K).
    """

    rollouts: Rollouts
    fresh: Rollouts
    n_fixed: int

    @property
    def first_wave(self) -> Rollouts:
        """The part of `fresh` whose number was fixed before."""
        return self.fresh.take(np.flatnonzero(self.fresh.sample_R < self.n_fixed))


@dataclass(frozen=True)
class Pairs(Columns):
    """Preference pairs, hardest question first. (iteration, question, sample) identifies a rollout.

    Token ids are empty in pairs of texts from elsewhere, and in those of runs of an earlier version.
    """

    question_B: np.ndarray = column(np.int64, "index of the question in the pool")
    iteration_B: np.ndarray = column(np.int32, "iteration whose rollouts the pair is made of")
    chosen_sample_B: np.ndarray = column(np.int32, "sample of the chosen rollout")
    rejected_sample_B: np.ndarray = column(np.int32, "sample of the rejected rollout")
    chosen_finished_B: np.ndarray = column(np.bool_, "the chosen response ended by itself")
    rejected_finished_B: np.ndarray = column(np.bool_, "the rejected response ended by itself")
    cluster_B: np.ndarray = column(np.int64, "cluster of the question")
    pass_rate_B: np.ndarray = column(np.float64, "difficulty: p(x) = s/K of the question when the pair was made")
    steps_B: np.ndarray = column(np.float64, "difficulty: mean reasoning steps over the responses", "steps")
    tokens_B: np.ndarray = column(np.float64, "difficulty: mean response length", "tokens")
    id_B: list[str] = column(str, "the question's id in the pool")
    prompt_B: list[str] = column(str, "the prompt that both responses continue", "UTF-8")
    chosen_B: list[str] = column(str, "the chosen response", "UTF-8")
    rejected_B: list[str] = column(str, "the rejected response", "UTF-8")
    prompt_tokens_B: list[np.ndarray] = column(Ids, "the prompt as the policy read it", "token ids")
    chosen_tokens_B: list[np.ndarray] = column(Ids, "the chosen response as it was drawn", "token ids")
    rejected_tokens_B: list[np.ndarray] = column(Ids, "the rejected response as it was drawn", "token ids")


@dataclass(frozen=True)
class Reference(Columns):
    """Log-probabilities of an iteration's pairs under the policy before training, in the order of the pairs."""

    chosen_B: np.ndarray = column(np.float64, "log-probability of the chosen response given the prompt", "nats")
    rejected_B: np.ndarray = column(np.float64, "log-probability of the rejected response given the prompt", "nats")


@dataclass(frozen=True)
class Difficulty(Columns):
    """Self-aware difficulty of the questions of one stage (method, step 2), sorted by question.

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
    """The questions that an iteration explores, in drawing order."""

    question_Q: np.ndarray = column(np.int64, "index of the question in the pool")
    weight_Q: np.ndarray = column(np.float64, "W of its cluster at the draw: relative probability")
    cluster_Q: np.ndarray = column(np.int64, "cluster of the question")

    def explored(self, question_R: np.ndarray) -> Draw:
        """Return the draw without the questions that were left because a budget was spent (sampler.budget).

        Args:
            question_R: questions of all rollouts of the exploration and of the probe.
        """
        left = np.flatnonzero(~np.isin(self.question_Q, question_R))
        return self.take(np.arange(left[0])) if len(left) else self


@dataclass(frozen=True)
class Outcome:
    """The end of a run: the figures of its iterations, the policy to use, and why it stopped early, if it did.

    Attributes:
        before: accuracy by benchmark before the first iteration.
        iterations: the records of the finished iterations (metrics.jsonl).
        stopped: the failure signature that stopped it (depletion, loop.on_signature); "" for none.
        paused: the requested stop, and how to continue (loop.stop_after, tags.mode=export); "" for none.
        health: health of the clusters (`clusters.health`).
    """

    before: dict[str, dict[str, Any]]
    iterations: list[dict[str, Any]]
    policy_path: str
    stopped: str = ""
    paused: str = ""
    health: dict[str, Any] = field(default_factory=dict)


def seeded(seed: int, iteration: int, stage: str, *index: int) -> np.random.Generator:
    """Return a random stream that depends on (seed, iteration, stage, index) and on nothing else.

    Rank, world size and order of work have no influence, so any number of ranks makes the same decisions.
    """
    return np.random.default_rng(_entropy(seed, iteration, stage, index))


def seed_of(seed: int, iteration: int, stage: str, *index: int) -> int:
    """Like `seeded`, as one 64-bit number that can be stored beside the result of the draw."""
    return int(np.random.SeedSequence(_entropy(seed, iteration, stage, index)).generate_state(1, np.uint64)[0])


def _entropy(seed: int, iteration: int, stage: str, index: Sequence[int]) -> list[int]:
    return [seed, iteration + 1, zlib.crc32(stage.encode()), *index]
