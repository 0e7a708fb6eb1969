"""The prompts of questions for one policy: rendering, as text and as token ids, and the checks of a chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from .. import settings
from ..errors import RunError, shown
from ..progress import say_once
from ..records import Prompts, Question
from .prompt import Message, render

if TYPE_CHECKING:
    from ..policy.model import Policy

PROBE = "What is 17 + 25?"  # a question that every template must leave as it is
PRINTED_PART = "'type': 'text'"  # of a template that prints a list as it is
LAST_TOKENS = 8  # of a prompt that the log shows


class Renderer:
    """Renders the prompts of a pool or benchmark for one policy.

    Args:
        questions: by index; a mapping may contain only those that are needed.
        examples: few-shot examples by subject.
        now: the time that a chat template sees (`strftime_now`); None: the present time.
    """

    def __init__(
        self,
        questions: Sequence[Question] | Mapping[int, Question],
        examples: Mapping[str, Sequence[Question]],
        policy: Policy,
        config: settings.Prompt,
        now: datetime | None = None,
    ):
        self.questions, self.examples, self.policy, self.config = questions, examples, policy, config
        self.now = now
        self._as_parts: bool | None = None  # the form of a message's content; None: not decided yet

    def text(self, index: int) -> str:
        """The prompt of a question as text.

        Raises:
            RunError: there are too few examples, or the chat template cannot be used (`decide_form`).
        """
        question = self.questions[index]
        if self._as_parts is None:
            self._as_parts = self.config.chat and self.decide_form(question)
        return self._render(question, self.config, self._as_parts)

    def tokens(self, index: int) -> list[int]:
        """The prompt of a question as token ids. Raises as `text` does."""
        return self.policy.encode_prompt(self.text(index), self.config.chat)

    def table(self, question_Q: Iterable[int]) -> Prompts:
        """The prompts of some questions as a table. Raises as `text` does."""
        texts = {int(q): self.text(int(q)) for q in question_Q}
        return Prompts.from_rows(
            (q, text, self.policy.encode_prompt(text, self.config.chat)) for q, text in texts.items()
        )

    def family(self, index: int) -> str:
        """A name shared by prompts with the same few-shot examples; "" when prompts show none."""
        return self.questions[index].subject if self.config.shots else ""

    def decide_form(self, question: Question) -> bool:
        """Whether the chat template needs the content of a message as a list of parts, and not as a text.

        Args:
            question: one with the few-shot examples that the run needs; its text is replaced.

        Raises:
            RunError: with either form the template fails, or leaves out the question. The message names the key to set.
        """
        probe = dataclasses.replace(question, text=PROBE)
        as_parts, problem = self._try_forms(probe, self.config)
        if problem is None:
            if as_parts:
                say_once(f"  the chat template of {self.policy.path} takes contents as lists of parts: used like that")
            return as_parts
        if self.config.system and self._try_forms(probe, dataclasses.replace(self.config, system=""))[1] is None:
            raise RunError(
                f"the chat template of {shown(self.policy.path)} accepts no system turn ({problem}): set "
                "rollouts.prompt.system='' and, if needed, put its words into rollouts.prompt.question"
            ) from problem
        raise problem

    def _try_forms(self, probe: Question, config: settings.Prompt) -> tuple[bool, RunError | None]:
        """The first form of contents that works; the problem of the form `text` if none does."""
        problems: list[RunError] = []
        for as_parts in (False, True):
            try:
                text = self._render(probe, config, as_parts)
            except RunError as problem:
                problems.append(problem)
                continue
            if probe.text in text and PRINTED_PART not in text:
                return as_parts, None
            problems.append(
                RunError(
                    f"the chat template of {shown(self.policy.path)} leaves out the question: repair it, see "
                    "rollouts.prompt.template_args, or set rollouts/prompt=plain (or another prompt with chat: false)"
                )
            )
        return False, problems[0]

    def _render(self, question: Question, config: settings.Prompt, as_parts: bool) -> str:
        def chat_template(messages: list[Message]) -> str:
            form = list(map(_in_parts, messages)) if as_parts else messages
            return self.policy.chat_template(form, config.template_args, self.now)

        return render(question, self.examples, config, chat_template)


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def describe(prompts: Prompts, policy: Policy, stop: Sequence[str]) -> str:
    """A message for the log: the first prompt, its lines between bars; its last tokens; the ends of a response."""
    lines = "\n".join(f"  |{line}|" for line in prompts.text_Q[0].split("\n"))
    ids = prompts.tokens_Q[0].tolist()
    last = ", ".join(f"{i} {policy.token_name(i)!r}" for i in ids[-LAST_TOKENS:])
    ends = [*map(policy.token_name, sorted(policy.eos_ids)), *(repr(text)[1:-1] for text in stop)]
    return (
        f"the first prompt, its lines between bars:\n{lines}\n  the last of its {len(ids)} tokens: {last}\n"
        f"  a response ends with {' or '.join(ends)}"
    )
