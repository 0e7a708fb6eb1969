"""The prompt of each question for one policy, as text and as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import settings
from ..records import Question
from .prompt import render

if TYPE_CHECKING:
    from ..policy.model import Policy


class Prompts:
    """The prompts of a pool or benchmark for one policy.

    Args:
        questions: by index; a mapping may contain only those that are needed.
        examples: few-shot examples by subject.
    """

    def __init__(
        self,
        questions: Sequence[Question] | Mapping[int, Question],
        examples: Mapping[str, Sequence[Question]],
        policy: Policy,
        config: settings.Prompt,
    ):
        self.questions, self.examples, self.policy, self.config = questions, examples, policy, config

    def text(self, index: int) -> str:
        """The prompt of a question as text."""
        return render(self.questions[index], self.examples, self.config, self.policy.chat_template)

    def describe(self, index: int, stop: Sequence[str]) -> str:
        """A message for the log: one prompt, each of its lines between bars, and the ends of a response."""
        lines = "\n".join(f"  |{line}|" for line in self.text(index).split("\n"))
        name = self.policy.tokenizer.convert_ids_to_tokens
        ends = [*map(name, sorted(self.policy.eos_ids)), *(repr(text)[1:-1] for text in stop)]
        return f"the first prompt, its lines between bars:\n{lines}\n  a response ends with {' or '.join(ends)}"

    def family(self, index: int) -> str:
        """A name shared by prompts with the same few-shot examples; "" when prompts show none."""
        return self.questions[index].subject if self.config.shots else ""

    def tokens(self, index: int) -> list[int]:
        """The prompt of a question as token ids."""
        return self.policy.encode_prompt(self.text(index), self.config.chat)
