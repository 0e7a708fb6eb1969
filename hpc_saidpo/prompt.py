"""A question -> the exact string the policy continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from .records import Question, RunError, settings


@settings()
class Config:
    chat: bool = True
    system: str = ""
    question: str = "{question}"
    answer: str = "{answer}"
    separator: str = "\n\n"
    shots: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self):
        if "{question}" not in self.question:
            raise ValueError("question must contain {question}")


def render(
    question: Question,
    examples: Mapping[str, Sequence[Question]],
    config: Config,
    chat_template: Callable[[list[dict]], str],
) -> str:
    """The prompt of a question.

    Args:
        examples: few-shot examples by subject; the first `config.shots` of the question's subject are shown.
        chat_template: messages -> string with the assistant's turn opened; used when `config.chat`.

    Raises:
        RunError: fewer than `config.shots` examples for the subject.
    """
    shown = examples.get(question.subject, ())[: config.shots]
    if len(shown) < config.shots:
        raise RunError(
            f"question {question.id!r}: {config.shots} few-shot examples asked for (rollouts.prompt.shots), but the "
            f"pool has {len(shown)} for subject {question.subject!r}: lower it, or give pool.examples more"
        )
    if not config.chat:
        turns = [_fill(config.question, x) + _fill(config.answer, x) + config.separator for x in shown]
        return config.system + "".join(turns) + _fill(config.question, question)
    messages = [{"role": "system", "content": config.system}] if config.system else []
    for example in shown:
        messages.append({"role": "user", "content": _fill(config.question, example)})
        messages.append({"role": "assistant", "content": _fill(config.answer, example)})
    messages.append({"role": "user", "content": _fill(config.question, question)})
    return chat_template(messages)


def _fill(template: str, question: Question) -> str:
    # str.replace, not str.format: questions and templates are full of LaTeX braces.
    return template.replace("{question}", question.text).replace("{answer}", question.answer)
