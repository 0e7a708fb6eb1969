"""A row of a file -> the texts of a question: which column means what, and where the answer comes from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .. import settings
from ..records import JOIN, joined
from ..settings.pool import VERIFIER_NAMES, Names

Row = tuple[str, ...]  # the texts of a question in the order of the fields of `records.Questions`
SHOWN_KEYS = 12
# In this order: a table must have the first one.
WANTED = (
    "question", "answer", "id", "solution", "subject", "level", "tags", "source", "alt_answers", "verifier", "entry",
)  # fmt: skip
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")


class BadRow(ValueError):
    """A row that is no question: the message says why."""


def names(columns: Names) -> tuple[str, ...]:
    """The columns that may hold a thing, in the order in which they are looked for."""
    return (columns,) if isinstance(columns, str) else tuple(columns or ())


def renamed(config: settings.Columns) -> dict[str, Names]:
    """The columns that are named otherwise than by default, and how."""
    own = {name: getattr(config, name) for name in WANTED}
    return {name: value for name, value in own.items() if value and value != getattr(settings.Columns(), name)}


def mapper(config: settings.Columns, verifier: str = "math") -> Callable[[Mapping], Row]:
    """A function row -> texts of the question; its id is "" when it has none.

    Args:
        verifier: of a row that names none.

    It raises:
        BadRow: no question or answer; solution boxes that disagree; a list where one text is wanted; no such verifier,
            or not what it needs.
    """
    get = _getter([names(getattr(config, name)) for name in WANTED])
    missing = frozenset(config.no_answer)

    def texts(row: Mapping) -> Row:
        # Nearly all values are plain texts: what else there may be is looked at only where it is.
        question, answer, id, solution, subject, level, tags, source, others, own, entry = [
            (value.strip() if "\r" not in value else _scalar(value)) if type(value) is str else value
            for value in get(row)
        ]
        question = question if type(question) is str else _text(question, "question")
        if not question:
            raise BadRow(_lack("question", names(config.question), row))
        solution = solution if type(solution) is str else _lines(solution)
        graded_by = own or verifier
        if type(answer) is not str:  # tests may be a list of assertions
            answer = _lines(answer) if graded_by == "code" else _text(answer, "answer")
        if not answer and config.answer_from != "column":
            answer = _FROM[config.answer_from](solution)
        if not answer or answer in missing:
            raise BadRow(f"the answer is {answer!r}: none" if answer else _lack("answer", names(config.answer), row))
        return (
            id if type(id) is str else _text(id, "id"),
            question,
            answer,
            solution,
            subject if type(subject) is str else _lines(subject),
            level if type(level) is str else _lines(level),
            joined(_items(tags)) if tags else "",
            source if type(source) is str else _lines(source),
            joined(_items(others, separator=None)) if others else "",
            *_grading(graded_by, entry),
        )

    return texts


def _getter(columns: Sequence[Sequence[str]]) -> Callable[[Mapping], Iterable]:
    """A function row -> the value of each column; None where the row has none of its names."""
    if all(len(own) == 1 and "." not in own[0] for own in columns):
        flat = [own[0] for own in columns]
        return lambda row: map(row.get, flat)

    def first(row, own):
        found = (row[name] if name in row else _at(row, name.split(".")) for name in own)
        return next((value for value in found if value is not None), None)

    return lambda row: [first(row, own) for own in columns]


def _at(value, path: Sequence[str]):
    """What stands at a path; the list of it where the path meets a list; None where there is nothing."""
    if not path:
        return value
    if isinstance(value, Mapping):
        return _at(value.get(path[0]), path[1:])
    return [_at(item, path) for item in value] if isinstance(value, list) else None


def _scalar(value) -> str:
    """A single value as text: 27.0 is 27; null and not-a-number are nothing."""
    if isinstance(value, str):
        return (value.replace("\r\n", "\n") if "\r" in value else value).strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        raise BadRow(f"an object with {_some(value)} where a text is wanted: a dot leads into it (pool.columns)")
    return str(value)


def _text(value, what: str) -> str:
    """One text; a list of one item is that item."""
    if isinstance(value, list):
        if len(value) > 1:
            raise BadRow(f"the {what} is a list of {len(value)}")
        return _scalar(value[0]) if value else ""
    return _scalar(value)


def _lines(value) -> str:
    """One text; the items of a list are its lines."""
    return "\n".join(filter(None, map(_scalar, value))) if isinstance(value, list) else _scalar(value)


def _items(value, separator: str | None = ";") -> list[str]:
    """Several texts: of a list, or of one text with separators."""
    if value is None:
        return []
    if not isinstance(value, list):
        text = _scalar(value)
        value = text.split(separator) if separator else [text]
    found = [item.strip() if type(item) is str else _scalar(item) for item in value]
    return [item.replace(JOIN, " ") for item in found if item]


def _grading(verifier, entry) -> tuple[str, str]:
    """The verifier, and what its scorer needs."""
    if verifier not in VERIFIER_NAMES:
        raise BadRow(f"the verifier is {verifier!r}: there are {', '.join(VERIFIER_NAMES)}")
    entry = json.dumps(entry) if isinstance(entry, Mapping) else _text(entry, "entry")
    if verifier == "reasoning_gym" and not entry:
        raise BadRow("the verifier reasoning_gym needs an entry (pool.columns.entry): task, question, answer, metadata")
    return verifier, entry


def _lack(what: str, columns: Sequence[str], row: Mapping) -> str:
    name = " or ".join(map(repr, columns)) or f"pool.columns.{what}"
    present = [c for c in columns if c in row or _at(row, c.split(".")) is not None]
    return f"{name} is empty" if present else f"{name} is missing; the line has {_some(row)}"


def _some(row: Mapping) -> str:
    listed = [str(key) for key in row]
    return ", ".join(listed[:SHOWN_KEYS]) + (", ..." if len(listed) > SHOWN_KEYS else "") or "no keys"


def boxes(text: str) -> Iterator[str]:
    r"""The contents of every \boxed{...} (or \fbox, or \boxed 5), braces matched; a box that never closes is none."""
    end = 0
    for match in _BOX.finditer(text):
        start = match.end()
        if start < end:  # within a box
            continue
        if text[start : start + 1] != "{":
            bare = re.match(r"[^\s$\\{}.,;]+", text[start:])
            if bare:
                yield bare[0]
            continue
        depth = 0
        for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                end = start + brace.end()
                yield text[start + 1 : end - 1].strip()
                break


def _from_boxes(solution: str) -> str:
    found = list(boxes(solution))
    distinct = list(dict.fromkeys("".join(box.split()) for box in found))
    if len(distinct) > 1:
        shown = ", ".join(distinct[:4]) + (", ..." if len(distinct) > 4 else "")
        raise BadRow(f"the solution has {len(distinct)} different boxes ({shown}): which is the answer?")
    if not found:
        raise BadRow("no answer: the solution has no \\boxed{...}" if solution else "no answer, and no solution")
    if not found[-1]:
        raise BadRow("no answer: the solution's \\boxed{} is empty")
    return found[-1]


def _from_hash(solution: str) -> str:
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise BadRow("no answer: nothing stands behind ####" if mark else "no answer: the solution has no ####")
    return answer.strip()


_FROM = {"boxed": _from_boxes, "hash": _from_hash}
