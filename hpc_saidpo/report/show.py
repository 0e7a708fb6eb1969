"""Choose responses of a run for a reader, and format them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError, shown
from ..grader.verifiers import VERIFIERS
from ..records import CORRECT, UNGRADABLE, VERDICTS, WRONG, Judgement, Question
from ..store.stage import Stage
from .responses import Choice, Responses, place_of, with_rollouts

SOME = 5  # ids and stages that a message names
Judge = Callable[[str, Question], Judgement]


def choose_stages(run: Path, name: str | None = None, iteration: int | None = None) -> list[Stage]:
    """Return the stages of this name and iteration that have rollouts, newest first.

    Args:
        name: probe, explore or evaluate/NAME; None for any.
        iteration: -1 for the policy before training; None for any.

    Raises:
        RunError: there is none; the message names some that exist.
    """
    stages = with_rollouts(run)
    chosen = [s for s in stages if name in (None, s.facts["stage"]) and iteration in (None, s.facts["iteration"])]
    if chosen:
        return chosen[::-1]
    wanted = " and ".join(filter(None, [name and f"--stage {shown(name)}", _named_iteration(iteration)]))
    exist = ", ".join(f"{place_of(s)}/{s.facts['stage']}" for s in stages[-SOME:])
    raise RunError(f"{shown(run)} has no rollouts of {wanted}; some that it has: {exist}")


def _named_iteration(iteration: int | None) -> str:
    return "" if iteration is None else f"--iteration {'base' if iteration < 0 else iteration}"


def some_of(responses: Responses, choice: Choice, n: int) -> list[int]:
    """Return the positions of up to n chosen rollouts: of as many questions as possible, spread over the stage.

    Raises:
        RunError: the stage has no such rollout; the message says how many it has of each kind, or names some questions.
    """
    found = responses.find(choice)
    if not len(found):
        raise RunError(
            f"{responses.name} has no {choice.describe()}: it has {counted(responses)}{_examples(responses)}"
        )
    question_F = responses.rollouts.question_R[found]
    first_F = np.unique(question_F, return_index=True)[1]
    starts = first_F[np.unique(np.linspace(0, len(first_F) - 1, min(n, len(first_F))).round().astype(int))]
    others = np.setdiff1d(np.arange(len(found)), starts)
    return sorted(int(found[i]) for i in [*starts, *others][:n])


def counted(responses: Responses) -> str:
    """Return the numbers of responses by verdict, in words."""
    table = responses.rollouts
    kinds = {CORRECT: "right", WRONG: "wrong", UNGRADABLE: "ungradable"}
    counts = ", ".join(f"{(table.verdict_R == v).sum():,} {word}" for v, word in kinds.items())
    return f"{counts}; {(~table.finished_R).sum():,} cut at rollouts.max_new_tokens"


def _examples(responses: Responses) -> str:
    ids = list(dict.fromkeys(responses.rollouts.id_R[: 400 * SOME : 400]))
    return "; some of its questions: " + ", ".join(shown(id, 80) for id in ids[:SOME])


def across(run: Path, question_id: str, name: str | None = None) -> Iterator[tuple[Responses, np.ndarray]]:
    """Yield every stage that has responses to a question, in the order of their work, with the positions of those.

    Args:
        name: only stages of this name; None for all.

    Raises:
        RunError: no stage has any.
    """
    choice, n, responses = Choice(question=question_id), 0, None
    for stage in choose_stages(run, name)[::-1]:
        responses = Responses.read(stage)
        if len(found := responses.find(choice)):
            n += 1
            yield responses, found
    if responses and not n:
        raise RunError(
            f"{shown(run)} has no responses to the question {shown(repr(question_id))}{_examples(responses)}"
        )


def describe(row: Mapping[str, Any], judgement: Judgement | None) -> str:
    """Return one rollout for a reader: question, gold and extracted answer, verdict with its reason, the response.

    Lines of the texts stand behind a bar: none can pass for a line of this program.

    Args:
        row: as `Responses.row` returns it.
        judgement: the verdict of the same verifier today, with its reason; None: not known.
    """
    cluster = "" if row["cluster"] is None else f", cluster {row['cluster']}"
    end = "ended by itself" if row["finished"] else "cut at rollouts.max_new_tokens"
    reason = f": {judgement.reason}" if judgement else ""
    if judgement and VERDICTS[judgement.verdict] != row["verdict"]:
        reason += f" (graded again now: {VERDICTS[judgement.verdict]}; another version graded it in the run)"
    not_stored = "not stored by the version that made the run"
    lines = [
        ("rollout", f"{shown(row['rollout'])}{cluster}"),
        ("id", shown(row["question_id"])),
        ("question", not_stored if row["question_text"] is None else _quoted(row["question_text"])),
        ("gold", not_stored if row["gold"] is None else _quoted(row["gold"])),
        ("extracted", "none" if row["extracted"] is None else _quoted(row["extracted"])),
        ("verdict", row["verdict"] + reason),
        ("response", f"{row['n_tokens']:,} tokens, {end}{_barred(row['response'])}"),
    ]
    return "\n".join(f"{name:10s}{text}" for name, text in lines)


def _quoted(text: str) -> str:
    """A text from outside: one line as it is, several behind bars."""
    return _barred(text) if len(text.splitlines()) > 1 else text


def _barred(text: str) -> str:
    """The lines of a text, each on a line of its own behind a bar."""
    return "".join(f"\n  |{line}" for line in text.splitlines() or [""])


def rows_of(
    responses: Responses, at: Sequence[int] | np.ndarray, judge: Judge
) -> Iterator[tuple[dict, Judgement | None]]:
    """Yield rollouts as plain values, each with the verdict of `judge` where its question and verifier are known."""
    for position in at:
        row = responses.row(int(position))
        question = responses.questions.get(row["question"])
        if question is not None and question.verifier in VERIFIERS:
            yield row, judge(row["response"], question)
        else:
            yield row, None
