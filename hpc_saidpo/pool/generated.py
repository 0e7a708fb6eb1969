"""Generated pools: the arithmetic of this package, and reasoning-gym."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .. import settings
from ..errors import RunError
from ..records import Question
from . import arithmetic
from .canonical import canonical
from .expressions import expression
from .pool import Pool

HELD_OUT_ONE_IN = 10  # of all expressions in reasoning-gym tasks
REPEATS = 1000  # a task that yields so many known questions in a row has no others


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
        shown = [problem.text for problem in problems]
        held_out = arithmetic.problems({"trained": 1.0}, config.held_out, config.seed, exclude=shown, held_out=True)
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
    streams = [_Stream(task, config.seed, config.verifier) for task in config.settings]
    examples = {stream.task.name: stream.examples(config.examples) for stream in streams}
    shown = {c.expression for group in examples.values() for c in group}
    shares = _held_out_shares([task.n for task in config.settings], config.held_out)
    used: set[str] = set()
    questions, held_out = [], []
    for stream, n_held_out in zip(streams, shares, strict=True):
        to_train, to_hold = stream.draw(stream.task.n, n_held_out, shown, used)
        if len(to_train) < stream.task.n:
            raise RunError(
                f"pool.settings: task {stream.task.name!r} has only {len(to_train)} distinct questions besides those "
                f"of examples and held-out ones: lower n={stream.task.n}"
            )
        questions += to_train
        held_out += to_hold
    for stream in streams:  # where a task has too few, the others have more
        held_out += stream.draw(0, config.held_out - len(held_out), shown, used)[1]
    if len(held_out) < config.held_out:
        raise RunError(
            f"pool.held_out={config.held_out}: the tasks have only {len(held_out)} questions whose expressions no pool "
            "question and no example has: lower it, or widen the parameters in pool.settings"
        )
    return Pool(questions, held_out, {name: [c.question for c in group] for name, group in examples.items()})


def _held_out_shares(sizes: list[int], n: int) -> list[int]:
    """Return n in proportion to sizes, by largest remainder."""
    exact = [n * size / sum(sizes) for size in sizes]
    shares = [int(value) for value in exact]
    for i in sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])[: n - sum(shares)]:
        shares[i] += 1
    return shares


@dataclass(frozen=True)
class _Candidate:
    question: Question
    expression: str  # the same for different wordings, parentheses and operand orders

    @property
    def is_held_out(self) -> bool:
        # One expression occurs in several wordings and several tasks: it is held out from all of them, or from none.
        return zlib.crc32(self.expression.encode()) % HELD_OUT_ONE_IN == 0


class _Stream:
    """The questions of a task, distinct by text, in an order that the seed decides."""

    def __init__(self, task: settings.Task, seed: int, verifier: str):
        self.task = task
        self._known: list[_Candidate] = []  # that were generated so far
        self._new = self._generate(seed, verifier)

    def _generate(self, seed: int, verifier: str) -> Iterator[_Candidate]:
        """Yield candidates until a long run of entries has no new one."""
        try:
            import reasoning_gym
        except ImportError as error:
            raise RunError("this pool needs reasoning-gym: pip install 'hpc_saidpo[demo]'") from error
        task, texts, n_repeats = self.task, set(), 0
        # reasoning-gym seeds entry i with seed + i: the seeds of tasks must be far apart.
        seed = seed + zlib.crc32(task.name.encode())
        entries = reasoning_gym.create_dataset(task.task, size=100 * task.n + 10_000, seed=seed, **task.params)
        for entry in entries:
            text = entry["question"].strip()
            n_repeats = n_repeats + 1 if text in texts else 0
            if n_repeats > REPEATS:
                return
            if n_repeats:
                continue
            texts.add(text)
            question = Question(
                id=f"{task.name}-{len(texts) - 1}",
                text=text,
                answer=str(entry["answer"]).strip(),
                subject=task.name,
                tags=task.tags,
                source=f"reasoning_gym.{task.task}",
                verifier=verifier,
                entry=_entry(task.task, entry) if verifier == "reasoning_gym" else "",
            )
            yield _Candidate(question, expression(text) or canonical(text))

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield all candidates from the first on."""
        yield from list(self._known)
        for candidate in self._new:
            self._known.append(candidate)
            yield candidate

    def examples(self, n: int) -> list[_Candidate]:
        """Return the first n candidates with different answers: with one answer they would teach only that answer."""
        chosen: dict[str, _Candidate] = {}
        for candidate in self._candidates():
            if len(chosen) == n:
                break
            chosen.setdefault(candidate.question.answer, candidate)
        return list(chosen.values())

    def draw(
        self, n: int, n_held_out: int, shown: Collection[str], used: set[str]
    ) -> tuple[list[Question], list[Question]]:
        """Return up to n questions for the pool, and up to n_held_out held-out ones; add their texts to `used`.

        Args:
            shown: expressions of the few-shot examples.
        """
        parts: dict[bool, list[Question]] = {False: [], True: []}
        limits = {False: n, True: n_held_out}
        for candidate in self._candidates():
            if len(parts[False]) >= n and len(parts[True]) >= n_held_out:
                break
            text, part = candidate.question.text, candidate.is_held_out
            if candidate.expression not in shown and text not in used and len(parts[part]) < limits[part]:
                used.add(text)
                parts[part].append(candidate.question)
        return parts[False], parts[True]


def _entry(task: str, entry: dict) -> str:
    """Return the entry that the task's scorer needs, as JSON.

    Raises:
        RunError: the entry has a value that JSON cannot hold.
    """
    try:
        return json.dumps({"task": task, **{key: entry[key] for key in ("question", "answer", "metadata")}})
    except TypeError as error:
        raise RunError(f"task {task!r}: entries that JSON cannot hold ({error}): try pool.verifier=exact") from error
