"""Generated pools: the arithmetic of this package, and reasoning-gym."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from .. import settings
from ..errors import RunError
from ..records import Question
from . import arithmetic
from .pool import Pool

HELD_OUT_ONE_IN = 10  # of all expressions in reasoning-gym tasks


def make(config: settings.Arithmetic | settings.ReasoningGym) -> Pool:
    """Generate the pool. Not collective: called on root.

    Raises:
        RunError: a setting is wrong; names it.
    """
    return _from_arithmetic(config) if config.kind == "arithmetic" else _from_reasoning_gym(config)


def _from_arithmetic(config: settings.Arithmetic) -> Pool:
    # The micro model was not trained on the held-out questions, and the run will not train on them either.
    try:
        problems = arithmetic.problems(config.shares, config.n, config.seed, held_out=False)
        held_out = arithmetic.problems({"trained": 1.0}, config.held_out, config.seed, held_out=True)
    except ValueError as error:
        raise RunError(f"pool (arithmetic): {error}") from error
    return Pool(
        [_from_problem(p, f"arithmetic-{i}") for i, p in enumerate(problems)],
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
    candidates = {task.name: _candidates(task, config.seed, config.verifier) for task in config.settings}
    examples = {name: _examples(of_task, config.examples) for name, of_task in candidates.items()}
    shown = {c.expression for group in examples.values() for c in group}
    total = sum(task.n for task in config.settings)
    questions, held_out, seen = [], [], set()
    for task in config.settings:
        # One expression occurs in several wordings and several tasks: it is held out from all of them, or from none.
        fresh = [c for c in candidates[task.name] if c.expression not in shown and c.question.text not in seen]
        seen |= {c.question.text for c in fresh}
        to_train = [c.question for c in fresh if not c.is_held_out][: task.n]
        if len(to_train) < task.n:
            raise RunError(
                f"pool.settings: task {task.name!r} has only {len(to_train)} distinct questions: lower n={task.n}"
            )
        questions += to_train
        held_out += [c.question for c in fresh if c.is_held_out][: round(config.held_out * task.n / total)]
    return Pool(questions, held_out, {name: [c.question for c in group] for name, group in examples.items()})


@dataclass(frozen=True)
class _Candidate:
    question: Question
    expression: str  # the same for different wordings of one question

    @property
    def is_held_out(self) -> bool:
        return zlib.crc32(self.expression.encode()) % HELD_OUT_ONE_IN == 0


def _candidates(task: settings.Task, seed: int, verifier: str) -> list[_Candidate]:
    """Generate more questions of a task than needed, distinct by text."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise RunError("this pool needs reasoning-gym: pip install 'hpc_saidpo[demo]'") from error
    candidates: dict[str, _Candidate] = {}
    # reasoning-gym seeds entry i with seed + i: the seeds of tasks must be far apart.
    seed = seed + zlib.crc32(task.name.encode())
    for entry in reasoning_gym.create_dataset(task.task, size=10 * task.n + 500, seed=seed, **task.params):
        text = entry["question"].strip()
        expression = "".join(str(entry["metadata"].get("expression") or text).split())
        question = Question(
            id=f"{task.name}-{len(candidates)}",
            text=text,
            answer=str(entry["answer"]).strip(),
            subject=task.name,
            tags=task.tags,
            source=f"reasoning_gym.{task.task}",
            verifier=verifier,
            entry=_entry(task.task, entry) if verifier == "reasoning_gym" else "",
        )
        candidates.setdefault(text, _Candidate(question, expression))
    return list(candidates.values())


def _entry(task: str, entry: dict) -> str:
    """Return the entry that the task's scorer needs, as JSON.

    Raises:
        RunError: the entry has a value that JSON cannot hold.
    """
    try:
        return json.dumps({"task": task, **{key: entry[key] for key in ("question", "answer", "metadata")}})
    except TypeError as error:
        raise RunError(f"task {task!r}: entries that JSON cannot hold ({error}): try pool.verifier=exact") from error


def _examples(candidates: list[_Candidate], n: int) -> list[_Candidate]:
    """Choose the first n questions with different answers: examples with one answer would teach only that answer."""
    chosen: dict[str, _Candidate] = {}
    for candidate in candidates:
        if len(chosen) == n:
            break
        chosen.setdefault(candidate.question.answer, candidate)
    return list(chosen.values())
