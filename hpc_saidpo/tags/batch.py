"""Requests and answers in files: JSON lines in the format of OpenAI's batch interface, or simpler ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .. import settings
from ..errors import RunError, shown, words_of
from ..pool.text_files import MIB, lines_of
from ..store import files
from .asking import Task
from .endpoint import reply_of, request_body

URL = "/v1/chat/completions"
SHOWN = 3  # bad lines that a message lists


def write(path: str, task: Task, requests: Iterable[tuple[str, str]], config: settings.Tags) -> None:
    """Write a file of requests, which appears whole or not at all.

    Args:
        requests: (hash, text) of each request; the hash becomes its custom_id.

    Raises:
        RunError: the file cannot be written.
    """

    def write_lines(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            for id, text in requests:
                body = request_body(task.messages(text), config.model, config.max_new_tokens, config.endpoint.body)
                line = {"custom_id": id, "method": "POST", "url": URL, "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    files.make_folder(Path(path).parent)
    files.replace(Path(path), write_lines)


def read(paths: Sequence[str], limit_mib: int) -> tuple[dict[str, str], int]:
    """Read files of answers: (reply by custom_id or id, number of failed requests). The last reply of an id counts.

    A line is {"custom_id", "response": {"status_code", "body"}}, or {"custom_id" or "id", "content" or "tags"}.

    Args:
        limit_mib: length of a line, at most (tags.reply_mib).

    Raises:
        RunError: no such file; or lines with another format: names the first ones by file and line.
    """
    replies: dict[str, str] = {}
    bad, n_failed = [], 0
    for path in paths:
        for number, line in _lines(path, limit_mib * MIB):
            try:
                if len(line) > limit_mib * MIB:
                    raise ValueError(f"longer than {limit_mib} MiB (tags.reply_mib)")
                id, reply = _read_answer(json.loads(line))
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                bad.append(f"{shown(path)}:{number}: {words_of(error)}")
                continue
            if reply is None:
                n_failed += 1
            else:
                replies[id] = reply
    if bad:
        listed = "\n  ".join(bad[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise RunError(f"tags.file: {len(bad)} lines are no answers:\n  {listed}{more}\nMend or remove them")
    return replies, n_failed


def _lines(path: str, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of every line that is not empty; of a longer one the first `limit` + 1 bytes."""
    try:
        with Path(path).open("rb") as file:
            yield from ((number, line) for number, line in lines_of(file, limit) if line.strip())
    except OSError as error:
        raise RunError(f"tags.file={shown(path)}: {error.strerror}") from error


def _read_answer(line: dict) -> tuple[str, str | None]:
    """Return (id, reply) of a line; the reply is None where the request failed.

    Raises:
        ValueError: the line is no answer.
    """
    id = line.get("custom_id", line.get("id"))
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise ValueError("has neither custom_id nor id")
    if "tags" in line:
        tags = line["tags"]
        return str(id), f"tags: {tags}" if isinstance(tags, str) else json.dumps(tags, ensure_ascii=False)
    if "content" in line:
        if not isinstance(line["content"], str):
            raise ValueError("its content is no text")
        return str(id), line["content"]
    if line.get("error"):
        return str(id), None
    response = line.get("response")
    if not isinstance(response, dict):
        raise ValueError("has no response, content or tags")
    if response.get("status_code", 200) != 200:
        return str(id), None
    return str(id), reply_of(response.get("body"))
