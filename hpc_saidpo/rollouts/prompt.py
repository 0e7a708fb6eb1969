"""The prompt of a question: the exact string that the policy continues."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import settings
from ..errors import RunError
from ..records import Question

Message = dict[str, Any]  # of a chat: role and content
_FIELD = re.compile(r"\{(answer|solution)\}")


def render(
    question: Question,
    examples: Mapping[str, Sequence[Question]],
    config: settings.Prompt,
    chat_template: Callable[[list[Message]], str],
) -> str:
    """Render the prompt of a question.

    Args:
        examples: few-shot examples by subject; the prompt shows the first `config.shots` of the question's subject.
        chat_template: messages -> a string that ends where the assistant's turn begins; used when `config.chat`.

    Raises:
        RunError: the subject has fewer than `config.shots` examples.
    """
    shown = examples.get(question.subject, ())[: config.shots]
    if len(shown) < config.shots:
        raise RunError(
            f"question {question.id!r}: {config.shots} few-shot examples requested (rollouts.prompt.shots), but the "
            f"pool has {len(shown)} for subject {question.subject!r}: lower it, or add examples to pool.examples"
        )
    if not config.chat:
        turns = [_question(config, x) + _answer(config, x) + config.separator for x in shown]
        return config.system + "".join(turns) + _question(config, question)
    messages: list[Message] = [{"role": "system", "content": config.system}] if config.system else []
    for example in shown:
        messages.append({"role": "user", "content": _question(config, example)})
        messages.append({"role": "assistant", "content": _answer(config, example)})
    messages.append({"role": "user", "content": _question(config, question)})
    return chat_template(messages)


# Not str.format: questions and templates are full of LaTeX braces. Each template replaces its own names only, in
# one pass: "\boxed{answer}" in a question, or in the instructions to the model, must not become the gold answer.
def _question(config: settings.Prompt, question: Question) -> str:
    return config.question.replace("{question}", question.text)


def _answer(config: settings.Prompt, question: Question) -> str:
    return _FIELD.sub(lambda name: getattr(question, name[1]), config.answer)
