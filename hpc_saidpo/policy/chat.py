"""Chat templates: messages -> one string, at a fixed time, with errors that name the setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from ..errors import RunError, input_errors, shown

CLOCK = "strftime_now"  # the function by which a template reads the clock
# Codes that strftime accepts here; "-" leaves out leading zeros (GNU).
DIRECTIVES = (*"aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ", *(f"-{letter}" for letter in "dmyHIMSjkleuUVW"))


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    arguments: Mapping[str, Any],
    now: datetime | None,
) -> str:
    """Render messages as one string that ends where the assistant's turn begins.

    Args:
        messages: each with role and content.
        arguments: further variables of the template, or `chat_template`, the name of one of several templates.
        now: the time that the template sees; None: the present time.

    Raises:
        RunError: the tokenizer has no template, or several without a default; or the template fails.
    """
    named, path = tokenizer.chat_template, tokenizer.name_or_path
    if not named:
        raise RunError(
            f"the tokenizer of {shown(path)} has no chat template: set rollouts/prompt=plain (or another prompt with "
            "chat: false)"
        )
    if isinstance(named, dict) and "default" not in named and "chat_template" not in arguments:
        raise RunError(
            f"the tokenizer of {shown(path)} has several chat templates, and none is the default: set "
            f"'+rollouts.prompt.template_args={{chat_template: NAME}}' with one of {', '.join(named)}"
        )
    problem = f"the chat template of {path} fails"
    remedy = "repair it, see rollouts.prompt.template_args, or set rollouts/prompt=plain (or another with chat: false)"
    with input_errors(problem, remedy):
        source = tokenizer.get_chat_template(arguments.get("chat_template"))
        if now is not None and CLOCK in source:
            source = fixed_clock(now) + source
        variables = {**arguments, "chat_template": source}
        chat = cast(Any, list(messages))
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **variables)
    return cast(str, text)


def fixed_clock(now: datetime) -> str:
    """The start of a Jinja template in which `strftime_now` returns a fixed time.

    A macro, because transformers passes no functions to a template. Jinja removes the line break after it.
    """
    values = {f"%{directive}": now.strftime(f"%{directive}") for directive in DIRECTIVES}
    replacements = "".join(
        f" | replace({json.dumps(directive)}, {json.dumps(value)})"
        for directive, value in [("%%", "\0"), *values.items(), ("\0", "%")]
    )
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{replacements} }}}}{{% endmacro %}}\n"
