r"""One form of all ways to write a question: two questions that differ in notation only have the same canonical text.

The canonical text consists of tokens with blanks between: words and numbers in lower case, operators, parentheses.
Its rules, each of which has a test:

- letters: Unicode NFKC, case folded; characters without width dropped; quotes, dashes, Greek letters and mathematical
  characters as LaTeX or ASCII has them (× and \cdot are *, − is -, ≤ and \leq are <=, π is pi, x² is x^2)
- commands: variants of a command are one (\dfrac, \tfrac, \frac; \binom, \dbinom; \ge, \geq); size, style and space
  (\left, \displaystyle, \,, \quad) are dropped; \text, \mathrm and others leave their argument
- structure: \frac{a}{b}, {a \over b} and a/b are a / b; {n \choose k} is \binom{n}{k}; \frac12 is \frac{1}{2};
  braces that are no argument are dropped, the others are parentheses
- parentheses: dropped around a single token or letters alone, when doubled, around "mod n", and around a whole formula
  in a sentence
- numbers: digits in groups of three, so that 1000, 1,000 and 1{,}000 are one; .5 is 0.5
- letters of a product: single letters side by side are joined: x y and xy are one
- marks: $, \( \), \[ \], &, \\, environments, markdown, HTML tags and entities, all punctuation dropped
- labels: "Problem 3.", "Question:" and the like dropped at the beginning

Pure. Not a normal form of mathematics: x + y and y + x differ, see `expressions`.
"""

from __future__ import annotations

import functools
import html
import re

from ..unicode import nfkc
from .spellings import ARGUMENTS, CHARACTERS, CLOSING, COMMANDS, LOOKS, OPENING, PAUSES, RAISED, SILENT, SYMBOLS

# Words after which parentheses hold the argument of a function: elsewhere those around a whole formula are redundant.
FUNCTIONS = {
    "arccos", "arcsin", "arctan", "binom", "cos", "cosh", "cot", "csc", "deg", "det", "dim", "exp", "frac", "gcd",
    "lcm", "lg", "ln", "log", "max", "min", "mod", "overline", "sec", "sgn", "sin", "sinh", "sqrt", "tan", "tanh",
}  # fmt: skip
_LONG = 100  # characters of a token whose spelling is not kept in memory
_DEEPEST = 50  # groups inside each other; further ones are ignored
_BRACKETS = frozenset("(){}")
_COMMANDS = {r"\frac": "frac", r"\binom": "binom", r"\over": "/", r"\choose": "choose"}  # where they lack arguments
Item = str | list  # a token (or several that stay together), or the items between two parentheses
# A run of words with single blanks is one token: most of a text is such runs.
_TOKEN_PATTERN = (
    r"LETTER+(?: LETTER+)*"
    r"|\d+(?:\.\d+)?"
    r"|\\[a-z]+(?:(?<=\\begin|..\\end)\s*\{[a-z]*\*?\}(?:\s*\{[lcr|\s]*\}|\[[a-z]\])?|(?<=[hv]space)\*?\s*\{[^{}]*\}"
    r"|(?<=operatorname)\*)?"
    r"|\\."
    r"|\^(?:\s*\{?\s*(?:\\(?:circ|deg)|(?:\\prime\s*)+)(?![a-z])\s*\}?)?"
    r"|[<>=]=|=[<>]|(?<=\s)!=|->|\+-|\*\*|-+|\.\d+"
    r"|\S"
)
_ASCII_TOKEN, _TOKEN = (
    re.compile(_TOKEN_PATTERN.replace("LETTER", letter), re.DOTALL) for letter in ("[a-z]", r"[^\W\d_]")
)
_NO_CHARACTER = re.compile(r"&#(?:\d{8,}|x[\da-f]{7,});?", re.IGNORECASE | re.ASCII)  # html cannot read the number
_LABEL = re.compile(
    r"(?:[\s*#_>\"']*(?:problem|question|exercise|example|task|q)(?![a-z])[\s*_]*(?:no\b\.?|number\b|\#)?[\s*_]*"
    r"(?:\d+(?:\.\d+)*[a-z]?[\s*_]*[.:)\n]|[.:)])(?!\d)[.:)\s*_]*)+"
)
_TAG = re.compile(r"</?(?:p|br|b|i|u|em|strong|div|span|li|ul|ol|code|pre|sub|question|problem)\b[^<>]*>")
_SUPERSCRIPT = re.compile(r"<sup>([^<>]*)</sup>")
_BARE_ARGUMENT = re.compile(r"(\\[dtc]?(?:frac|binom)(?![a-z]))\s*([\da-z])(?:\s*([\da-z]))?")
_DEGREES = re.compile(r"(?<![^\W\d_])degrees?(?![^\W\d_])")
_RAISED = re.compile(f"[{''.join(sorted(RAISED))}]+")
_LINE_END = re.compile(r"\\\\\[[\d.]+\s*[a-z]{2}\]")
_ESCAPED_TWICE = re.compile(r"\\\\(?=[a-z()\[\]{}%$])")
_EMPHASIS = re.compile(r"(?<![\w)\]}*\\])(\*{1,3})(?=[^\s*])(.{1,200}?)(?<=[^\s*])\1(?![\w(*])")
_BULLET = re.compile(r"\n[ \t]*\*[ \t]")
_PRIMES = re.compile(r"(?<![a-z'][a-z])(?<=[a-z)\d}])('+)(?![a-z])")
_QUOTED = re.compile(r"``(.{,200}?)''", re.DOTALL)
_BETWEEN_LETTERS, _COMMA = (
    re.compile(rf" (?<=[^\W\d_] )(?<![^ ]. ){commas}(?=[^\W\d_](?![^ ]))") for commas in ("", "(?:, )+")
)
_PLAIN_COMMA = re.compile(r" ,(?! [^\W\d_](?![^ ]))")
_NEEDLESS = re.compile(r"(?<![^ ])\( ([^ ]+|[^\W\d_]+(?: [^\W\d_]+)*) \)(?![^ ])")
_KEPT = " \0 "  # a mark in place of a comma that is not removed


def canonical(text: str) -> str:
    """Return the canonical form of a question."""
    text = plain(text)
    raws = (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)
    tokens = [raw if raw[0].isalpha() else spell(raw) if len(raw) < _LONG else spell_new(raw) for raw in raws]
    levels: list[list[Item]] = [[]]  # one for each open group
    kinds: list[str] = []  # of each open group: "(", "{" around an argument, "" for braces that group nothing
    begin, argument_end, ignored = 0, -1, 0
    for place in [i for i, token in enumerate(tokens) if token in _BRACKETS]:
        levels[-1] += tokens[begin:place]
        begin, token = place + 1, tokens[place]
        if token in "({" and len(kinds) == _DEEPEST:
            ignored += 1
        elif token in "({":
            is_argument = place > 0 and (place - 1 == argument_end or _takes_argument(raws[place - 1]))
            kinds.append("(" if token == "(" else "{" if is_argument else "")
            levels.append([])
        elif ignored:
            ignored -= 1
        elif _close(levels, kinds, token):
            argument_end = place
    levels[-1] += tokens[begin:]
    while kinds:
        kinds[-1] = ""
        _end_group(levels, kinds)
    text = " ".join(_flat(_simplified(levels[0], is_whole=True)))
    text = _PLAIN_COMMA.sub("", text.lstrip(" ,")) if "," in text else text
    shorter = _BETWEEN_LETTERS.sub("", text)
    if ")" in shorter:
        shorter = _NEEDLESS.sub(r"\1", shorter)
        if shorter != text:  # other rules may apply now
            return canonical(shorter)
    if "," in shorter:
        shorter = _COMMA.sub(_KEPT, shorter).replace(" ,", "").replace(_KEPT, " , ").removeprefix(", ")
    return shorter


def plain(text: str) -> str:
    """Return a text in lower case with LaTeX or ASCII for special characters, without markup and label."""
    if "&" in text:
        text = html.unescape(_NO_CHARACTER.sub(" ", text))
    if text.isascii():
        text = text.lower()
    else:
        text = _RAISED.sub(lambda run: f"^{{{run[0]}}}", text).translate(CHARACTERS)
        text = nfkc(nfkc(text).casefold()).translate(CHARACTERS)
    if "<" in text:
        text = _TAG.sub(" ", _SUPERSCRIPT.sub(r"^{\1}", text))
    if "*" in text:
        text = _EMPHASIS.sub(r"\2", _BULLET.sub("\n", text))
    if "``" in text:
        text = _QUOTED.sub(r" \1 ", text)
    if "'" in text:
        text = _PRIMES.sub(lambda run: r" \prime" * len(run[0]) + " ", text)
    if "\\\\" in text:
        text = _ESCAPED_TWICE.sub(r"\\", _LINE_END.sub(" ", text))
    if "\\" in text:
        text = _BARE_ARGUMENT.sub(_braced, text)
    if "degree" in text:
        text = _DEGREES.sub("deg", text)
    label = _LABEL.match(text)
    return text[label.end() :] if label else text


def _braced(found: re.Match) -> str:
    return found[1] + "".join(f"{{{digit}}}" for digit in found.groups()[1:] if digit)


def spell_new(raw: str) -> str:
    r"""Return the one spelling of a token; "" for a token without meaning, r"\text" for a command of LOOKS."""
    first = raw[0]
    if first == "\\":
        return _spell_command(raw[1:])
    if first.isdigit() or (first == "." and len(raw) > 1):
        whole, point, fraction = raw.partition(".")
        head = len(whole) % 3
        groups = [whole[:head]] * (head > 0) + [whole[i : i + 3] for i in range(head, len(whole), 3)]
        return " ".join(groups or ["0"]) + point + fraction
    if first == "^" and len(raw) > 1:
        return " ".join(["prime"] * raw.count("prime")) or "deg"
    if raw in SYMBOLS:
        return SYMBOLS[raw]
    if first == "-":
        return "-"
    return "," if raw in PAUSES else "" if raw in SILENT or not raw.isprintable() else raw


spell = functools.lru_cache(2**16)(spell_new)


def _spell_command(name: str) -> str:
    if name.startswith(("begin", "end")) and "{" in name:
        inner = name[name.index("{") + 1 : name.index("}")].rstrip("*")
        return (OPENING if name.startswith("begin") else CLOSING).get(inner, "")
    if not name[:1].isalpha():
        return {"%": "%", "|": "| |"}.get(name, "")
    if name.startswith(("hspace", "vspace")):
        return ""
    return "" if name in LOOKS else COMMANDS.get(name, name)


def _takes_argument(last: str) -> bool:
    """Whether braces after this token hold an argument: of a command, an exponent, or a second argument."""
    return last in ("^", "_", "]") or (last[:1] == "\\" and last[1:] in ARGUMENTS)


def _close(levels: list[list[Item]], kinds: list[str], token: str) -> bool:
    """End the group that a closing parenthesis or brace ends, if there is one. Whether it was an argument."""
    if token == ")":
        if kinds and kinds[-1] == "(":
            _end_group(levels, kinds)
        return False
    if all(kind == "(" for kind in kinds):
        return False
    while kinds[-1] == "(":  # parentheses that were opened inside the braces, and not closed
        kinds[-1] = ""
        _end_group(levels, kinds)
    is_argument = kinds[-1] == "{"
    _end_group(levels, kinds)
    return is_argument


def _end_group(levels: list[list[Item]], kinds: list[str]) -> None:
    inner = _simplified(levels.pop())
    levels[-1] += _group(inner) if kinds.pop() else inner


def _simplified(items: list[Item], is_whole: bool = False) -> list[Item]:
    r"""Return the items between parentheses or braces, or those of a whole text, by the rules for groups.

    Args:
        is_whole: these are the items of a whole text, of which \over and \choose do not divide all.
    """
    items = list(filter(None, items))
    if commands := [i for i, item in enumerate(items) if item[0] == "\\"]:
        for command, whole in ((r"\over", r"\frac"), (r"\choose", r"\binom")):
            if command in items and not is_whole:
                place = items.index(command)
                before, after = (_simplified(part, is_whole=True) for part in (items[:place], items[place + 1 :]))
                items, commands = [whole, *_group(before), *_group(after)], [0]
        items = _with_fractions(items, commands)
    return _without_outer(items)


def _group(items: list[Item]) -> list[Item]:
    """Return the items between parentheses or braces as one item, if parentheses around them are needed."""
    while items and items[-1] == ",":
        items.pop()
    while items and items[0] == ",":
        del items[0]
    return items if len(items) < 2 else [items]


def _with_fractions(items: list[Item], commands: list[int]) -> list[Item]:
    """Return items with a / b for fractions, and words for commands that lack arguments.

    Args:
        commands: places of the commands.
    """
    result: list[Item] = []
    begin = 0
    for place in commands:
        result += items[begin:place]
        command, arguments = items[place], items[place + 1 : place + 3]
        takes_two = command in (r"\frac", r"\binom") and len(arguments) == 2
        if takes_two and not any(argument[0] == "\\" for argument in arguments):
            over, under = arguments
            value = [over, "/", under] if command == r"\frac" else ["binom", over, under]
            result += [value] if result[-1:] == ["^"] else value
            begin = place + 3
        else:
            result.append(_COMMANDS[str(command)])
            begin = place + 1
    return result + items[begin:]


def _without_outer(items: list[Item]) -> list[Item]:
    """Return items without parentheses around a whole expression."""
    groups = [i for i, item in enumerate(items) if type(item) is list]
    while groups:  # from the last to the first: the places of the others stay
        i = groups.pop()
        before, after = items[i - 1] if i else "=", items[i + 1] if i + 1 < len(items) else "="
        group = items[i]
        if group[0] == "mod" or (_is_prose(before, -1) and _is_prose(after, 0)):
            items[i : i + 1] = group
            groups += [i + k for k, item in enumerate(group) if type(item) is list]
    return items


def _is_prose(item: Item, word: int) -> bool:
    """Whether an item is a pause, an equals sign, or words of the language at its begin (0) or end (-1)."""
    if type(item) is not str:
        return False
    last = item.split(" ")[word]
    return item in ("=", ",") or (last[1:].isalpha() and last.isalpha() and last not in FUNCTIONS)


def _flat(items: list[Item]) -> list[str]:
    result: list[str] = []
    for item in items:
        if type(item) is list:
            result += ["(", *_flat(item), ")"]
        else:
            result.append(item)  # type: ignore[arg-type]
    return result
