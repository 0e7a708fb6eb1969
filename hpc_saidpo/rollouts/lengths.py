"""Questions that are too long for the policy: their prompt and a response need more positions than the model has.

They are found before the first rollout. Only the prompts of long questions are encoded, because few texts of a large
pool are long enough to need it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import settings
from ..parallel.world import World
from ..policy.cache import load_without_weights
from ..records import Question, Questions, pick
from ..store.stage import Stage
from ..table import Columns, column
from ..unicode import nfkc
from .prompts import Renderer

if TYPE_CHECKING:
    from ..policy.model import Policy

CHUNK = 16_384  # questions that a rank examines at once
FIRST = 5  # questions that a message lists
SPARE_TOKENS = 16  # by which the estimate may be too low where texts meet: special tokens, spaces
_PLACE = "(the text of the question)"


@dataclass(frozen=True)
class TooLong(Columns):
    """The questions that are too long, in ascending order."""

    question_Q: np.ndarray = column(np.int64, "index of the question in its pool or benchmark")
    n_tokens_Q: np.ndarray = column(np.int32, "length of its prompt", "tokens")
    n_positions_Q: np.ndarray = column(np.int64, "positions of the policy, for prompt and response", "tokens")
    id_Q: list[str] = column(str, "the question's id")

    def sorted(self) -> TooLong:
        """Return the rows ordered by question."""
        return self.take(np.argsort(self.question_Q))

    def describe(self, n_questions: int, max_new_tokens: int) -> str:
        """Return a message: how many of n questions are too long, and the longest ones with their needs."""
        longest = np.argsort(-self.n_tokens_Q, kind="stable")[:FIRST]
        items = [f"{self.id_Q[int(i)]} needs {self.n_tokens_Q[i] + max_new_tokens}" for i in longest]
        more = len(self) - len(items)
        return (
            f"{len(self)} of {n_questions} questions are too long for the {self.n_positions_Q[0]} positions of the "
            f"policy: with rollouts.max_new_tokens={max_new_tokens}, {', '.join(items)}"
            + f" and {more} more"
            * (more > 0)
        )


def write_too_long(
    stage: Stage,
    questions: Sequence[Question],
    examples: Mapping[str, Sequence[Question]],
    path: str,
    config: settings.Rollouts,
    world: World,
) -> None:
    """Write the questions that are too long: a table in chunks, and too_long.jsonl for readers. Collective.

    Args:
        examples: few-shot examples by subject.
        path: folder of the policy.

    Raises:
        RunError: the policy's configuration or tokenizer is not readable, or a prompt cannot be rendered.
    """
    from ..policy.model import max_positions  # imports transformers: a finished stage needs none of it

    policy = world.everywhere(lambda: load_without_weights(path))
    n_positions = max_positions(policy)

    def examine(chunk: int) -> None:
        rows = range(chunk * CHUNK, min(len(questions), (chunk + 1) * CHUNK))
        stage.write_chunk(chunk, examine_lengths(questions, rows, examples, policy, config, int(n_positions)))

    n_chunks = 0 if n_positions == math.inf else -(-len(questions) // CHUNK)
    world.spread(n_chunks, examine)

    def list_them() -> None:
        stage.await_chunks(range(n_chunks))
        found = stage.read_chunks(TooLong).sorted()
        rows = zip(found.id_Q, found.n_tokens_Q.tolist(), strict=True)
        stage.append_lines("too_long", (json.dumps({"id": id, "prompt_tokens": n}) for id, n in rows))

    world.on_root(list_them)


def examine_lengths(
    questions: Sequence[Question],
    rows: range,
    examples: Mapping[str, Sequence[Question]],
    policy: Policy,
    config: settings.Rollouts,
    n_positions: int,
) -> TooLong:
    """Return those of some questions that are too long.

    Args:
        rows: indices of the questions to examine.
    """
    room, prompt = n_positions - config.max_new_tokens, config.prompt
    some = questions[rows.start : rows.stop]
    texts = some.text_N if isinstance(some, Questions) else [question.text for question in some]
    families = _families(some, prompt)
    frames: dict[str, tuple[int, int]] = {}
    long: list[int] = []
    for index, text, family in zip(rows, texts, families, strict=True):
        if family not in frames:
            frames[family] = _frame(pick(questions, [index])[index], examples, policy, prompt)
        n_frame, n_places = frames[family]
        if n_frame + n_places * _most_tokens(text) > room:
            long.append(index)
    prompts = Renderer(pick(questions, long), examples, policy, prompt)
    exact = [(index, len(prompts.tokens(index)), n_positions, prompts.questions[index].id) for index in long]
    return TooLong.from_rows([row for row in exact if row[1] > room])


def _families(some: Sequence[Question], config: settings.Prompt) -> Sequence[str]:
    """Return the name of each question's few-shot examples; "" where prompts show none."""
    if not config.shots:
        return [""] * len(some)
    return some.subject_N if isinstance(some, Questions) else [question.subject for question in some]


def _frame(
    question: Question, examples: Mapping[str, Sequence[Question]], policy: Policy, config: settings.Prompt
) -> tuple[int, int]:
    """Return the tokens of a prompt around the text of its question, at most, and how often it shows that text."""
    prompts = Renderer({0: replace(question, text=_PLACE)}, examples, policy, config)
    return len(prompts.tokens(0)) + SPARE_TOKENS, max(1, prompts.text(0).count(_PLACE))


def _most_tokens(text: str) -> int:
    """Return the number of tokens of a text at most: a token stands for at least one byte of its normalised form."""
    if text.isascii():
        return len(text)
    normalised = nfkc(text)
    return max(len(form.encode("utf-8", "replace")) for form in (text, normalised))
