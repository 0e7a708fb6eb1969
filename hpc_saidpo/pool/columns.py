"""A row of a file -> the texts of a question: the meaning of its columns, and the source of its answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import settings
from ..errors import shown
from ..grader.answers.extract import closing_braces
from ..records import JOIN, joined
from ..settings.base import Message, Names
from ..settings.pool import VERIFIER_NAMES
from .text_files import how_to_name, name_some
from .texts import lost_command, message_of, printed_list

Row = tuple[str, ...]  # the texts of a question in the order of the fields of `records.Questions`
SHOWN_BOXES = 4
# The columns in this order: a table must have the first one.
FIELDS = (
    "question", "answer", "id", "solution", "subject", "level", "tags", "source", "alt_answers", "verifier", "entry",
)  # fmt: skip
_ROW_FIELDS = (
    "id", "question", "answer", "solution", "subject", "level", "tags", "source", "alt_answers", "verifier", "entry",
)  # fmt: skip
DEFAULT_LIMITS = settings.Limits()
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")


_BARE = re.compile(r"[^\s$\\{}.,;]+")


class BadRow(ValueError):
    """A row that is no question: the message is the reason."""


def as_tuple(names: Names) -> tuple[str, ...]:
    """Return one name, several names or None as a tuple, in order of preference."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def list_renamed(config: settings.Columns) -> dict[str, Names]:
    """Return the columns whose names differ from the default ones, with their names."""
    configured = {field: getattr(config, field) for field in FIELDS}
    return {
        field: names for field, names in configured.items() if names and names != getattr(settings.Columns(), field)
    }


def make_mapper(
    config: settings.Columns, verifier: str = "math", limits: settings.Limits = DEFAULT_LIMITS
) -> Callable[[Mapping], Row]:
    """Make a function row -> texts of the question, whose id is "" when the row has none.

    Args:
        verifier: of a row that names none.
        limits: the largest texts that are read.

    Raises:
        BadRow: by the function: no question or answer; solution boxes that disagree; a list instead of one text; an
            unknown verifier, or one that lacks its entry; a text beyond a limit.
    """
    get = _make_getter([as_tuple(getattr(config, field)) for field in FIELDS], config.message)
    no_answer = frozenset(config.no_answer)

    def map_row(row: Mapping) -> Row:
        # Nearly all values are plain texts: only the others take the slow path.
        values = list(get(row))
        values[0] = message_of(values[0], config.message)
        _check_backslashes(values)
        question, answer, id, solution, subject, level, tags, source, alternatives, row_verifier, entry = [
            (value.strip() if "\r" not in value else _scalar(value)) if type(value) is str else value
            for value in values
        ]
        question = question if type(question) is str else _text(question, "question")
        if not question:
            raise BadRow(_describe_lack("question", as_tuple(config.question), row))
        solution = solution if type(solution) is str else _lines(solution)
        graded_by = row_verifier or verifier
        if type(answer) is not str:  # tests may be a list of assertions
            answer = _lines(answer) if graded_by == "code" else _text(answer, "answer")
        if not answer and config.answer_from != "column":
            answer = _ANSWER_FROM[config.answer_from](solution)
        if not answer:
            raise BadRow(_describe_lack("answer", as_tuple(config.answer), row))
        if answer in no_answer:
            raise BadRow(f"the answer is {shown(repr(answer))}: pool.columns.no_answer lists it as no answer")
        texts = (
            id if type(id) is str else _text(id, "id"),
            question,
            answer,
            solution,
            subject if type(subject) is str else _lines(subject),
            level if type(level) is str else _lines(level),
            joined(_items(tags)) if tags else "",
            source if type(source) is str else _lines(source),
            joined(_items(alternatives, separator=None)) if alternatives else "",
            *_grading(row_verifier, verifier, entry),
        )
        _check_lengths(texts, graded_by, limits)
        return texts

    return map_row


def _check_lengths(texts: Row, verifier: Any, limits: settings.Limits) -> None:
    """Refuse a row with a text beyond a limit. The tests of a program are a text like others, not a gold answer."""
    if len(longest := max(texts, key=len)) > limits.cell_chars:
        name = _ROW_FIELDS[texts.index(longest)]
        raise BadRow(f"the {name} has {len(longest):,} characters: {limits.describe('cell_chars')}")
    for name in ("answer", "alt_answers"):
        text = texts[_ROW_FIELDS.index(name)]
        if len(text) > limits.answer_chars and verifier != "code":
            raise BadRow(f"the {name} has {len(text):,} characters: {limits.describe('answer_chars')}")
    if (n := texts[_ROW_FIELDS.index("alt_answers")].count(JOIN) + 1) > limits.alt_answers:
        raise BadRow(f"it has {n:,} alternative answers: {limits.describe('alt_answers')}")


def _check_backslashes(values: Sequence[Any]) -> None:
    """Refuse a row in which JSON has read a LaTeX command as an escape."""
    for field, value in zip(FIELDS, values, strict=True):
        texts = (value,) if type(value) is str else value if isinstance(value, list) else ()
        command = next(filter(None, (lost_command(text) for text in texts if type(text) is str)), "")
        if command:
            raise BadRow(
                f"the {field} has a control character where {command} was meant: in JSON a backslash is written twice, "
                f"\\{command}"
            )


def _make_getter(names_by_field: Sequence[Sequence[str]], message: Message) -> Callable[[Mapping], Iterable[Any]]:
    """Make a function row -> the value of each column; None where the row has none of its names."""
    if all(len(names) == 1 and "." not in names[0] for names in names_by_field):
        flat = [names[0] for names in names_by_field]
        return lambda row: map(row.get, flat)

    def first(row: Mapping, names: Sequence[str]) -> Any:
        values = (row[name] if name in row else _follow(row, name.split("."), message) for name in names)
        return next((value for value in values if value is not None), None)

    return lambda row: [first(row, names) for names in names_by_field]


def _follow(value: Any, path: Sequence[str], message: Message = "only") -> Any:
    """Return the value at a path; a list of values where the path meets a list; None where there is nothing.

    A path that ends in the content of a chat leads to one message of it (`texts.message_of`).
    """
    if not path:
        return value
    if isinstance(value, Mapping):
        return _follow(value.get(path[0]), path[1:], message)
    if list(path) == ["content"] and (of_chat := message_of(value, message)) is not value:
        return of_chat
    return [_follow(item, path, message) for item in value] if isinstance(value, list) else None


def _scalar(value: Any) -> str:
    """Return a single value as text: 27.0 is "27"; null and not-a-number are ""."""
    if isinstance(value, str):
        return (value.replace("\r\n", "\n") if "\r" in value else value).strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise BadRow(f"the number {value} is not finite")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        raise BadRow(f"an object with {_list_keys(value)} instead of a text: a dot leads into it (pool.columns)")
    return str(value)


def _text(value: Any, field: str) -> str:
    """Return one text; a list of one item is that item."""
    if isinstance(value, list):
        if len(value) > 1:
            raise BadRow(f"the {field} is a list of {len(value)}")
        value = value[0] if value else None
    if isinstance(value, float) and math.isinf(value):
        raise BadRow(f"the {field} is the number {value}, which is not finite")
    return _scalar(value)


def _lines(value: Any) -> str:
    """Return one text; the items of a list become its lines."""
    return "\n".join(filter(None, map(_scalar, value))) if isinstance(value, list) else _scalar(value)


def _items(value: Any, separator: str | None = ";") -> list[str]:
    """Return several texts: the items of a list, or the parts of one text with separators."""
    if value is None:
        return []
    if not isinstance(value, list):
        text = _scalar(value)
        printed = printed_list(text)
        value = printed if printed is not None else text.split(separator) if separator else [text]
    items = [item.strip() if type(item) is str else _scalar(item) for item in value]
    return [item.replace(JOIN, " ") for item in items if item]


def _grading(row_verifier: Any, verifier: str, entry: Any) -> tuple[str, str]:
    """Return the verifier, and the entry that its scorer needs.

    Args:
        row_verifier: the verifier that the row names, if any. It must be one of this package: a file never names code
            to run.
        verifier: of rows that name none.
    """
    if row_verifier and row_verifier not in VERIFIER_NAMES:
        raise BadRow(f"the verifier is {shown(repr(row_verifier))}: there are {', '.join(VERIFIER_NAMES)}")
    verifier = row_verifier or verifier
    entry = json.dumps(entry) if isinstance(entry, Mapping) else _text(entry, "entry")
    if verifier == "reasoning_gym" and not entry:
        raise BadRow("the verifier reasoning_gym needs an entry (pool.columns.entry): task, question, answer, metadata")
    return verifier, entry


def _describe_lack(field: str, names: Sequence[str], row: Mapping) -> str:
    listed = " or ".join(map(repr, names)) or f"pool.columns.{field}"
    present = [name for name in names if name in row or _follow(row, name.split(".")) is not None]
    if present:
        return f"{listed} is empty"
    return f"{listed} is missing; the line has {_list_keys(row)}: {how_to_name(field, row)}"


def _list_keys(row: Mapping) -> str:
    return name_some(list(row)) or "no keys"


def find_boxes(text: str) -> Iterator[str]:
    r"""Yield the contents of every \boxed{...} (or \fbox, or \boxed 5), braces matched; skip a box without an end."""
    closes, end = closing_braces(text), 0
    for match in _BOX.finditer(text):
        start = match.end()
        if start < end:  # within a box
            continue
        if start in closes:
            end = closes[start] + 1
            yield text[start + 1 : end - 1].strip()
        elif bare := _BARE.match(text, start):
            yield bare[0]


def _answer_from_boxes(solution: str) -> str:
    boxes = list(find_boxes(solution))
    distinct = list(dict.fromkeys("".join(box.split()) for box in boxes))
    if len(distinct) > 1:
        some = ", ".join(shown(box, 80) for box in distinct[:SHOWN_BOXES]) + ", ..." * (len(distinct) > SHOWN_BOXES)
        raise BadRow(f"the solution has {len(distinct)} different boxes ({some}): which is the answer?")
    if not boxes:
        raise BadRow("no answer: the solution has no \\boxed{...}" if solution else "no answer, and no solution")
    if not boxes[-1]:
        raise BadRow("no answer: the solution's \\boxed{} is empty")
    return boxes[-1]


def _answer_from_hash(solution: str) -> str:
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise BadRow("no answer: nothing follows ####" if mark else "no answer: the solution has no ####")
    return answer.strip()


_ANSWER_FROM: dict[str, Callable[[str], str]] = {"boxed": _answer_from_boxes, "hash": _answer_from_hash}
