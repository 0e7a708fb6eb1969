"""Texts of a row that mean something else than they say: lost backslashes, printed lists, chats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..settings.base import Message

# With one backslash, "frac" as a LaTeX command is, in JSON, a form feed and "rac". These are the escapes of JSON that
# begin LaTeX commands, each with the rest of commands that is no English word. A form feed or a backspace has no other
# use in a text.
_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_LOST = re.compile(
    r"[\b\f][a-zA-Z]*"
    r"|\n(?:eq|eg|leq|geq|cong|subseteq|abla|otin)(?![a-zA-Z])"
    r"|\r(?:ight|ightarrow|ho|floor|ceil|angle|vert|brace)(?![a-zA-Z])"
    r"|\t(?:imes|ext|extbf|extit|frac|heta|riangle|ilde|herefore|binom|au|anh)(?![a-zA-Z])"
    r"|\tan(?=\s*[\^({\\\d]|\s+[xyz](?![a-zA-Z-]))"
)
_ESCAPED = re.compile(r"\\([\\'\"])")
_ITEM = re.compile(r"""[\s,]*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")""", re.DOTALL)


def lost_command(text: str) -> str:
    """Return the LaTeX command whose backslash JSON has read as an escape, such as "\\frac"; "" if there is none."""
    found = _LOST.search(text)
    return "\\" + _ESCAPES[found[0][0]] + found[0][1:] if found else ""


def printed_list(text: str) -> list[str] | None:
    """Return the items of a list of texts that was printed, as "['a', 'b']" in CSV files; None for any other text.

    A printed list has a backslash before a quotation mark and before a backslash.
    """
    if not (text.startswith("[") and text.endswith("]")):
        return None
    items, end = [], 1
    while found := _ITEM.match(text, end, len(text) - 1):
        items.append(_ESCAPED.sub(r"\1", found[1] if found[1] is not None else found[2]))
        end = found.end()
    return None if text[end:-1].strip(" ,\n") else items


def message_of(value: Any, choice: Message) -> Any:
    """Return the content of one message of a chat: of a list of objects with `role` and `content`. Else the value.

    Args:
        choice: "last_user": the last message of the user; "only": a chat of one message, others stay lists.
    """
    is_chat = isinstance(value, list) and value and all(isinstance(m, Mapping) and "role" in m for m in value)
    if not is_chat:
        return value
    if choice == "only":
        return value[0].get("content") if len(value) == 1 else [message.get("content") for message in value]
    of_user = [message.get("content") for message in value if message["role"] == "user"]
    return of_user[-1] if of_user else [message.get("content") for message in value]
