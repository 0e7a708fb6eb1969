"""The answer or program in a response, in the forms of verifiers other than mathematics."""

from __future__ import annotations

import textwrap

from .extract import end_of, extract

_FENCE = "```"
_PYTHON = ("python", "python3", "py")


def same_blanks(text: str) -> str:
    """A text with one space for any run of blanks, and none at its ends."""
    return " ".join(text.split())


def code_of(response: str) -> str:
    """The program in a response: its last block fenced as Python, else its last fenced block, else all of it.

    A block that is never closed counts if no other does: an end-of-response string may have cut its fence.
    """
    text = end_of(response)
    blocks, rest = _blocks(text)
    python = [code for language, code in blocks if language in _PYTHON]
    code = (python or [code for _, code in blocks] or [rest if rest is not None else text])[-1]
    return textwrap.dedent(code).strip()


def _blocks(text: str) -> tuple[list[tuple[str, str]], str | None]:
    """(language, content) of the fenced blocks, and the content of one that is not closed; in one pass."""
    blocks, language, inside = [], "", None
    for line in text.split("\n"):
        mark = line.strip()
        if inside is None and mark.startswith(_FENCE):
            language, inside = mark.removeprefix(_FENCE).strip().lower(), []
        elif inside is not None and mark == _FENCE:
            blocks.append((language, "\n".join(inside)))
            inside = None
        elif inside is not None:
            inside.append(line)
    return blocks, None if inside is None else "\n".join(inside)


def tagged(response: str) -> str | None:
    """The text between the last <answer> and </answer>, the form in reasoning-gym's prompts; else as `extract`."""
    text = end_of(response)
    head, closing, _ = text.rpartition("</answer>")
    opening = head.rfind("<answer>") if closing else -1
    return head[opening + len("<answer>") :].strip() if opening >= 0 else extract(response)
