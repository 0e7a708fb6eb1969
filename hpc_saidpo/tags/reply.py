"""A language model's reply -> knowledge points. Pure; a reply is hostile input: no part of it is evaluated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from ..unicode import nfkc

MAX_TAGS, MIN_CHARS, MAX_CHARS, MAX_WORDS = 5, 2, 60, 6
READ_CHARS = 4000  # of a reply, after its thoughts
MAX_LISTS = 20  # of a reply that are read

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```\w{0,20}")
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "「": '"', "」": '"'})
_OPENS = re.compile(r"(?<!\\)\[")
_BETWEEN = re.compile(r"[\s,;、]*")
# A quote ends an item only where the list goes on or ends after it: 'Vieta's formulas' contains another quote.
_QUOTED = re.compile(
    r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\n]|\'(?!\s{0,9}(?:[,;、\]}]|\Z)))*)\'(?=\s{0,9}(?:[,;、\]}]|\Z))', re.DOTALL
)
_BARE = re.compile(r"[^\[\]{}\"\n,;、]+(?=\s{0,9}[\],;、\n])")
_BULLET = re.compile(r"^[ \t]*(?:[-*•·–—](?![-*])|\(?\d{1,2}[.)、:])[ \t]*(\S.*)$", re.MULTILINE)
_ASIDE = re.compile(r"[:(]|\s[-–—]\s")  # begins an explanation
_LABEL = re.compile(
    r"(?:tags?|topics?|labels?|key ?words?|concepts?|knowledge points?|skills?|标签|知识点|关键词)"
    r"[\"'*]*[ \t]*:[ \t]*(\S.*)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[,;、|\n]")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_NOISE = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathbb|mathcal|operatorname|left|right|frac|dfrac|tfrac|displaystyle)(?![a-z])"
    r"|[\\${}^_`*#<>\"~=]"
)
_EDGES = " .,:;!?'-()[]/&+|"
_SINGULAR = {
    "axes": "axis", "extrema": "extremum", "foci": "focus", "indices": "index", "loci": "locus", "matrices": "matrix",
    "maxima": "maximum", "minima": "minimum", "polyhedra": "polyhedron", "radii": "radius", "vertices": "vertex",
}  # fmt: skip
_NO_PLURAL = {"always", "bayes", "bases", "descartes", "lens", "means", "pythagoras", "series", "species", "stokes"}


def parse(reply: str) -> tuple[str, ...]:
    """Return the knowledge points that a reply names, normalised, each once, in its order; () where it names none.

    The first form that yields a point counts: a JSON list, whole or cut off, in single or no quotes, within an object,
    a code fence or prose; then a list of lines; then the text after "tags:".
    """
    text = nfkc(_FENCE.sub("\n", _without_thoughts(reply)[:READ_CHARS])).translate(_QUOTES)
    for items in (*_lists(text, _QUOTED), *_lists(text, _BARE), _bullets(text), _labelled(text)):
        if points := _distinct(items):
            return points
    return ()


def normalise(tag: str) -> str:
    """Return a knowledge point in one form: NFKC, lower case, singular, without the signs of LaTeX.

    Returns "" for a text that is no knowledge point: without a letter, shorter than MIN_CHARS or longer than MAX_CHARS.
    """
    text = nfkc(nfkc(tag).translate(_QUOTES).lower())
    text = "".join(c if c.isprintable() else " " for c in _NOISE.sub(" ", text))
    text = " ".join(filter(None, (singular(word.strip(_EDGES)) for word in text.split())))
    return text if MIN_CHARS <= len(text) <= MAX_CHARS and any(map(str.isalpha, text)) else ""


def singular(word: str) -> str:
    """Remove the plural ending of an English word, by rule: "calculus", "series", "analysis", "statistics" stay."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    ends_like_one = word.endswith(("ss", "us", "is", "ics")) or not word[-2:].isalpha()  # pell's
    if word in _NO_PLURAL or len(word) < 4 or not word.isascii() or not word.endswith("s") or ends_like_one:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def _without_thoughts(reply: str) -> str:
    """Remove the thoughts of a reply, also thoughts without their beginning or their end."""
    return _THOUGHT.sub("", reply).rpartition("</think>")[2]


def _lists(text: str, item: re.Pattern) -> Iterator[list[str]]:
    """Yield the items of each bracketed list; of a list that is cut off, the whole items."""
    for opens in itertools.islice(_OPENS.finditer(text), MAX_LISTS):
        items, position = [], _after_separators(text, opens.end())
        while match := item.match(text, position):
            items.append(next(group for group in (*match.groups(), match[0]) if group is not None))
            position = _after_separators(text, match.end())
        yield items


def _after_separators(text: str, position: int) -> int:
    between = _BETWEEN.match(text, position)  # matches nothing at least
    return between.end() if between else position


def _bullets(text: str) -> list[str]:
    """Return the names in the lines of a list; lines as long as sentences, or with equations, contain none."""
    names = (_ASIDE.split(line.strip("*_ "))[0] for line in _BULLET.findall(text) if "=" not in line)
    return [name for name in names if len(name.split()) <= MAX_WORDS]


def _labelled(text: str) -> list[str]:
    return [part for line in _LABEL.findall(text)[:1] for part in _SEPARATOR.split(line)]


def _distinct(items: Iterable[str]) -> tuple[str, ...]:
    parts = (part for item in items for part in _SEPARATOR.split(_ESCAPED.sub(_character, item)))
    return tuple(list(dict.fromkeys(filter(None, map(normalise, parts))))[:MAX_TAGS])


def _character(escape: re.Match) -> str:
    code = int(escape[1], 16)
    return " " if 0xD800 <= code < 0xE000 else chr(code)
