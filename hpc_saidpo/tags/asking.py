"""What a language model is asked, and how its reply is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .reply import normalise, parse

Messages = list[dict[str, str]]
QUESTION_CHARS = 4000  # of a question that are shown
_SYSTEM = "You label math problems. Do not solve them."
_REQUEST = (
    "Name the 1 to 5 knowledge points that this problem is about, the most general one first. Each is the name of a "
    "concept or technique, 1 to 6 words, in English and lower case, without numbers or names from the problem. Reply "
    "with only a JSON list of strings.\n\nProblem: "
)
_SHOTS = (
    (
        "A box holds 24 pencils. Mia takes out 9 of them and puts 5 back. How many pencils are in the box now?",
        '["arithmetic", "addition and subtraction", "word problem"]',
    ),
    (
        "Let $p$ be an odd prime. Prove that there are exactly $\\frac{p-1}{2}$ nonzero residues $a$ modulo $p$ for "
        "which $x^2 \\equiv a \\pmod{p}$ has a solution.",
        '["number theory", "quadratic residue", "modular arithmetic", "counting argument"]',
    ),
)
_SKILL_SYSTEM = "You sort the knowledge points of math problems into a fixed list of skills."


@dataclass(frozen=True)
class Task:
    """One thing to ask about each of many texts.

    Attributes:
        name: what its replies are called on disk.
        messages: text -> the conversation, the user's turn last.
        insist: what is added to the user's turn where a reply cannot be read.
        read: reply -> what it names; () when nothing can be read.
    """

    name: str
    messages: Callable[[str], Messages]
    insist: str
    read: Callable[[str], tuple[str, ...]]

    @property
    def version(self) -> str:
        """Hash of all that is said: replies to another prompt are other replies."""
        return hashlib.sha256(repr((self.messages(""), self.insist)).encode()).hexdigest()[:16]

    def again(self, text: str) -> Messages:
        """The conversation for a text whose first reply could not be read."""
        *before, last = self.messages(text)
        return [*before, {**last, "content": f"{last['content']}\n\n{self.insist}"}]


def tagging() -> Task:
    """Name the knowledge points of a question (InsTag, arXiv 2308.07074; MathScale, arXiv 2403.02884)."""

    def messages(text: str) -> Messages:
        shown = [("user", _REQUEST + problem, "assistant", labels) for problem, labels in _SHOTS]
        turns = [(role, said) for shot in shown for role, said in (shot[:2], shot[2:])]
        asked = [("system", _SYSTEM), *turns, ("user", _REQUEST + text[:QUESTION_CHARS])]
        return [{"role": role, "content": said} for role, said in asked]

    return Task("tags", messages, "JSON list only.", parse)


def sorting(skills: Sequence[str]) -> Task:
    """Name the skill of a closed list that a knowledge point belongs to (Didolkar et al. 2024, arXiv 2405.12205)."""
    known = {normalise(skill): skill for skill in skills}
    listed = "\n".join(f"- {skill}" for skill in skills)

    def messages(tag: str) -> Messages:
        request = f'Skills:\n{listed}\n\nWhich of these skills does the knowledge point "{tag}" belong to? Name the '
        request += "skill exactly as in the list, and say nothing else."
        return [{"role": "system", "content": _SKILL_SYSTEM}, {"role": "user", "content": request}]

    def read(reply: str) -> tuple[str, ...]:
        named = [normalise(reply), *parse(reply)]
        return tuple(known[name] for name in named if name in known)[:1]

    return Task("skills", messages, "Name one skill of the list, exactly as it stands there.", read)
