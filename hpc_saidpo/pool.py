"""Question pools and benchmarks -> lists of `Question`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from . import arithmetic
from .records import Question, RunError, settings

Count = Annotated[int, Field(ge=0)]
HELD_OUT_ONE_IN = 10  # of all expressions that reasoning-gym settings ask for


@settings()
class Jsonl:
    """A file with one JSON object per line: question, answer; optional id, solution, subject, level, tags, source."""

    kind: Literal["jsonl"] = "jsonl"
    path: Annotated[str, Field(min_length=1)]
    examples: str | None = None
    held_out: Count = 0
    seed: Count = 0


@settings()
class Arithmetic:
    """Step-by-step arithmetic made by `arithmetic.py`: topics × ranges, in the given shares of ranges."""

    kind: Literal["arithmetic"] = "arithmetic"
    n: Annotated[int, Field(ge=1)] = 2000
    shares: dict[str, float] = Field(default_factory=lambda: {"hard": 0.7, "trained": 0.15, "small": 0.15})
    held_out: Count = 200
    seed: Count = 0


@settings()
class Setting:
    """One reasoning-gym task with its parameters: a topic and level of the pool."""

    name: str
    task: str
    params: dict = Field(default_factory=dict)
    tags: tuple[str, ...]
    n: Annotated[int, Field(ge=1)]


@settings()
class ReasoningGym:
    """Questions from reasoning-gym, with few-shot examples and a held-out set that never occur in the pool."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    settings: Annotated[tuple[Setting, ...], Field(min_length=1)]
    examples: Count = 4
    held_out: Count = 200
    seed: Count = 0


Config = Annotated[Jsonl | Arithmetic | ReasoningGym, Field(discriminator="kind")]


@dataclass(frozen=True)
class Pool:
    """What a run learns from.

    Attributes:
        questions: the pool itself; stages name a question by its index here.
        held_out: questions of the same source that are never trained on.
        examples: few-shot examples by subject.
    """

    questions: list[Question]
    held_out: list[Question] = field(default_factory=list)
    examples: dict[str, list[Question]] = field(default_factory=dict)


def load(config: Jsonl | Arithmetic | ReasoningGym) -> Pool:
    """Load or make the pool. Not collective: called on root.

    Raises:
        RunError: names the file and line, or the setting, that is wrong.
    """
    pool = {"jsonl": _from_jsonl, "arithmetic": _from_arithmetic, "reasoning_gym": _from_reasoning_gym}[config.kind](
        config
    )
    if not pool.questions:
        raise RunError(f"the question pool is empty ({config}): nothing to learn from")
    return pool


def read_jsonl(path: str | Path) -> list[Question]:
    """The questions of a JSONL file.

    Raises:
        RunError: no such file; or a line is not JSON, has no question or answer, or repeats an id: file and line named.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"question file {path}: {error}: check pool.path (or evaluate.benchmarks)") from error
    questions, line_of_id = [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        question = _question(line, f"{path}:{number}", default_id=f"{path.stem}-{number}")
        if question.id in line_of_id:
            raise RunError(
                f"{path}:{number}: id {question.id!r} was used in line {line_of_id[question.id]} already: ids name "
                "stored rollouts and must be unique"
            )
        line_of_id[question.id] = number
        questions.append(question)
    return questions


def _question(line: str, where: str, default_id: str) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RunError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise RunError(f"{where}: expected a JSON object with question and answer, got {type(row).__name__}")
    for key in ("question", "answer"):
        if not str(row.get(key) if row.get(key) is not None else "").strip():
            state = "is empty" if key in row else f"is missing; the line has {', '.join(row) or 'no keys'}"
            raise RunError(f"{where}: {key!r} {state}")
    tags = row.get("tags") or ()
    tags = tags.split(";") if isinstance(tags, str) else tags
    return Question(
        id=str(row.get("id", default_id)),
        text=str(row["question"]),
        answer=str(row["answer"]),
        solution=str(row.get("solution") or ""),
        subject=str(row.get("subject") or ""),
        level=str(row.get("level") or ""),
        tags=tuple(str(tag).strip() for tag in tags if str(tag).strip()),
        source=str(row.get("source") or ""),
    )


def _from_jsonl(config: Jsonl) -> Pool:
    questions = read_jsonl(config.path)
    if config.held_out and config.held_out >= len(questions):
        raise RunError(f"pool.held_out={config.held_out} leaves nothing of the {len(questions)} in {config.path}")
    held_out = set(np.random.default_rng(config.seed).permutation(len(questions))[: config.held_out].tolist())
    return Pool(
        [q for i, q in enumerate(questions) if i not in held_out],
        [q for i, q in enumerate(questions) if i in held_out],
        by_subject(read_jsonl(config.examples)) if config.examples else {},
    )


def by_subject(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Questions grouped by subject, in their order."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.subject, []).append(question)
    return groups


def _from_arithmetic(config: Arithmetic) -> Pool:
    # The micro model never trained on the held-out questions, and neither will the run.
    try:
        made = arithmetic.problems(config.shares, config.n, config.seed, held_out=False)
        held_out = arithmetic.problems({"trained": 1.0}, config.held_out, config.seed, held_out=True)
    except ValueError as error:
        raise RunError(f"pool (arithmetic): {error}") from error
    return Pool(
        [_from_problem(p, f"arithmetic-{i}") for i, p in enumerate(made)],
        [_from_problem(p, f"held-out-{i}") for i, p in enumerate(held_out)],
    )


def _from_problem(problem: arithmetic.Problem, name: str) -> Question:
    return Question(
        id=name,
        text=problem.text,
        answer=problem.answer,
        solution=problem.solution,
        subject=problem.topic,
        level=problem.span,
        tags=(problem.topic, f"{problem.span} numbers"),
        source="hpc_saidpo.arithmetic",
    )


def _from_reasoning_gym(config: ReasoningGym) -> Pool:
    made = {setting.name: _candidates(setting, config.seed) for setting in config.settings}
    examples = {name: _examples(candidates, config.examples) for name, candidates in made.items()}
    shown = {c.expression for group in examples.values() for c in group}
    total = sum(setting.n for setting in config.settings)
    questions, held_out, seen = [], [], set()
    for setting in config.settings:
        # One expression is asked in several words, and in several settings: it is held out from all of them, or none.
        fresh = [c for c in made[setting.name] if c.expression not in shown and c.question.text not in seen]
        seen |= {c.question.text for c in fresh}
        apart = [c.question for c in fresh if c.is_held_out][: round(config.held_out * setting.n / total)]
        own = [c.question for c in fresh if not c.is_held_out][: setting.n]
        if len(own) < setting.n:
            raise RunError(
                f"pool setting {setting.name!r} has only {len(own)} distinct questions, n={setting.n} wanted"
            )
        questions += own
        held_out += apart
    return Pool(questions, held_out, {name: [c.question for c in group] for name, group in examples.items()})


@dataclass(frozen=True)
class _Candidate:
    question: Question
    expression: str  # what is asked, apart from its wording

    @property
    def is_held_out(self) -> bool:
        return zlib.crc32(self.expression.encode()) % HELD_OUT_ONE_IN == 0


def _candidates(setting: Setting, seed: int) -> list[_Candidate]:
    """Questions of a setting, distinct by text, more than enough to choose from."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise RunError("this pool needs reasoning-gym: pip install 'hpc_saidpo[demo]'") from error
    found: dict[str, _Candidate] = {}
    # reasoning-gym seeds entry i with seed + i: settings need seeds far apart.
    seed = seed + zlib.crc32(setting.name.encode())
    for entry in reasoning_gym.create_dataset(setting.task, size=10 * setting.n + 500, seed=seed, **setting.params):
        text = entry["question"].strip()
        expression = "".join(str(entry["metadata"].get("expression") or text).split())
        question = Question(
            id=f"{setting.name}-{len(found)}",
            text=text,
            answer=str(entry["answer"]).strip(),
            subject=setting.name,
            tags=setting.tags,
            source=f"reasoning_gym.{setting.task}",
        )
        found.setdefault(text, _Candidate(question, expression))
    return list(found.values())


def _examples(candidates: list[_Candidate], n: int) -> list[_Candidate]:
    """The first n questions with different answers: examples that all say the same would teach just that."""
    chosen: dict[str, _Candidate] = {}
    for candidate in candidates:
        if len(chosen) == n:
            break
        chosen.setdefault(candidate.question.answer, candidate)
    return list(chosen.values())
