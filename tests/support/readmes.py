"""The READMEs of the checkout: their code spans and blocks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
READMES = sorted(str(p.relative_to(HOME)) for p in [HOME / "README.md", *HOME.glob("[!.]*/README.md")])
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: the HTML comment right above it, without its arrows: "runnable", or "file: NAME".
        line: of its first fence.
    """

    readme: str
    line: int
    language: str
    mark: str
    text: str


def blocks(readme: str) -> Iterator[Block]:
    """The fenced blocks of a README, in order."""
    text = (HOME / readme).read_text(encoding="utf-8")
    for m in _BLOCK.finditer(text):
        line = text.count("\n", 0, m.start("language")) + 1
        yield Block(readme, line, m["language"], m["mark"] or "", m["text"])


def code_of(readme: str, languages: Container[str] = ()) -> list[str]:
    """The code spans of a README, and its fenced blocks in some languages ("": those without a language)."""
    fenced = [block.text for block in blocks(readme) if block.language in languages]
    return [*fenced, *_SPAN.findall(_BLOCK.sub("", (HOME / readme).read_text(encoding="utf-8")))]


def commands(script: str) -> list[str]:
    """The commands of a bash block, a line each, without comments; continued lines are joined."""
    lines = re.sub(r"\\\n\s*", "", script).splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in lines) if line]


def bash_words(readme: str) -> set[str]:
    """The program of each command in the bash blocks of a README."""
    words = set()
    for block in blocks(readme):
        if block.language == "bash":
            for command in commands(block.text):
                words.add(next(word for word in command.split() if not re.match(r"[A-Z_0-9]+=", word)))
    return words
