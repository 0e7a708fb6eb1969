"""The prompts for a language model that tags or sorts, and the reading of its replies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .reply import normalise, parse

Messages = list[dict[str, str]]
QUESTION_CHARS = 4000  # of a question that the model sees
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
    """One request about each of many texts.

    Attributes:
        name: start of the names of its replies on disk.
        messages: text -> the conversation, the user's turn last.
        reminder: added to the user's turn after a reply that cannot be read.
        read: reply -> the names in it; () when nothing can be read.
    """

    name: str
    messages: Callable[[str], Messages]
    reminder: str
    read: Callable[[str], tuple[str, ...]]

    @property
    def version(self) -> str:
        """Hash of the whole prompt: replies to another prompt are other replies."""
        return hashlib.sha256(repr((self.messages(""), self.reminder)).encode()).hexdigest()[:16]

    def second_messages(self, text: str) -> Messages:
        """Return the conversation for a text whose first reply could not be read."""
        *before, last = self.messages(text)
        return [*before, {**last, "content": f"{last['content']}\n\n{self.reminder}"}]


def make_tagging() -> Task:
    """Make the task: name the knowledge points of a question (InsTag, arXiv 2308.07074; MathScale, 2403.02884)."""

    def messages(text: str) -> Messages:
        turns = [("system", _SYSTEM)]
        for problem, labels in _SHOTS:
            turns += [("user", _REQUEST + problem), ("assistant", labels)]
        turns.append(("user", _REQUEST + text[:QUESTION_CHARS]))
        return [{"role": role, "content": content} for role, content in turns]

    return Task("tags", messages, "JSON list only.", parse)


def make_sorting(skills: Sequence[str]) -> Task:
    """Make the task: name a knowledge point's skill of a closed list (Didolkar et al. 2024, arXiv 2405.12205)."""
    skill_of = {normalise(skill): skill for skill in skills}
    listed = "\n".join(f"- {skill}" for skill in skills)

    def messages(tag: str) -> Messages:
        request = f'Skills:\n{listed}\n\nWhich of these skills does the knowledge point "{tag}" belong to? Name the '
        request += "skill exactly as in the list, and say nothing else."
        return [{"role": "system", "content": _SKILL_SYSTEM}, {"role": "user", "content": request}]

    def read(reply: str) -> tuple[str, ...]:
        names = [normalise(reply), *parse(reply)]
        return tuple(skill_of[name] for name in names if name in skill_of)[:1]

    return Task("skills", messages, "Name one skill of the list, exactly as it stands there.", read)
