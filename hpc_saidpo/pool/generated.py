"""Pools that are made: arithmetic of this package's own, and reasoning-gym."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from .. import settings
from ..errors import RunError
from ..records import Question
from . import arithmetic
from .pool import Pool

HELD_OUT_ONE_IN = 10  # of all expressions that reasoning-gym settings ask for


def make(config: settings.Arithmetic | settings.ReasoningGym) -> Pool:
    """Make the pool. Not collective: called on root.

    Raises:
        RunError: names the setting that is wrong.
    """
    return _from_arithmetic(config) if config.kind == "arithmetic" else _from_reasoning_gym(config)


def _from_arithmetic(config: settings.Arithmetic) -> Pool:
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


def _from_reasoning_gym(config: settings.ReasoningGym) -> Pool:
    made = {setting.name: _candidates(setting, config.seed, config.verifier) for setting in config.settings}
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


def _candidates(setting: settings.Task, seed: int, verifier: str) -> list[_Candidate]:
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
            verifier=verifier,
            entry=_entry(setting.task, entry) if verifier == "reasoning_gym" else "",
        )
        found.setdefault(text, _Candidate(question, expression))
    return list(found.values())


def _entry(task: str, entry: dict) -> str:
    """What the task's scorer asks for, as text.

    Raises:
        RunError: the task keeps what JSON has not.
    """
    try:
        return json.dumps({"task": task, **{key: entry[key] for key in ("question", "answer", "metadata")}})
    except TypeError as error:
        raise RunError(f"task {task!r}: its entries cannot be kept ({error}): pool.verifier=exact may do") from error


def _examples(candidates: list[_Candidate], n: int) -> list[_Candidate]:
    """The first n questions with different answers: examples that all say the same would teach just that."""
    chosen: dict[str, _Candidate] = {}
    for candidate in candidates:
        if len(chosen) == n:
            break
        chosen.setdefault(candidate.question.answer, candidate)
    return list(chosen.values())
