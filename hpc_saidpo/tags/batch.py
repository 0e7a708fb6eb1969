"""Requests as a file, and answers from files: JSON lines as OpenAI's batch interface has them, or plainer ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .. import settings
from ..errors import RunError
from ..store import files
from .asking import Task
from .endpoint import body, content

URL = "/v1/chat/completions"
SHOWN = 3  # bad lines that are told one by one


def write(path: str, task: Task, asked: Iterable[tuple[str, str]], config: settings.Tags) -> None:
    """A file of requests, which appears whole.

    Args:
        asked: (hash, text) of what is asked about; the hash is the request's custom_id.

    Raises:
        RunError: the disk refuses.
    """
    files.make_folder(Path(path).parent)
    with files.replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for own, text in asked:
            request = body(task.messages(text), config.model, config.max_new_tokens, config.endpoint.body)
            line = {"custom_id": own, "method": "POST", "url": URL, "body": request}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(paths: Sequence[str]) -> tuple[dict[str, str], int]:
    """(reply by custom_id or id, how many lines tell of a request that failed); of several the last.

    A line is {"custom_id", "response": {"status_code", "body"}}, or {"custom_id" or "id", "content" or "tags"}.

    Raises:
        RunError: no such file; or lines are none of these: the first ones named by file and line.
    """
    replies: dict[str, str] = {}
    bad, n_failed = [], 0
    for path in paths:
        for number, line in _lines(path):
            try:
                own, reply = _answer(json.loads(line))
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                bad.append(f"{path}:{number}: {error}")
                continue
            if reply is None:
                n_failed += 1
            else:
                replies[own] = reply
    if bad:
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise RunError(
            f"tags.file: {len(bad)} lines are no answers:\n  "
            + "\n  ".join(bad[:SHOWN])
            + f"{more}\nMend or remove them"
        )
    return replies, n_failed


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, and their numbers."""
    try:
        with Path(path).open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise RunError(f"tags.file={path}: {error.strerror}") from error


def _answer(line: dict) -> tuple[str, str | None]:
    """(id, reply) of a line; the reply is None where the request failed.

    Raises:
        ValueError: it is no answer.
    """
    own = line.get("custom_id", line.get("id"))
    if not isinstance(own, str | int) or isinstance(own, bool):
        raise ValueError("has neither custom_id nor id")
    if "tags" in line:
        said = line["tags"]
        return str(own), f"tags: {said}" if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    if "content" in line:
        if not isinstance(line["content"], str):
            raise ValueError("its content is no text")
        return str(own), line["content"]
    if line.get("error"):
        return str(own), None
    response = line.get("response")
    if not isinstance(response, dict):
        raise ValueError("has no response, content or tags")
    if response.get("status_code", 200) != 200:
        return str(own), None
    return str(own), content(response.get("body"))
