"""A question -> the exact string the policy continues."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from .. import settings
from ..errors import RunError
from ..records import Question

_OWN = re.compile(r"\{(answer|solution)\}")


def render(
    question: Question,
    examples: Mapping[str, Sequence[Question]],
    config: settings.Prompt,
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
        turns = [_asked(config, x) + _answered(config, x) + config.separator for x in shown]
        return config.system + "".join(turns) + _asked(config, question)
    messages = [{"role": "system", "content": config.system}] if config.system else []
    for example in shown:
        messages.append({"role": "user", "content": _asked(config, example)})
        messages.append({"role": "assistant", "content": _answered(config, example)})
    messages.append({"role": "user", "content": _asked(config, question)})
    return chat_template(messages)


# Not str.format: questions and templates are full of LaTeX braces. And each template has its own names only, looked for
# once: "\boxed{answer}" in a question, or in what is asked of the model, must not become the gold answer.
def _asked(config: settings.Prompt, question: Question) -> str:
    return config.question.replace("{question}", question.text)


def _answered(config: settings.Prompt, question: Question) -> str:
    return _OWN.sub(lambda name: getattr(question, name[1]), config.answer)
