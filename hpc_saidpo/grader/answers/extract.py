"""The final answer that a response states."""

from __future__ import annotations

import re

MAX_RESPONSE_CHARS = 200_000  # at the end of a response; the rest is ignored
MAX_ANSWER_CHARS = 1000  # a longer "answer" is no answer
MAX_BOXES = 8  # that can form one answer together
MAX_LINK_CHARS = 80  # between two boxes of one answer
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_BARE_BOX = re.compile(r"\\?\w+")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LINK = re.compile(  # between boxes of one answer: signs, blanks, and, or, and the name of the next value
    r"(?:[\s$,;.&~]|\\[()\[\],;!: ]|\\q?quad\b|\\text\{\s*,?\s*(?:and|or)?\s*,?\s*\}|\band\b|\bor\b"
    r"|\b[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=)*"
)
_STATED = re.compile(r"(?:final answer|answer)\**\s*(?:is|are|:|=|to be)\s*\**\s*:?", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[a-z_0-9]{1,30}\|>.*\Z|</s>.*\Z", re.DOTALL)  # written by a chat template after a turn
_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$]+?)(?<!\\)\$", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_BRIEF = re.compile(r"[-+]?[\d.,/%$]+(?:\s\w+)?\.?|[a-zA-Z]\.?")
_SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?:\s+(?=[A-Z])|\s*$)")
_PARTS = re.compile(r"(?:\bis\b|\bare\b|\bequals?\b|(?<![<>!\\])=(?!=)|:)\s*(?=[^=]*$)")


def extract(response: str) -> str | None:
    """The final answer, or None.

    Text before `</think>` does not count. The answer is the last brace-matched \\boxed{...}, with the boxes before it
    that `and`, `or` or a comma joins to it; else the text after the last `####`; else the text after the last
    "answer is"; else the last line if it is a short answer, or its last formula or number.
    """
    response = end_of(response)
    boxed = _boxed(response)
    if boxed is not None:
        return boxed
    response = _SPECIAL.sub("", response)
    if "####" in response:
        return _first_line(response.rpartition("####")[2])
    stated = list(_STATED.finditer(response))
    if stated and (answer := _of_statement(response[stated[-1].end() :])):
        return answer
    return _of_last_line(response)


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of each outermost brace-matched box, in order; a box that never closes does not count."""
    closes = closing_braces(text)
    all_boxes: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        if all_boxes and match.start() < all_boxes[-1][1]:
            continue
        opens = match.end()
        if text[opens] == "{":
            if opens in closes:
                all_boxes.append((match.start(), closes[opens] + 1, text[opens + 1 : closes[opens]]))
        elif content := _BARE_BOX.match(text, opens):  # \boxed 5
            all_boxes.append((match.start(), content.end(), content.group()))
    return all_boxes


def closing_braces(text: str) -> dict[int, int]:
    """Position of each opening brace -> position where it closes, in one pass; escaped braces do not count."""
    closes, open_ = {}, []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            open_.append(match.start())
        elif match.group() == "}" and open_:
            closes[open_.pop()] = match.start()
    return closes


def candidates(response: str) -> list[str]:
    """Possible answers of a response: its answer (`extract`), and all of its boxes together if there are several.

    The second one is for gold answers of several values, because a response may box each value by itself.
    """
    answer = extract(response)
    if answer is None:
        return []
    contents = list(dict.fromkeys(b[2].strip() for b in boxes(end_of(response))))
    everything = ", ".join(contents)
    return [answer] if everything == answer or not 1 < len(contents) <= MAX_BOXES else [answer, everything]


def boxed_apart(response: str) -> list[str]:
    """The content of each box of the answer: the boxes that `and`, `or` or a comma joins."""
    all_boxes = boxes(end_of(response))
    return [b[2].strip() for b in _joined(end_of(response), all_boxes)] if all_boxes else []


def end_of(response: str) -> str:
    """The part of a response that counts: its end, after `</think>`."""
    return response[-MAX_RESPONSE_CHARS:].rpartition("</think>")[2]


def _boxed(text: str) -> str | None:
    all_boxes = boxes(text)
    if not all_boxes:
        return None
    joined = _joined(text, all_boxes)
    contents = list(dict.fromkeys(b[2].strip() for b in joined))
    return ", ".join(contents) if len(contents) > 1 else joined[-1][2]


def _joined(text: str, all_boxes: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The last box, with those before it that are linked to it."""
    joined = [all_boxes[-1]]
    for earlier in reversed(all_boxes[:-1]):
        link = text[earlier[1] : joined[0][0]]
        if len(link) > MAX_LINK_CHARS or not link.strip() or not _LINK.fullmatch(link):
            break
        joined.insert(0, earlier)
    return joined


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _of_statement(text: str) -> str:
    """The answer in a statement: its formula if it has one, else its words up to the end of the sentence."""
    text = text[: 8 * MAX_ANSWER_CHARS].strip().lstrip(":* ").replace("**", "")
    if text.startswith(("$$", "\\[", "\\(", "$")) and (math := _MATH.match(text)):
        return _content(math)
    sentence = _SENTENCE_END.split(_first_line(text)[: 2 * MAX_ANSWER_CHARS], maxsplit=1)[0].strip()
    return _short(sentence)


def _of_last_line(text: str) -> str | None:
    maths = [m for m in _MATH.finditer(text[-4 * MAX_ANSWER_CHARS :])]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or len(lines[-1]) > 2 * MAX_ANSWER_CHARS:
        return None
    if maths and lines[-1] in ("$$", "\\]", "\\)", "$"):
        return _content(maths[-1])
    if len(lines) > 1 and not _MATH.search(lines[-1]):
        stated = _PARTS.split(lines[-1])
        return stated[-1].strip().rstrip(".") if len(stated) > 1 and _BRIEF.fullmatch(stated[-1].strip()) else None
    return _short(lines[-1])


def _short(line: str) -> str:
    """The answer in one line: the line, its last formula, or the text after its last `is` or `=`."""
    maths = list(_MATH.finditer(line))
    words = re.findall(r"[A-Za-z]{2,}", _MATH.sub(" ", line))
    if len(maths) > 1 and set(w.lower() for w in words) <= {"and", "or"}:
        return line
    if maths and words:
        after = line[maths[-1].end() :]
        stated = _PARTS.split(after)
        number = _NUMBER.findall(stated[-1]) if len(stated) > 1 else []
        return number[-1] if number else _right_side(_content(maths[-1]))
    if maths:
        return line
    if "\\" in line or len(words) < 3:
        return line
    tail = _PARTS.split(line)
    if len(tail) > 1 and tail[-1].strip():
        return tail[-1].strip().rstrip(".")
    return line


def _right_side(formula: str) -> str:
    """12 from `a+b = 12`, a formula at the end of a sentence; an equation with numbers on its left is not changed."""
    sides = re.split(r"(?<![<>!])=", formula)
    is_value = len(sides) == 2 and "," not in formula and not re.search(r"\d|[<>!]=", sides[0])
    return sides[1].strip() if is_value else formula


def _content(match: re.Match) -> str:
    return next(group for group in match.groups() if group is not None).strip()
